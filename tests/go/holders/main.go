// Objects whose holders are known: each line tells one's kind, address and size, whether it holds
// pointers, and more of its holder. Lives until its stdin closes.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

type session struct {
	id   int
	body []byte
	rest [4]int
}

type key struct {
	name string
	rest [6]int
}

type registry struct {
	mu       sync.Mutex
	sessions map[string]*session
}

type node struct {
	next *node
	rest [10]int
}

var (
	reg     = &registry{sessions: map[string]*session{}}
	seen    = map[*key]int{}
	heads   [][]byte
	prefix  []string
	jobs    = make(chan *session, 100)
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	emptied = map[int]*session{}
	tenants [100]map[int]int
	list    *node
	escape  *session
	forever chan bool
)

func tell(kind string, p unsafe.Pointer, size uintptr, pointers bool) {
	fmt.Printf("%s\t%#x\t%d\t%t\n", kind, uintptr(p), size, pointers)
}

//go:noinline
func hold(ready chan<- bool) {
	s := &session{id: 1, body: make([]byte, 48)}
	escape = s
	escape = nil
	tell("stack", unsafe.Pointer(s), unsafe.Sizeof(*s), true)
	ready <- true
	<-forever
	runtime.KeepAlive(s)
}

func main() {
	for i := 0; i < 3000; i++ {
		s := &session{id: i, body: make([]byte, 48)}
		reg.sessions[fmt.Sprint("session-", i)] = s
		k := &key{name: "k"}
		seen[k] = i
		emptied[i] = s
		if i%500 == 0 {
			tell("value", unsafe.Pointer(s), unsafe.Sizeof(*s), true)
			tell("body", unsafe.Pointer(&s.body[0]), 48, false)
			tell("key", unsafe.Pointer(k), unsafe.Sizeof(*k), true)
		}
	}
	for i := 0; i < 2990; i++ {
		delete(emptied, i)
	}
	for i := range tenants {
		m := map[int]int{}
		for j := 0; j < 400; j++ {
			m[j] = j
		}
		for j := 0; j < 400; j++ {
			delete(m, j)
		}
		tenants[i] = m
	}
	for i := 0; i < 4; i++ {
		page := make([]byte, 64<<10)
		heads = append(heads, page[1000:1016])
		tell("head", unsafe.Pointer(&page[0]), 64<<10, false)
		text := strings.Repeat("0123456789abcdef", 256)
		prefix = append(prefix, text[:8])
		tell("prefix", *(*unsafe.Pointer)(unsafe.Pointer(&text)), 4096, false)
	}
	for i := 0; i < 90; i++ {
		s := &session{id: i}
		jobs <- s
		if i%30 == 0 {
			tell("job", unsafe.Pointer(s), unsafe.Sizeof(*s), true)
		}
	}
	for i := 0; i < 200; i++ {
		list = &node{next: list}
	}
	tell("node", unsafe.Pointer(list.next.next), unsafe.Sizeof(*list), true)
	ready := make(chan bool)
	go hold(ready)
	<-ready
	runtime.GC()
	b := buffers.Get().(*bytes.Buffer)
	b.Grow(10000)
	tell("pooled", unsafe.Pointer(&b.Bytes()[:1][0]), uintptr(b.Cap()), false)
	buffers.Put(b)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(b)
}
