// A service with three leaks of different kinds at the same time, a cache that grows for some
// seconds until it is full, and healthy work besides. In bytes per second: receive 2.0 million
// (slice-retention), ask 1.0 million (goroutine), newSession 0.5 million (map-growth).
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	for i := range titles {
		titles[i] = []byte("(none as of now)")
	}
	go every(100, index)
	go every(100, ask)
	go every(500, login)
	go every(1000, show)
	go every(4000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// titles of the latest documents, each of which holds its document.
var titles [1 << 16][]byte

var documents int

func index() {
	titles[documents%len(titles)] = receive()[64:80]
	documents++
}

func receive() []byte {
	return make([]byte, 20<<10)
}

// A reply to a question, which takes too long.
type reply struct {
	body [8000]byte
}

// ask gives up before there is a reply.
func ask() {
	replies := make(chan *reply)
	go query(replies)
	select {
	case <-replies:
	default:
	}
}

func query(replies chan<- *reply) {
	r := new(reply)
	time.Sleep(time.Millisecond)
	replies <- r
}

// A session is what is remembered of a login, for ever.
type session struct {
	user   string
	basket [1000]byte
}

var sessions = map[int]*session{}

func login() {
	sessions[len(sessions)] = newSession("gopher")
}

func newSession(user string) *session {
	return &session{user: user}
}

// An article is rendered when it is shown for the first time.
type article struct {
	number int
	text   [2000]byte
}

const articles = 8000

// cache is full when each article has been shown.
var cache = map[int]*article{}

var shown int

func show() {
	number := shown % articles
	shown++
	if cache[number] == nil {
		cache[number] = render(number)
	}
}

func render(number int) *article {
	return &article{number: number}
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
