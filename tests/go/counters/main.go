// Command counters allocates a known mix, reads the runtime's own counters, and then
// waits without allocating, so that they can be read from outside and compared.
//
// For each line on stdin it allocates one more round and prints
// "MALLOCS TOTALALLOC NUMGC"; it ends when its stdin closes.
package main

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

type node struct {
	next *node
	n    [3]int
}

// What the allocations are kept in, so that none is optimised away.
var (
	nodes  *node
	bytes  [64][]byte
	ptrs   [64][]*int
	tinies [64]*uint16
	empty  [64]*struct{}
)

// round makes objects of every sort: tiny, small with and without pointers, with a
// malloc header, large, and of size zero.
func round(worker int) {
	var chain *node
	for i := 0; i < 1000; i++ {
		chain = &node{next: chain}
		tinies[i%64] = new(uint16)
		bytes[i%64] = make([]byte, 1+i*37%3000)
		ptrs[i%64] = make([]*int, 1+i%500)
		empty[i%64] = new(struct{})
	}
	if worker == 0 {
		nodes = chain
	}
	bytes[0] = make([]byte, 100_000)
	ptrs[0] = make([]*int, 50_000)
}

func main() {
	var stats runtime.MemStats
	line := make([]byte, 0, 100)
	input := make([]byte, 1)
	for {
		if n, _ := syscall.Read(0, input); n != 1 {
			return
		}
		if input[0] != '\n' {
			continue
		}
		var done sync.WaitGroup
		for worker := 0; worker < 4; worker++ {
			done.Add(1)
			go func(worker int) {
				defer done.Done()
				round(worker)
			}(worker)
		}
		done.Wait()
		// A GC still running would make objects of its own after the counters are read.
		runtime.GC()
		round(0)
		runtime.ReadMemStats(&stats)
		// Counted in the mcaches only: ReadMemStats has just emptied them.
		line = line[:0]
		line = strconv.AppendUint(line, stats.Mallocs, 10)
		line = append(line, ' ')
		line = strconv.AppendUint(line, stats.TotalAlloc, 10)
		line = append(line, ' ')
		line = strconv.AppendUint(line, uint64(stats.NumGC), 10)
		line = append(line, '\n')
		os.Stdout.Write(line)
	}
}
