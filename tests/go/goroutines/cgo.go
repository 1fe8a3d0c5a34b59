//go:build cgo

// Goroutines in C code, and in Go code that C calls.

package main

/*
#include <unistd.h>

extern void parkFromC(void);

static void callBack(void) { parkFromC(); }
static void inC(void) { for (;;) pause(); }
*/
import "C"

func cgo() {
	park(3, func() { C.inC() })
	park(3, func() { C.callBack() })
}

//export parkFromC
func parkFromC() { <-never }
