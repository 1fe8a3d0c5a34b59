// Command counters allocates a known mix of objects, and says what the runtime's own
// counters say of it.
//
// It reads commands of one byte from stdin: 'a' allocates a round and answers "done",
// 'r' answers "MALLOCS TOTALALLOC". Between the two it allocates nothing, so what is
// read from outside after "done" must be what it answers to 'r'. It ends when its stdin
// closes.
package main

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
)

type node struct {
	next *node
	n    [3]int
}

// What the allocations are kept in, so that none is optimised away.
var (
	nodes  [4]*node
	bytes  [4][64][]byte
	ptrs   [4][64][]*int
	tinies [4][64]*uint16
	empty  [4][64]*struct{}
)

// round makes objects of every sort: tiny, small with and without pointers, with a
// malloc header, large, and of size zero.
func round(worker int) {
	for i := 0; i < 1000; i++ {
		nodes[worker] = &node{next: nodes[worker]}
		tinies[worker][i%64] = new(uint16)
		bytes[worker][i%64] = make([]byte, 1+i*37%3000)
		ptrs[worker][i%64] = make([]*int, 1+i%500)
		empty[worker][i%64] = new(struct{})
	}
	nodes[worker] = nil
	bytes[worker][0] = make([]byte, 100_000)
	ptrs[worker][0] = make([]*int, 50_000)
}

// work runs rounds on its own thread, so that each P has an mcache in use.
func work(worker int, start, done chan bool) {
	for range start {
		round(worker)
		done <- true
	}
}

func say(text []byte) {
	syscall.Write(1, append(text, '\n'))
}

func main() {
	// A collection that starts by itself would allocate at any time.
	debug.SetGCPercent(-1)
	start, done := make(chan bool), make(chan bool)
	for worker := range nodes {
		go work(worker, start, done)
	}
	var stats runtime.MemStats
	answer := make([]byte, 0, 100)
	command := make([]byte, 1)
	for {
		if n, _ := syscall.Read(0, command); n != 1 {
			return
		}
		switch command[0] {
		case 'a':
			runtime.GC()
			for range nodes {
				start <- true
			}
			for range nodes {
				<-done
			}
			say(append(answer, "done"...))
		case 'r':
			runtime.ReadMemStats(&stats)
			text := strconv.AppendUint(answer, stats.Mallocs, 10)
			text = strconv.AppendUint(append(text, ' '), stats.TotalAlloc, 10)
			say(text)
		}
	}
}
