// A map that was full once: all but a few of its keys were deleted before the program says that it
// is ready. Then it makes garbage. Lives until its stdin closes.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

type price struct {
	amount, at uint64
}

var prices = map[uint64]price{}

var page []byte

func main() {
	for i := uint64(0); i < 200_000; i++ {
		prices[i] = price{amount: i}
	}
	for i := uint64(100); i < 200_000; i++ {
		delete(prices, i)
	}
	fmt.Println("ready")
	go func() {
		for range time.Tick(time.Millisecond) {
			page = make([]byte, 12<<10)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}
