// The same with a shipper that goes on with the next event.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// An event to be shipped.
type event struct {
	number  int
	payload [1000]byte
}

var events = make(chan *event, 1<<18)

// lines is a channel of healthy use.
var lines = make(chan *[3 << 10]byte, 256)

func main() {
	go ship()
	go print()
	go every(1000, publish)
	go every(4000, log)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

var published int

// publish drops an event when the channel is full.
func publish() {
	e := &event{number: published}
	published++
	select {
	case events <- e:
	default:
	}
}

func ship() {
	for e := range events {
		if err := send(e); err != nil {
			continue
		}
	}
}

var errRefused = errors.New("refused")

// send fails now and then.
func send(e *event) error {
	if e.number%100 == 50 {
		return errRefused
	}
	return nil
}

func log() {
	lines <- new([3 << 10]byte)
}

var printed byte

func print() {
	for line := range lines {
		printed += line[0]
	}
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
