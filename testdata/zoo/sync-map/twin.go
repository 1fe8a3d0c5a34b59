// The same with a bound: the oldest result makes room for the newest.
package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A result is what was computed for a key.
type result struct {
	key  int
	text [900]byte
}

var (
	results sync.Map
	asked   int
)

// A lock is held for as long as a request takes.
type lock struct {
	owner int
	since time.Time
}

var (
	locks   sync.Map
	request int
)

func main() {
	go every(1000, remember)
	go every(4000, serve)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func remember() {
	results.Store(asked, compute(asked))
	results.Delete(asked - 1000)
	asked++
}

func compute(key int) *result {
	return &result{key: key}
}

// serve holds a lock until 500 other requests have come.
func serve() {
	locks.Store(request, &lock{owner: request, since: time.Now()})
	locks.Delete(request - 500)
	request++
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
