// A service that asks a backend, but not for longer than it has patience. When the answer
// comes too late nobody receives it, and the goroutine that wants to send it waits for ever.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// An answer of the backend.
type answer struct {
	body [4000]byte
}

func main() {
	go every(200, func() { lookUp(20 * time.Millisecond) })
	go every(3000, func() { lookUp(0) })
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

const patience = 5 * time.Millisecond

// lookUp asks a backend that takes so long.
func lookUp(takes time.Duration) {
	if takes > 0 {
		go ask(takes)
		return
	}
	ask(takes)
}

// ask returns the answer, if there is one in time.
func ask(takes time.Duration) *answer {
	answers := make(chan *answer)
	go query(takes, answers)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case a := <-answers:
		return a
	case <-late.C:
		return nil
	}
}

func query(takes time.Duration, answers chan<- *answer) {
	a := new(answer)
	if takes > 0 {
		time.Sleep(takes)
	}
	answers <- a
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
