// A service that appends to a log of each tenant, in memory, and never empties one.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"time"
)

// A record of what a tenant did.
type record struct {
	at, what uint64
	path     [48]byte
}

var logs [64][]record

func main() {
	go every(16000, audit)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

var audited uint64

func audit() {
	log := &logs[tenant()]
	audited++
	*log = append(*log, record{at: audited})
}

// tenant is one of them; some do more than others.
func tenant() int {
	a, b := rand.Intn(len(logs)), rand.Intn(len(logs))
	if a < b {
		return b
	}
	return a
}

// flush writes a log to where it is kept.
func flush(log []record) {
	binary.Write(io.Discard, binary.LittleEndian, log)
}

var page []byte

// answer appends too, to what dies at once.
func answer() {
	var text []byte
	for len(text) < 3<<10 {
		text = append(text, "a line of the answer\n"...)
	}
	page = text
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
