// The same with a limit that leaves room.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"
)

// An entry of a table that is kept.
type entry struct {
	next *entry
	data [112]byte
}

var table [1 << 10]*entry

func main() {
	debug.SetMemoryLimit(200 << 20)
	fill(24 << 20)
	go every(2000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func fill(bytes int) {
	for i := 0; i < bytes/128; i++ {
		head := &table[i%len(table)]
		*head = &entry{next: *head}
	}
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
