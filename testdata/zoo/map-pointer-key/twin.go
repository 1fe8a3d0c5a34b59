// The same with the client's number as the key.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A connection of one of a few thousand clients.
type connection struct {
	client int
	buffer [1000]byte
}

var lastSeen = map[int]time.Time{}

// open holds the connections that are in use.
var open [256]*connection

var accepted int

func main() {
	go every(1000, talk)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func talk() {
	c := accept()
	open[accepted%len(open)] = c
	touch(c)
}

func accept() *connection {
	accepted++
	return &connection{client: accepted % 2000}
}

func touch(c *connection) {
	lastSeen[c.client] = time.Now()
}

// answers of the latest requests, by a pointer too, but deleted again.
var answers = map[*[12 << 10]byte]int{}

var order [64]*[12 << 10]byte

var answered int

func answer() {
	a := new([12 << 10]byte)
	oldest := &order[answered%len(order)]
	delete(answers, *oldest)
	*oldest = a
	answers[a] = answered
	answered++
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
