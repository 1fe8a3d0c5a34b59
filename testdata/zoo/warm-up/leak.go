// A service that fills a cache when it starts, for some seconds: it grows, and then no more.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// An article as it is shown.
type article struct {
	number int
	text   [2000]byte
}

const articles = 12000

var cache [articles]*article

func main() {
	go warm()
	go every(2000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// warm renders all articles.
func warm() {
	for number := range cache {
		cache[number] = render(number)
		if number%10 == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func render(number int) *article {
	return &article{number: number}
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
