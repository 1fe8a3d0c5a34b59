// The same with the finalizer on the descriptor alone, which points to nothing.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// A file with a cache, which knows its file.
type file struct {
	descriptor *descriptor
	cache      *cache
}

type cache struct {
	file  *file
	pages [1000]byte
}

// A descriptor must be given back to the system.
type descriptor struct {
	number int64
}

var opened, closed atomic.Int64

func main() {
	go every(1000, read)
	go every(1000, peek)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func read() {
	f := open()
	f.cache.pages[0]++
}

func open() *file {
	f := &file{descriptor: &descriptor{opened.Add(1)}}
	f.cache = &cache{file: f}
	runtime.SetFinalizer(f.descriptor, (*descriptor).close)
	return f
}

func (d *descriptor) close() {
	closed.Add(1)
}

// peek needs no file: its finalizer is in no cycle.
func peek() {
	d := &descriptor{opened.Add(1)}
	runtime.SetFinalizer(d, (*descriptor).close)
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
