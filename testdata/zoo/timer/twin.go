// The same with the timer stopped when the lease is given back.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A lease of something, for an hour at most.
type lease struct {
	holder int
	expiry *time.Timer
	notes  [800]byte
}

var expired int

func main() {
	go every(1000, func() { giveBack(grant()) })
	go every(1000, renew)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func grant() *lease {
	l := new(lease)
	l.expiry = time.AfterFunc(time.Hour, func() { expired += l.holder })
	return l
}

func giveBack(l *lease) {
	l.holder = 0
	l.expiry.Stop()
}

// renew uses a timer as it should.
func renew() {
	l := new(lease)
	l.expiry = time.AfterFunc(time.Minute, func() { expired += l.holder })
	defer l.expiry.Stop()
	l.holder = 0
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
