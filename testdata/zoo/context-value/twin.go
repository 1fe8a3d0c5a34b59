// The same with a context for each message, which dies with it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

type key int

const traceKey key = 1

// A trace tells how a message went.
type trace struct {
	number int
	spans  [1000]byte
}

// A session has many messages.
type session struct {
	ctx context.Context
}

var sessions [16]session

func main() {
	for i := range sessions {
		sessions[i].ctx = context.WithValue(context.Background(), key(0), i)
	}
	go every(1000, receive)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

var received int

func receive() {
	s := &sessions[received%len(sessions)]
	received++
	s.handle(&trace{number: received})
}

func (s *session) handle(t *trace) {
	ctx := context.WithValue(s.ctx, traceKey, t)
	reply(ctx)
}

func reply(ctx context.Context) int {
	return ctx.Value(traceKey).(*trace).number
}

// answer has values on a context that ends with the request.
func answer() {
	ctx := context.WithValue(context.Background(), traceKey, &trace{})
	page = make([]byte, 12<<10+reply(ctx))
}

var page []byte

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
