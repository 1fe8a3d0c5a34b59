// A service that remembers each login in a map, and never forgets one.
package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A session is what is remembered of a login.
type session struct {
	user    string
	started time.Time
	basket  [900]byte
}

var sessions = struct {
	sync.Mutex
	byToken map[int]*session
	next    int
}{byToken: map[int]*session{}}

// A request is forgotten as soon as it is answered.
type request struct {
	path string
	body [3 << 10]byte
}

var pending = struct {
	sync.Mutex
	byID map[int]*request
	next int
}{byID: map[int]*request{}}

func main() {
	go every(1000, login)
	go every(4000, serve)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func login() {
	s := newSession(fmt.Sprintf("user %d", sessions.next))
	sessions.Lock()
	defer sessions.Unlock()
	sessions.byToken[sessions.next] = s
	sessions.next++
}

func newSession(user string) *session {
	return &session{user: user, started: time.Now()}
}

// serve keeps each request in a map until 500 others have come.
func serve() {
	pending.Lock()
	defer pending.Unlock()
	pending.byID[pending.next] = &request{path: "/search"}
	delete(pending.byID, pending.next-500)
	pending.next++
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
