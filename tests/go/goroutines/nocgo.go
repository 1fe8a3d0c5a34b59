//go:build !cgo

package main

// cgo parks nothing in a program without it.
func cgo() {}
