// A service that reuses requests by way of a sync.Pool, and does not reset them: each time
// the fields of one more request are appended.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A request with its fields.
type request struct {
	fields []field
}

type field struct {
	name, value string
	hash        uint64
}

var requests = sync.Pool{New: func() any { return new(request) }}

// buffers are a pool that is used as it should be.
var buffers = sync.Pool{New: func() any { return new(strings.Builder) }}

func main() {
	for i := 0; i < 64; i++ {
		go every(100, serve)
	}
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func serve() {
	r := requests.Get().(*request)
	r.parse(4)
	time.Sleep(5 * time.Millisecond)
	requests.Put(r)
}

func (r *request) parse(fields int) {
	for i := 0; i < fields; i++ {
		r.fields = append(r.fields, field{name: "accept", value: "text/html", hash: uint64(i)})
	}
}

func answer() {
	b := buffers.Get().(*strings.Builder)
	b.Grow(12 << 10)
	b.WriteString("done")
	b.Reset()
	buffers.Put(b)
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
