// Command steps allocates as it is told, from one function, and says when it is done.
//
// It prints "ready" and reads lines from stdin: "alloc N G" makes N objects of 160 bytes
// on each of G goroutines, all on threads of their own, and answers "done"; "deep D"
// makes one object below D frames of recursion, "gc" runs a garbage collection; both
// answer "done". It ends when its stdin closes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
)

type object struct {
	next *object
	_    [152]byte
}

// sinks keep the last object of each goroutine.
var sinks [64]*object

//go:noinline
func allocate(n, worker int) {
	for i := 0; i < n; i++ {
		sinks[worker] = new(object)
	}
}

//go:noinline
func descend(depth int) int {
	if depth == 0 {
		allocate(1, 0)
		return 0
	}
	return descend(depth-1) + 1
}

func main() {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var n, goroutines int
		switch {
		case in.Text() == "gc":
			runtime.GC()
		case scan(in.Text(), "deep %d", &n):
			descend(n)
		case scan(in.Text(), "alloc %d %d", &n, &goroutines):
			onThreads(n, goroutines)
		default:
			fmt.Fprintln(os.Stderr, "steps: what is", in.Text())
			os.Exit(2)
		}
		fmt.Println("done")
	}
}

func scan(text, format string, values ...interface{}) bool {
	got, _ := fmt.Sscanf(text, format, values...)
	return got == len(values)
}

func onThreads(n, goroutines int) {
	var workers sync.WaitGroup
	for worker := 0; worker < goroutines; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			allocate(n, worker)
		}(worker)
	}
	workers.Wait()
}
