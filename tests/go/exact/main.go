// Command exact makes known numbers of heap objects at known places, and then says how
// many it made: the truth that heaptap's reports are compared with.
//
// It prints "ready", waits for the line "go", allocates, prints a manifest as one line
// of JSON, and ends at the line "quit" or when its stdin closes. Code positions are
// named by comments of the form "site:NAME", which the tests look up in the sources.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"
)

// sink makes what is assigned to it escape to the heap.
var sink unsafe.Pointer

// A site is a function that allocates n times at one place.
type site struct {
	name string
	// run makes n rounds of allocations.
	run func(n int)
	// rounds is what run is called with.
	rounds int
	// rows says what one round allocates. Empty: it depends on the Go version or on
	// random hash seeds, and is measured while nothing else runs.
	rows []row
	// frames are the innermost frames in this package; empty: the one function that is
	// called as the site is.
	frames []frame
	// workers is the number of goroutines that call run at once; 0 means the main one.
	workers int
	// sharesBlocks: objects are packed into blocks, whose number depends on the GC.
	sharesBlocks bool
}

// A row is one sort of object of a site.
type row struct {
	// Type is as Go prints it; empty: not asserted.
	Type string `json:"type,omitempty"`
	// Kind is as heaptap's reports call it; empty: not asserted.
	Kind string `json:"kind,omitempty"`
	// Marker names the comment at the innermost frame's line; empty: not asserted.
	Marker string `json:"marker,omitempty"`
	// Objects is the number per round, and in the manifest in all.
	Objects uint64 `json:"objects"`
	// Requested is the number of bytes asked for, likewise; 0: not asserted.
	Requested uint64 `json:"requested,omitempty"`
}

// A frame is one function of a stack; Marker names the comment at its line, and where it
// is empty the line is not asserted.
type frame struct {
	Function string `json:"function"`
	Marker   string `json:"marker,omitempty"`
	Inlined  bool   `json:"inlined"`
}

// A siteResult is what a site is known to have allocated.
type siteResult struct {
	Name    string  `json:"name"`
	Frames  []frame `json:"frames"`
	Objects uint64  `json:"objects"`
	// Bytes is by size class; 0: not asserted.
	Bytes uint64 `json:"bytes,omitempty"`
	Rows  []row  `json:"rows"`
}

// The manifest is the program's whole result.
type manifest struct {
	Go    string       `json:"go"`
	Sites []siteResult `json:"sites"`
	// Mallocs and TotalAlloc are the runtime's own counts over the whole phase.
	Mallocs    uint64 `json:"mallocs"`
	TotalAlloc uint64 `json:"total_alloc"`
	GCCycles   uint32 `json:"gc_cycles"`
}

func main() {
	runtime.GOMAXPROCS(4)
	debug.SetGCPercent(-1)
	perRound := make([]uint64, len(sites))
	for i, s := range sites {
		if len(s.rows) > 0 && !s.sharesBlocks {
			perRound[i] = bytesPerRound(s)
		}
	}
	results := make([]siteResult, len(sites))
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	await(in, "go")

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	runAmidGC()
	debug.SetGCPercent(-1)
	for i, s := range sites {
		results[i] = result(s, perRound[i])
	}
	runtime.ReadMemStats(&after)

	out, err := json.Marshal(manifest{
		Go:         runtime.Version(),
		Sites:      results,
		Mallocs:    after.Mallocs - before.Mallocs,
		TotalAlloc: after.TotalAlloc - before.TotalAlloc,
		GCCycles:   after.NumGC - before.NumGC,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(out))
	await(in, "quit")
}

// await reads up to the given line and ends the program when stdin closes before it.
func await(in *bufio.Scanner, line string) {
	for in.Scan() {
		if in.Text() == line {
			return
		}
	}
	os.Exit(0)
}

// runAmidGC runs the sites of known numbers while the GC runs all the time.
func runAmidGC() {
	debug.SetGCPercent(20)
	stop := make(chan struct{})
	var collector, workers sync.WaitGroup
	collector.Add(1)
	go func() {
		defer collector.Done()
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	for _, s := range sites {
		if len(s.rows) > 0 {
			start(s, &workers)
		}
	}
	workers.Wait()
	close(stop)
	collector.Wait()
}

// start runs a site: here, or on as many goroutines as it wants.
func start(s site, workers *sync.WaitGroup) {
	if s.workers == 0 {
		s.run(s.rounds)
		return
	}
	for w := 0; w < s.workers; w++ {
		workers.Add(1)
		go func(lock bool, s site) {
			defer workers.Done()
			if lock {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			s.run(s.rounds)
		}(w%2 == 1, s)
	}
}

// result is what a site has allocated; the sites of unknown numbers are run now, while
// nothing else does, and the runtime's counters say how much that was.
func result(s site, bytesPerRound uint64) siteResult {
	r := siteResult{Name: s.name, Frames: s.frames}
	if len(r.Frames) == 0 {
		r.Frames = []frame{{Function: "main." + s.name}}
	}
	if len(s.rows) == 0 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.run(s.rounds)
		runtime.ReadMemStats(&after)
		r.Objects = after.Mallocs - before.Mallocs
		r.Bytes = after.TotalAlloc - before.TotalAlloc
		return r
	}
	rounds := uint64(s.rounds)
	if s.workers > 0 {
		rounds *= uint64(s.workers)
	}
	r.Bytes = bytesPerRound * rounds
	for _, row := range s.rows {
		row.Objects *= rounds
		row.Requested *= rounds
		r.Objects += row.Objects
		r.Rows = append(r.Rows, row)
	}
	return r
}

// bytesPerRound measures, by the runtime's counters, the size classes of one round.
func bytesPerRound(s site) uint64 {
	const rounds = 10
	s.run(1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.run(rounds)
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / rounds
}
