// Command pacer keeps some 12 MiB alive and, for each line on stdin, allocates 384 MiB that
// are garbage at once, mostly; then it prints "done". It ends when its stdin closes.
package main

import (
	"bufio"
	"fmt"
	"os"
)

type node struct {
	left, right *node
	data        [6]int
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

var (
	trees [32]*node
	sink  []byte
)

func main() {
	for i := range trees {
		trees[i] = tree(12)
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		for i := 0; i < 224; i++ {
			// And half a MiB of what is kept anew.
			trees[i%len(trees)] = tree(12)
			for j := 0; j < 640; j++ {
				sink = make([]byte, 2048)
			}
		}
		fmt.Println("done")
	}
}
