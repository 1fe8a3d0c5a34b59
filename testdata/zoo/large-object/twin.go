// The same with a buffer that is used again.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// thumbnails of the latest pictures.
var thumbnails [256][]byte

var painted int

func main() {
	canvas := newCanvas()
	go every(200, func() { paint(canvas) })
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func newCanvas() []byte {
	return make([]byte, 256<<10)
}

// paint fills the canvas and keeps a small copy.
func paint(canvas []byte) {
	for i := range canvas {
		canvas[i] = byte(i)
	}
	thumbnail := make([]byte, 4<<10)
	copy(thumbnail, canvas)
	thumbnails[painted%len(thumbnails)] = thumbnail
	painted++
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
