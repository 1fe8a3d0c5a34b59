// Command churn allocates objects of one sort, at a rate or as fast as it can, and says
// each interval how many it has made and what one cost.
//
// It prints "ready", then lines of JSON {"allocs": in all, "ns_per_alloc": in the
// interval}, and ends at the line "quit" or when its stdin closes.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

type scan48 struct {
	p *byte
	_ [40]byte
}

type scan160 struct {
	p *byte
	_ [152]byte
}

// sinks keep one object per goroutine alive, each on its own cache line.
var sinks [64]struct {
	p unsafe.Pointer
	_ [56]byte
}

// kinds are loops that make n objects of one sort.
var kinds = map[string]func(n int, to *unsafe.Pointer){
	"scan48": func(n int, to *unsafe.Pointer) {
		for ; n > 0; n-- {
			*to = unsafe.Pointer(new(scan48))
		}
	},
	"scan160": func(n int, to *unsafe.Pointer) {
		for ; n > 0; n-- {
			*to = unsafe.Pointer(new(scan160))
		}
	},
	"noscan48": func(n int, to *unsafe.Pointer) {
		for ; n > 0; n-- {
			*to = unsafe.Pointer(new([6]uint64))
		}
	},
	"noscan160": func(n int, to *unsafe.Pointer) {
		for ; n > 0; n-- {
			*to = unsafe.Pointer(new([20]uint64))
		}
	},
	"tiny4": func(n int, to *unsafe.Pointer) {
		for ; n > 0; n-- {
			*to = unsafe.Pointer(new(int32))
		}
	},
	"large40000": func(n int, to *unsafe.Pointer) {
		for ; n > 0; n-- {
			*to = unsafe.Pointer(new([5000]uint64))
		}
	},
}

// What has been done so far by all goroutines.
var allocs, busyNs int64

func main() {
	kind := flag.String("kind", "scan48", "sort of object: "+strings.Join(kindNames(), ", "))
	rate := flag.Int("rate", 0, "objects per second in all; 0: as fast as possible")
	goroutines := flag.Int("g", 1, "goroutines that allocate")
	depth := flag.Int("depth", 0, "calls more on the stack of each goroutine that allocates")
	interval := flag.Duration("interval", time.Second, "time between two lines")
	flag.Parse()
	allocate, ok := kinds[*kind]
	if !ok || *goroutines < 1 || *goroutines > len(sinks) {
		fmt.Fprintln(os.Stderr, "churn: no such kind, or not that many goroutines")
		os.Exit(2)
	}
	fmt.Println("ready")
	for g := 0; g < *goroutines; g++ {
		to := &sinks[g].p
		if *rate == 0 {
			go within(*depth, func() { flood(allocate, to) })
		} else {
			go within(*depth, func() { drip(allocate, to, float64(*rate)/float64(*goroutines)) })
		}
	}
	go report(*interval)
	awaitQuit()
}

func kindNames() []string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// within calls f with some calls more on the stack, of a frame of some 130 bytes each.
//
//go:noinline
func within(calls int, f func()) {
	var frame [12]uint64
	if calls > 0 {
		within(calls-1, f)
	} else {
		f()
	}
	runtime.KeepAlive(&frame)
}

// flood allocates without a pause.
func flood(allocate func(int, *unsafe.Pointer), to *unsafe.Pointer) {
	const batch = 1000
	for {
		timed(allocate, to, batch)
	}
}

// drip allocates at a rate, in bursts a few milliseconds apart. Bursts are short, so that
// a figure comes out of each even when objects are slow to make; and a burst that comes
// late is made up for, unless it is hopelessly late.
func drip(allocate func(int, *unsafe.Pointer), to *unsafe.Pointer, perSecond float64) {
	const longest, hopeless = 1000, 100 * time.Millisecond
	start, done := time.Now(), 0
	for {
		behind := int(time.Since(start).Seconds()*perSecond) - done
		switch {
		case float64(behind) > perSecond*hopeless.Seconds():
			start, done = time.Now(), 0
		case behind > longest:
			timed(allocate, to, longest)
			done += longest
		default:
			timed(allocate, to, behind)
			done += behind
			time.Sleep(2 * time.Millisecond)
		}
	}
}

func timed(allocate func(int, *unsafe.Pointer), to *unsafe.Pointer, n int) {
	start := time.Now()
	allocate(n, to)
	atomic.AddInt64(&busyNs, int64(time.Since(start)))
	atomic.AddInt64(&allocs, int64(n))
}

func report(interval time.Duration) {
	var lastAllocs, lastBusy int64
	for {
		time.Sleep(interval)
		nowAllocs, nowBusy := atomic.LoadInt64(&allocs), atomic.LoadInt64(&busyNs)
		perAlloc := 0.0
		if nowAllocs > lastAllocs {
			perAlloc = float64(nowBusy-lastBusy) / float64(nowAllocs-lastAllocs)
		}
		fmt.Printf("{\"allocs\":%d,\"ns_per_alloc\":%.2f}\n", nowAllocs, perAlloc)
		lastAllocs, lastBusy = nowAllocs, nowBusy
	}
}

func awaitQuit() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() && in.Text() != "quit" {
	}
}
