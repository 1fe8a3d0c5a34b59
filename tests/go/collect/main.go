// Command collect has garbage collected in every way there is.
//
// It reads commands of one byte from stdin and answers each with "done":
//
//	'a' allocates, from goroutines that have to assist, until the runtime has collected
//	60 times by itself
//	'f' collects 50 times by force, and never otherwise
//	'h' allocates few objects that are dear to mark, through 30 collections
//	'l' looks for leaked goroutines, where the runtime can (Go 1.26)
//	'p' sets GOGC to 50 and GOMEMLIMIT to 1 GiB
//	's' stops the world 25 times to read its statistics
//
// Between answers it does not collect. It ends when its stdin closes.
package main

import (
	"io"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
)

type node struct {
	left, right *node
	data        [4]int
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

// What is kept, some of it without pointers.
var (
	trees  [4]*node
	blocks [16][]byte
	tables [128][]*node
)

func collections() int64 {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	return stats.NumGC
}

func automatic(gogc int) {
	debug.SetGCPercent(gogc)
	until := collections() + 60
	done := make(chan bool)
	for i := range trees {
		go func(i int) {
			for round := 0; collections() < until; round++ {
				trees[i] = tree(10 + round%5)
				blocks[(i+round)%len(blocks)] = make([]byte, 300_000)
			}
			done <- true
		}(i)
	}
	for range trees {
		<-done
	}
	debug.SetGCPercent(-1)
}

func help() {
	debug.SetGCPercent(20)
	until := collections() + 30
	for round := 0; collections() < until; round++ {
		tables[round%len(tables)] = make([]*node, 20_000)
	}
	debug.SetGCPercent(-1)
}

func forced() {
	for round := 0; round < 50; round++ {
		trees[round%len(trees)] = tree(round % 14)
		blocks[round%len(blocks)] = make([]byte, 1_000_000)
		runtime.GC()
	}
}

func main() {
	debug.SetGCPercent(-1)
	gogc := 100
	command := make([]byte, 1)
	for {
		if n, _ := syscall.Read(0, command); n != 1 {
			return
		}
		switch command[0] {
		case 'a':
			automatic(gogc)
		case 'f':
			forced()
		case 'h':
			help()
		case 'l':
			if profile := pprof.Lookup("goroutineleak"); profile != nil {
				profile.WriteTo(io.Discard, 0)
			}
		case 'p':
			gogc = 50
			debug.SetMemoryLimit(1 << 30)
		case 's':
			var stats runtime.MemStats
			for i := 0; i < 25; i++ {
				runtime.ReadMemStats(&stats)
			}
		default:
			continue
		}
		syscall.Write(1, []byte("done\n"))
	}
}
