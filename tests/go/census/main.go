// Command census has known numbers of goroutines, timers and finalizers, among these some that
// wait behind one that blocks, and says what they are. Then it rests until its stdin closes.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	receivers = 300
	selectors = 200
	deep      = 10
	timers    = 150
	stopped   = 50
	kept      = 400
	cleaned   = 70
	waiting   = 250
)

// A thing has a finalizer, or a cleanup.
type thing struct {
	number int
	next   *thing
}

// A blocker is finalized first, which takes until the end.
type blocker struct {
	number int
	next   *blocker
}

var (
	never  = make(chan int)
	full   = make(chan int)
	parked sync.WaitGroup
	things []*thing
	clean  []*thing
	armed  []*time.Timer
)

func receive() {
	parked.Done()
	<-never
}

func choose() {
	parked.Done()
	select {
	case <-never:
	case full <- 1:
	}
}

// recurse takes so many frames of stack.
func recurse(frames int) int {
	var page [256]byte
	if frames == 0 {
		parked.Done()
		return <-never
	}
	page[frames%256]++
	return recurse(frames-1) + int(page[0])
}

func finalizers() {
	for i := 0; i < kept; i++ {
		t := &thing{number: i}
		runtime.SetFinalizer(t, func(*thing) {})
		things = append(things, t)
	}
	for i := 0; i < cleaned; i++ {
		clean = append(clean, &thing{number: i})
	}
}

// block has the goroutine that calls finalizers call one that does not return.
func block() {
	entered := make(chan bool)
	drop(func() {
		runtime.SetFinalizer(&blocker{}, func(*blocker) {
			entered <- true
			<-never
		})
	})
	for isEntered := false; !isEntered; {
		runtime.GC()
		select {
		case isEntered = <-entered:
		case <-time.After(10 * time.Millisecond):
		}
	}
	drop(func() {
		for i := 0; i < waiting; i++ {
			runtime.SetFinalizer(&thing{number: i}, func(*thing) {})
		}
	})
	// The second one ends the sweep of what the first has found dead.
	runtime.GC()
	runtime.GC()
}

// drop calls do on a stack that is then gone, so that nothing is found alive there.
func drop(do func()) {
	done := make(chan bool)
	go func() {
		defer close(done)
		do()
	}()
	<-done
}

func main() {
	debug.SetGCPercent(-1)
	parked.Add(receivers + selectors + deep)
	for i := 0; i < receivers; i++ {
		go receive()
	}
	for i := 0; i < selectors; i++ {
		go choose()
	}
	for i := 0; i < deep; i++ {
		go recurse(200)
	}
	parked.Wait()
	finalizers()
	cleaned := cleanups(clean)
	block()
	for i := 0; i < timers; i++ {
		armed = append(armed, time.AfterFunc(time.Hour, func() {}))
	}
	for _, timer := range armed[:stopped] {
		timer.Stop()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Println("ready")
	json.NewEncoder(os.Stdout).Encode(map[string]uint64{
		"goroutines": uint64(runtime.NumGoroutine()),
		"timers":     timers - stopped,
		"finalizers": kept,
		"cleanups":   uint64(cleaned),
		// The one that is being called, too.
		"queued":     waiting + 1,
		"heap_inuse": stats.HeapInuse,
	})
	io.Copy(io.Discard, os.Stdin)
}
