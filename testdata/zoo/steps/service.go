// A service without a leak, whose load goes up and down in steps, and with it what it has in
// memory: requests under way, and sessions that end two seconds after they began.
//
// Its argument is how long a step lasts, as 60s.
package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// levels of the load, in requests per second, one after the other.
var levels = [...]int64{200, 800, 400, 1600, 200, 1200, 400, 1600, 800, 200}

var load atomic.Int64

func main() {
	length := time.Minute
	if len(os.Args) > 1 {
		var err error
		if length, err = time.ParseDuration(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "steps:", err)
			os.Exit(2)
		}
	}
	load.Store(levels[0])
	go step(length)
	go arrive()
	go expire()
	go answer()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func step(length time.Duration) {
	level := 0
	for range time.Tick(length) {
		level = (level + 1) % len(levels)
		load.Store(levels[level])
	}
}

// arrive has as many requests come as the load says.
func arrive() {
	for range time.Tick(10 * time.Millisecond) {
		for i := int64(0); i < load.Load()/100; i++ {
			go serve()
			login()
		}
	}
}

// serve takes half a second, and 8 KiB.
func serve() {
	body := read()
	time.Sleep(500 * time.Millisecond)
	respond(body)
}

func read() []byte {
	return make([]byte, 8<<10)
}

var responses atomic.Int64

func respond(body []byte) {
	responses.Add(int64(body[0]) + 1)
}

// A session ends by itself.
type session struct {
	ends time.Time
	data [1000]byte
}

var sessions struct {
	sync.Mutex
	all map[int]*session
	// Of the next session, and of the oldest.
	next, oldest int
}

func login() {
	sessions.Lock()
	defer sessions.Unlock()
	if sessions.all == nil {
		sessions.all = map[int]*session{}
	}
	sessions.all[sessions.next] = &session{ends: time.Now().Add(2 * time.Second)}
	sessions.next++
}

func expire() {
	for now := range time.Tick(100 * time.Millisecond) {
		sessions.Lock()
		for s := sessions.all[sessions.oldest]; s != nil && s.ends.Before(now); s = sessions.all[sessions.oldest] {
			delete(sessions.all, sessions.oldest)
			sessions.oldest++
		}
		sessions.Unlock()
	}
}

var page []byte

// answer makes garbage, some 12 MiB a second.
func answer() {
	for range time.Tick(time.Millisecond) {
		page = make([]byte, 12<<10)
	}
}
