//go:build cgo

// Makes this a program with C code in it.

package main

import "C"
