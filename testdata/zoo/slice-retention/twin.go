// The same with each title copied to where the one before it was: a document's buffer dies with
// its request.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
)

// titles of the latest documents, the oldest of which is replaced.
var titles [1 << 16][]byte

var documents int

// previews of the latest few documents: these may keep their buffers.
var previews [64][]byte

func main() {
	for i := range titles {
		titles[i] = bytes.Clone([]byte("(none as of now)"))
	}
	go every(100, index)
	go every(1000, preview)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// index keeps the title of a document.
func index() {
	document := receive()
	slot := &titles[documents%len(titles)]
	*slot = append((*slot)[:0], document[64:80]...)
	documents++
}

// receive reads a document from somebody.
func receive() []byte {
	document := make([]byte, 16<<10)
	copy(document[64:], fmt.Sprintf("document %7d", documents))
	return document
}

var shown int

// preview keeps the beginning of a document until 64 others have been shown.
func preview() {
	document := make([]byte, 16<<10)
	previews[shown%len(previews)] = document[:512]
	shown++
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
