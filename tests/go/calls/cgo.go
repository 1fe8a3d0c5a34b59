//go:build cgo

package main

// Makes this a program with C code in it.
import "C"
