// Command leakyhttp is the demonstration's target: a small HTTP service that leaks in
// three ways, next to healthy work that allocates a lot and keeps nothing.
//
// It prints "listening on ADDRESS" and ends at the line "quit" or when its stdin closes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

func main() {
	http.HandleFunc("/search", search)
	http.HandleFunc("/login", login)
	http.HandleFunc("/upload", upload)
	http.HandleFunc("/subscribe", subscribe)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "leakyhttp:", err)
		os.Exit(1)
	}
	go http.Serve(listener, nil)
	fmt.Println("listening on", listener.Addr())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() && in.Text() != "quit" {
	}
}

// A result is garbage as soon as its response is written.
type result struct {
	Title string   `json:"title"`
	Score float64  `json:"score"`
	Tags  []string `json:"tags"`
}

// search is healthy: it allocates much and keeps nothing.
func search(w http.ResponseWriter, r *http.Request) {
	results := findResults(r.URL.Query().Get("q"))
	json.NewEncoder(w).Encode(results)
}

func findResults(query string) []*result {
	var results []*result
	for i := 0; i < 20; i++ {
		results = append(results, &result{
			Title: fmt.Sprintf("%s, part %d", query, i),
			Score: 1 / float64(i+1),
			Tags:  strings.Split("go,heap,leak", ","),
		})
	}
	return results
}

// A session is what login remembers of a user.
type session struct {
	user    string
	started time.Time
	scratch [256]byte
}

// sessions leaks: nothing ever deletes from it.
var sessions = struct {
	sync.Mutex
	byToken map[string]*session
}{byToken: map[string]*session{}}

func login(w http.ResponseWriter, r *http.Request) {
	s := newSession(r.URL.Query().Get("user"))
	sessions.Lock()
	defer sessions.Unlock()
	token := fmt.Sprintf("%08x", len(sessions.byToken))
	sessions.byToken[token] = s
	fmt.Fprintln(w, token)
}

func newSession(user string) *session {
	return &session{user: user, started: time.Now()}
}

// headers leaks: each few bytes kept hold the whole upload they were cut from.
var headers = struct {
	sync.Mutex
	all [][]byte
}{}

func upload(w http.ResponseWriter, r *http.Request) {
	body := readUpload()
	headers.Lock()
	defer headers.Unlock()
	headers.all = append(headers.all, body[:16])
	fmt.Fprintln(w, len(headers.all))
}

func readUpload() []byte {
	return make([]byte, 32<<10)
}

// An event is what a subscriber waits for.
type event struct {
	topic string
	data  [64]byte
}

// subscribe leaks a goroutine per request: nobody ever sends to its channel.
func subscribe(w http.ResponseWriter, r *http.Request) {
	events := make(chan *event, 16)
	go deliver(events)
	fmt.Fprintln(w, "subscribed")
}

func deliver(events chan *event) {
	for e := range events {
		_ = e.topic
	}
}
