// Command service is a small HTTP service for session files: healthy, or with -leak one that
// keeps a part of what each request brought. It has steady work of its own, so that its
// garbage is collected all the time.
//
// It prints "listening on URL", then "ready", and ends when its stdin closes, or at SIGTERM.
// With -load URL it is the client instead: it makes -n requests and ends.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

var (
	leak = flag.Bool("leak", false, "keep what requests bring")
	load = flag.String("load", "", "make requests of this service")
	n    = flag.Int("n", 100, "how many requests to make")
	rest = flag.Duration("rest", 0, "how long to rest after each")
)

func main() {
	flag.Parse()
	if *load != "" {
		makeRequests()
		return
	}
	http.HandleFunc("/", work)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
	go http.Serve(listener, nil)
	go breathe()
	fmt.Printf("listening on http://%s/\n", listener.Addr())
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func makeRequests() {
	for i := 0; i < *n; i++ {
		response, err := http.Get(*load)
		if err != nil {
			fmt.Fprintln(os.Stderr, "service:", err)
			os.Exit(1)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		time.Sleep(*rest)
	}
	fmt.Println(*n, "requests")
}

var sink []byte

// breathe makes garbage, some 25 MiB a second.
func breathe() {
	for range time.Tick(5 * time.Millisecond) {
		sink = make([]byte, 128<<10)
	}
}

var kept struct {
	sync.Mutex
	sessions [][]byte
}

// work leaks 64 KiB a request, if it is to.
func work(w http.ResponseWriter, r *http.Request) {
	session := newSession()
	if *leak {
		kept.Lock()
		defer kept.Unlock()
		kept.sessions = append(kept.sessions, session)
	}
	fmt.Fprintln(w, len(session))
}

//go:noinline
func newSession() []byte {
	session := make([]byte, 64<<10)
	for i := range session {
		session[i] = 1 // Resident, too.
	}
	return session
}
