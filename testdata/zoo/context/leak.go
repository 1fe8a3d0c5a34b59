// A service that gives each request a context with a timeout of an hour, as a child of the
// server's own, and cancels none: until the hour is over the parent and a timer hold it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

type request struct {
	id   int
	body [200]byte
}

var server, stop = context.WithCancel(context.Background())

func main() {
	defer stop()
	go every(3000, func() { handle(server) })
	go every(1500, func() { check(server) })
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func handle(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, time.Hour)
	if err := serve(ctx, &request{}); err != nil {
		cancel()
	}
}

// serve does what is asked for; it seldom fails.
func serve(ctx context.Context, r *request) error {
	r.id++
	return ctx.Err()
}

// check has a context of its own, which it cancels.
func check(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, time.Minute)
	defer cancel()
	serve(ctx, &request{})
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
