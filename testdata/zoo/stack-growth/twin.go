// The same with a loop: the stacks stay as small as they were.
package main

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

type digest [32]byte

// length of the chains, of which each is a little longer than the one before.
var length atomic.Int64

const workers = 32

func main() {
	length.Store(100)
	go every(100, func() { length.Add(1) })
	for worker := 0; worker < workers; worker++ {
		go check(worker)
	}
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func check(worker int) {
	for {
		digestOf(int(length.Load()) * (workers + worker) / workers)
	}
}

// digestOf a link is that of the links before it.
func digestOf(link int) digest {
	d := first()
	for ; link > 0; link-- {
		d = next(d)
	}
	return d
}

// first reads the first link from a slow place.
func first() digest {
	time.Sleep(200 * time.Millisecond)
	return digest{}
}

func next(d digest) digest {
	hash := uint64(14695981039346656037)
	for _, b := range d[:8] {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	d[hash%8]++
	return d
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
