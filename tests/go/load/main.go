// Command load works and allocates at a rate, or serves HTTP requests that do, and says
// each interval how far it got.
//
// It prints "ready", then lines of JSON: {"ops": operations done, "allocs": objects made,
// "bytes": of them, "ns": time of the interval}, as a server also "p99_ns" of its latency.
// At the line "profile N" it sets runtime.MemProfileRate to N and says "done". It ends when
// its stdin closes.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

type node16 struct {
	p *byte
	_ [8]byte
}
type node48 struct {
	p *byte
	_ [40]byte
}
type node128 struct {
	p *byte
	_ [120]byte
}

// kept is what stays alive: a ring, of which an eighth of all objects pass through a slot.
type kept struct {
	ring [1 << 17]unsafe.Pointer
	next int
}

func (k *kept) keep(p unsafe.Pointer) {
	k.ring[k.next&(len(k.ring)-1)] = p
	k.next++
}

// Objects and bytes of one call of some.
const (
	someObjects = 8
	someBytes   = 16 + 48 + 64 + 128 + 32 + 256 + 48 + 16
)

// some makes eight objects of different sorts, and keeps one.
func some(k *kept) {
	a := &node16{}
	b := &node48{}
	c := new([8]uint64)
	d := &node128{}
	e := make([]byte, 32)
	f := make([]uint64, 32)
	g := &node48{}
	h := new([2]uint64)
	all := [someObjects]unsafe.Pointer{unsafe.Pointer(a), unsafe.Pointer(b), unsafe.Pointer(c),
		unsafe.Pointer(d), unsafe.Pointer(&e[0]), unsafe.Pointer(&f[0]), unsafe.Pointer(g), unsafe.Pointer(h)}
	k.keep(all[k.next&(someObjects-1)])
	runtime.KeepAlive(&all)
}

var sink uint64

// work takes some time and allocates nothing.
func work(rounds int) {
	x := uint64(rounds) | 1
	for i := 0; i < rounds; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	atomic.StoreUint64(&sink, x)
}

// calibrate finds the rounds of work between two calls of some for a rate of objects a second.
func calibrate(rate int) int {
	if rate == 0 {
		return 0
	}
	k := new(kept)
	const rounds, calls = 1 << 14, 1 << 14
	round := best(func() { work(rounds) }) / rounds
	call := best(func() {
		for i := 0; i < calls; i++ {
			some(k)
		}
	}) / calls
	left := someObjects*1e9/float64(rate) - call
	if left < round {
		return 1
	}
	return int(left / round)
}

// best is the least time that it took, in nanoseconds.
func best(task func()) float64 {
	least := time.Hour
	for try := 0; try < 50; try++ {
		begin := time.Now()
		task()
		if took := time.Since(begin); took < least {
			least = took
		}
	}
	return float64(least)
}

// done counts operations, each worker on its own cache line.
var done [64]struct {
	ops int64
	_   [56]byte
}

func allocate(worker, rounds int) {
	k := new(kept)
	for {
		for i := 0; i < 16; i++ {
			some(k)
			if rounds > 0 {
				work(rounds)
			}
		}
		atomic.AddInt64(&done[worker].ops, 16)
	}
}

func main() {
	rate := flag.Int("rate", 0, "objects a second, of each worker; 0: as fast as possible")
	workers := flag.Int("workers", 1, "goroutines that allocate")
	serve := flag.Bool("http", false, "serve requests instead")
	interval := flag.Duration("interval", 100*time.Millisecond, "time between two lines")
	profile := flag.Int("profile", 512*1024, "runtime.MemProfileRate")
	flag.Parse()
	runtime.MemProfileRate = *profile
	latency := func() int64 { return 0 }
	if *serve {
		latency = serveHTTP()
	} else {
		rounds := calibrate(*rate)
		for i := 0; i < *workers; i++ {
			go allocate(i, rounds)
		}
	}
	fmt.Println("ready")
	go obey()
	before, begin := int64(0), time.Now()
	for {
		time.Sleep(*interval)
		ops, now := int64(0), time.Now()
		for i := range done {
			ops += atomic.LoadInt64(&done[i].ops)
		}
		n := ops - before
		fmt.Printf("{\"ops\": %d, \"allocs\": %d, \"bytes\": %d, \"ns\": %d, \"p99_ns\": %d}\n",
			n, n*someObjects, n*someBytes, now.Sub(begin).Nanoseconds(), latency())
		before, begin = ops, now
	}
}

func obey() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var rate int
		if _, err := fmt.Sscanf(in.Text(), "profile %d", &rate); err == nil {
			runtime.MemProfileRate = rate
			fmt.Println("done")
		}
	}
	os.Exit(0)
}
