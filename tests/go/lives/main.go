// Command lives keeps and drops known numbers of heap objects of known places, and says
// after each step how many of each place must now be alive.
//
// An argument is the rate its heap profiler is to sample at (runtime.MemProfileRate); it
// is off without. It prints "ready" and then obeys lines:
//
//	hold      every place makes objects and keeps some of them, scattered
//	drop      every place drops half of what it keeps
//	fill MIB  the places of small objects hold until these keep so much
//	gc        garbage is collected until all that died is swept
//	storm N   N goroutines make garbage and collections follow each other, while every
//	          place makes and drops objects over and over
//	rate N    the heap profiler samples at this rate from now on
//	spread    as many goroutines as can run at once each make and drop an object of each place
//	busy      garbage is made at no place from here on, at most 50,000 objects a second
//	rest      no more
//	look      nothing is done
//	quit      (or the end of stdin) ends it
//
// After each it prints one line of JSON: {"alive": {place: {"objects": n, "bytes": n}},
// "held": …, "procs": GOMAXPROCS, "rate": runtime.MemProfileRate}, bytes by size class; held
// are all objects made in steps called hold.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A place makes objects of one sort in a function of its own.
type place struct {
	name string
	// size is the class that its objects fall into.
	size uint64
	make func() unsafe.Pointer
	// holds is how many it makes in one step.
	holds int
	// held is how many it has made in such steps.
	held uint64
	kept []unsafe.Pointer
}

type node24 struct {
	next *node24
	_    [16]byte
}

type node48 struct {
	next *node48
	_    [40]byte
}

type scan640 struct {
	p *byte
	_ [600]byte
}

type scan9000 struct {
	p *byte
	_ [9000]byte
}

type fin64 struct {
	p *byte
	_ [56]byte
}

// length is no constant to the compiler.
var length = 100

//go:noinline
func scan8() unsafe.Pointer { return unsafe.Pointer(new(*byte)) }

//go:noinline
func scan24() unsafe.Pointer { return unsafe.Pointer(new(node24)) }

//go:noinline
func scan48() unsafe.Pointer { return unsafe.Pointer(new(node48)) }

//go:noinline
func noscan16() unsafe.Pointer { return unsafe.Pointer(new([2]uint64)) }

//go:noinline
func noscan96() unsafe.Pointer { return unsafe.Pointer(new([12]uint64)) }

//go:noinline
func header640() unsafe.Pointer { return unsafe.Pointer(new(scan640)) }

//go:noinline
func header9472() unsafe.Pointer { return unsafe.Pointer(new(scan9000)) }

//go:noinline
func slice112() unsafe.Pointer { return unsafe.Pointer(&make([]byte, length)[0]) }

//go:noinline
func large() unsafe.Pointer { return unsafe.Pointer(new([40960]byte)) }

//go:noinline
func largeScan() unsafe.Pointer { return unsafe.Pointer(new([5120]*byte)) }

// The finalizer keeps an object over the first collection that finds it dead.
//
//go:noinline
func finalized() unsafe.Pointer {
	p := new(fin64)
	runtime.SetFinalizer(p, func(*fin64) { finalizers.Add(1) })
	return unsafe.Pointer(p)
}

var finalizers atomic.Int64

func places() []*place {
	return []*place{
		{name: "scan8", size: 8, make: scan8, holds: 3000},
		{name: "scan24", size: 24, make: scan24, holds: 3000},
		{name: "scan48", size: 48, make: scan48, holds: 3000},
		{name: "noscan16", size: 16, make: noscan16, holds: 3000},
		{name: "noscan96", size: 96, make: noscan96, holds: 1000},
		{name: "header640", size: 640, make: header640, holds: 500},
		{name: "header9472", size: 9472, make: header9472, holds: 50},
		{name: "slice112", size: 112, make: slice112, holds: 1000},
		{name: "large", size: 40960, make: large, holds: 20},
		{name: "largeScan", size: 40960, make: largeScan, holds: 20},
		{name: "finalized", size: 64, make: finalized, holds: 100},
	}
}

// hold makes a place's objects and keeps two of three, so that the dead lie among them.
func (p *place) hold() {
	p.held += uint64(p.holds)
	for i := 0; i < p.holds; i++ {
		object := p.make()
		if i%3 != 1 {
			p.kept = append(p.kept, object)
		}
	}
}

// drop forgets every other object, and where they were kept.
func (p *place) drop() {
	kept := make([]unsafe.Pointer, 0, len(p.kept))
	for i, object := range p.kept {
		if i%2 == 0 {
			kept = append(kept, object)
		}
	}
	p.kept = kept
}

// collect leaves nothing dead unswept, objects with finalizers included.
func collect() {
	for i := 0; i < 3; i++ {
		before := finalizers.Load()
		runtime.GC()
		for i := 0; i < 1000 && finalizers.Load() == before; i++ {
			runtime.Gosched()
		}
	}
	runtime.GC()
}

// storm has n goroutines make garbage under a tiny heap goal while objects come and go.
func storm(all []*place, n int) {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	var stop atomic.Bool
	var group sync.WaitGroup
	for i := 0; i < n; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for !stop.Load() {
				for _, p := range all {
					p.make()
				}
			}
		}()
	}
	for round := 0; round < 20; round++ {
		for _, p := range all {
			p.hold()
			p.drop()
			if round%4 == 3 {
				p.drop()
			}
		}
	}
	stop.Store(true)
	group.Wait()
}

// spread has several Ps allocate: goroutines that await each other run side by side.
func spread(all []*place) {
	var running atomic.Int64
	var group sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for i := 0; i < n; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for running.Add(1); running.Load() < int64(n); {
			}
			for _, p := range all {
				p.make()
			}
		}()
	}
	group.Wait()
}

// fill has places hold small objects until all that is kept takes so many bytes.
func fill(all []*place, bytes uint64) {
	for kept := uint64(0); kept < bytes; {
		kept = 0
		for _, p := range all {
			if p.size <= 640 && p.name != "finalized" {
				p.hold()
			}
			kept += uint64(len(p.kept)) * p.size
		}
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

func main() {
	if len(os.Args) > 1 {
		runtime.MemProfileRate = number(os.Args[1])
	}
	all := places()
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	var work chan bool
	for in.Scan() {
		words := strings.Fields(in.Text() + " 0")
		switch words[0] {
		case "hold":
			for _, p := range all {
				p.hold()
			}
		case "drop":
			for _, p := range all {
				p.drop()
			}
		case "gc":
			collect()
		case "fill":
			fill(all, uint64(number(words[1]))<<20)
		case "storm":
			storm(all, number(words[1]))
		case "rate":
			runtime.MemProfileRate = number(words[1])
		case "spread":
			spread(all)
		case "busy":
			work = make(chan bool)
			go busy(work)
		case "rest":
			work <- true
		case "look":
		default:
			return
		}
		say(all)
	}
}

// garbage is what busy has made last.
var garbage *[1024]byte

// busy makes garbage until it is told to stop.
func busy(stop chan bool) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
			for i := 0; i < 50; i++ {
				garbage = new([1024]byte)
			}
		}
	}
}

type amount struct {
	Objects uint64 `json:"objects"`
	Bytes   uint64 `json:"bytes"`
}

func say(all []*place) {
	alive, held := make(map[string]amount), make(map[string]amount)
	for _, p := range all {
		n := uint64(len(p.kept))
		alive[p.name] = amount{n, n * p.size}
		held[p.name] = amount{p.held, p.held * p.size}
	}
	line, err := json.Marshal(map[string]interface{}{
		"alive": alive, "held": held, "procs": runtime.GOMAXPROCS(0), "rate": runtime.MemProfileRate,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
	runtime.KeepAlive(all)
}
