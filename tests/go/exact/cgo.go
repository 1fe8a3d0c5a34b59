//go:build cgo

// Allocations made by Go code that C calls.

package main

/*
extern void allocateFromC(void);

static inline void callBack(int n) {
	for (int i = 0; i < n; i++) {
		allocateFromC();
	}
}
*/
import "C"

import "unsafe"

var cgoSites = []site{
	{name: "callC", run: callC, rounds: 1429, frames: []frame{{Function: "main.allocateFromC", Marker: "allocateFromC"}}, rows: object("allocateFromC", "main.scanT96", 96)},
}

func callC(n int) {
	C.callBack(C.int(n))
}

//go:noinline
//export allocateFromC
func allocateFromC() {
	sink = unsafe.Pointer(new(scanT96)) // site:allocateFromC
}
