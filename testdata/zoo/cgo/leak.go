// A service that gives strings to a C library and never frees them: the Go heap stays as
// it is, and the process grows.
package main

/*
#include <stdlib.h>
#include <string.h>

static size_t measure(const char *text) { return strlen(text); }
*/
import "C"

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unsafe"
)

var text = strings.Repeat("text ", 200)

var total C.size_t

func main() {
	go every(1000, send)
	go every(1000, check)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// send has the library measure a text of a thousand bytes.
func send() {
	s := C.CString(text)
	total += C.measure(s)
}

// check does so too, with one that it frees.
func check() {
	s := C.CString(text[:500])
	defer C.free(unsafe.Pointer(s))
	total += C.measure(s)
}

var page []byte

func answer() {
	page = make([]byte, 12<<10)
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
