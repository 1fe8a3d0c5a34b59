// Command marks calls functions known numbers of times, from goroutines of known numbers.
//
// It prints "ready", awaits a line, and then prints one line of JSON: how often each function
// was called and how often it returned, and the numbers of the goroutines that did it. It ends
// when its stdin closes.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

const (
	goroutines = 8
	rounds     = 50
	depth      = 40
)

var sink [64]int

// leaf needs no frame.
//
//go:noinline
func leaf(n int) int {
	return n*3 + 1
}

// outer has inner in it, and takes a while.
//
//go:noinline
func outer(n int) {
	for i := 0; i < 3; i++ {
		inner(n + i)
	}
	time.Sleep(time.Millisecond)
}

//go:noinline
func inner(n int) {
	if n%2 == 0 {
		sink[n%64] = leaf(n)
		return
	}
	for i := range sink {
		sink[i] += leaf(i) // in a loop
	}
}

// recurse makes the stack grow, amid calls that go on.
//
//go:noinline
func recurse(n int) int {
	var pad [1024]byte
	pad[n] = byte(n)
	if n == 0 {
		return int(pad[0])
	}
	return recurse(n-1) + int(pad[n])
}

// raise never returns.
//
//go:noinline
func raise(n int) int {
	if n >= 0 {
		panic(n)
	}
	return leaf(n)
}

// through is unwound.
//
//go:noinline
func through(n int) int {
	return raise(n) + leaf(n)
}

// rescue returns after a panic.
//
//go:noinline
func rescue(n int) (result int) {
	defer func() {
		if recover() != nil {
			result = leaf(n)
		}
	}()
	return through(n) + 1
}

func goid() uint64 {
	buf := make([]byte, 64)
	buf = buf[:runtime.Stack(buf, false)]
	id, err := strconv.ParseUint(string(bytes.Fields(buf)[1]), 10, 64)
	if err != nil {
		panic(err)
	}
	return id
}

// calls that a function gets in all, and of these the ones that return.
type calls struct {
	Count    int `json:"count"`
	Returned int `json:"returned"`
}

func all(count int) calls {
	return calls{count, count}
}

func run() []uint64 {
	ids := make([]uint64, goroutines)
	var wait sync.WaitGroup
	for g := range ids {
		wait.Add(1)
		go func(g int) {
			defer wait.Done()
			ids[g] = goid()
			for i := 0; i < rounds; i++ {
				outer(i)
				rescue(i)
			}
			recurse(depth)
		}(g)
	}
	wait.Wait()
	return ids
}

func main() {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		ids := run()
		each := goroutines * rounds
		json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
			"goroutines": ids,
			"calls": map[string]calls{
				"main.outer":   all(each),
				"main.inner":   all(3 * each),
				"main.recurse": all(goroutines * (depth + 1)),
				"main.rescue":  all(each),
				"main.through": {each, 0},
			},
			"rounds":       rounds,
			"loop_rounds":  each * 3 / 2 * 64,
			"leaf_outside": each,
		})
	}
}
