// Slices, strings, maps and channels.

package main

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

// Lengths the compiler cannot know.
var (
	ten     = 10
	hundred = 100
)

var (
	text  = strings.Repeat("heap", 10)
	bytes = []byte(text)
	runes = []rune(text)
)

var (
	sinkString string
	sinkBytes  []byte
	sinkRunes  []rune
	sinkInts   []int
	sinkPtrs   []*byte
	sinkUnits  []struct{}
	sinkMap    map[int]int
	sinkStrMap map[string]*scanT48
)

//go:noinline
func makeInts(n int) {
	for i := 0; i < n; i++ {
		sinkInts = make([]int, ten) // site:makeInts
	}
}

//go:noinline
func makePointers(n int) {
	for i := 0; i < n; i++ {
		sinkPtrs = make([]*byte, hundred) // site:makePointers
	}
}

//go:noinline
func makeBytesLarge(n int) {
	for i := 0; i < n; i++ {
		sinkBytes = make([]byte, 600*hundred) // site:makeBytesLarge
	}
}

// makeUnits allocates nothing: its slices take no bytes.
//
//go:noinline
func makeUnits(n int) {
	for i := 0; i < n; i++ {
		sinkUnits = make([]struct{}, ten) // site:makeUnits
	}
}

//go:noinline
func makeAndCopy(n int) {
	for i := 0; i < n; i++ {
		b := make([]byte, len(bytes)) // site:makeAndCopy
		copy(b, bytes)
		sinkBytes = b
	}
}

// growPointers appends to a slice on the heap: capacities 1, 2, 4, … and at last 128 or,
// with malloc headers, some more.
//
//go:noinline
func growPointers(n int) {
	for i := 0; i < n; i++ {
		sinkPtrs = nil
		for k := 0; k < 100; k++ {
			sinkPtrs = append(sinkPtrs, nil) // site:growPointers
		}
	}
}

// growLocal may be spared the first arrays by newer compilers, which keep them on the stack.
//
//go:noinline
func growLocal(n int) {
	for i := 0; i < n; i++ {
		var local []int
		for k := 0; k < 100; k++ {
			local = append(local, k)
		}
		sinkInts = local
	}
}

//go:noinline
func concat(n int) {
	for i := 0; i < n; i++ {
		sinkString = text + sinkTail // site:concat
	}
}

var sinkTail = ", stack"

//go:noinline
func bytesToString(n int) {
	for i := 0; i < n; i++ {
		sinkString = string(bytes) // site:bytesToString
	}
}

//go:noinline
func stringToBytes(n int) {
	for i := 0; i < n; i++ {
		sinkBytes = []byte(text) // site:stringToBytes
	}
}

//go:noinline
func stringToRunes(n int) {
	for i := 0; i < n; i++ {
		sinkRunes = []rune(text) // site:stringToRunes
	}
}

//go:noinline
func runesToString(n int) {
	for i := 0; i < n; i++ {
		sinkString = string(runes) // site:runesToString
	}
}

//go:noinline
func itoa(n int) {
	for i := 0; i < n; i++ {
		sinkString = strconv.Itoa(1000000 + i) // site:itoa
	}
}

//go:noinline
func sprintf(n int) {
	for i := 0; i < n; i++ {
		sinkString = fmt.Sprintf("%s number %d", text, i)
	}
}

//go:noinline
func build(n int) {
	for i := 0; i < n; i++ {
		var b strings.Builder
		b.Grow(100)
		b.WriteString(text)
		sinkString = b.String()
	}
}

//go:noinline
func makeMap(n int) {
	for i := 0; i < n; i++ {
		sinkMap = make(map[int]int)
	}
}

//go:noinline
func makeMapHint(n int) {
	for i := 0; i < n; i++ {
		sinkMap = make(map[int]int, hundred)
	}
}

//go:noinline
func growMap(n int) {
	for i := 0; i < n; i++ {
		m := map[int]int{}
		sinkMap = m
		for k := 0; k < 200; k++ {
			m[k] = k
		}
	}
}

//go:noinline
func growStringMap(n int) {
	sinkStrMap = map[string]*scanT48{}
	for i := 0; i < n; i++ {
		sinkStrMap[names[i%len(names)]] = nil
	}
}

var names = strings.Fields(strings.Repeat("a b c d e f g h i j k l m n o p q r s t u v w x y z ", 4))

//go:noinline
func makeChanInts(n int) {
	for i := 0; i < n; i++ {
		c := make(chan int, ten) // site:makeChanInts
		sink = *(*unsafe.Pointer)(unsafe.Pointer(&c))
	}
}

//go:noinline
func makeChanUnbuffered(n int) {
	for i := 0; i < n; i++ {
		c := make(chan struct{}) // site:makeChanUnbuffered
		sink = *(*unsafe.Pointer)(unsafe.Pointer(&c))
	}
}

// makeChanPointers allocates the channel and its buffer apart, since the GC scans the latter.
//
//go:noinline
func makeChanPointers(n int) {
	for i := 0; i < n; i++ {
		c := make(chan *scanT48, ten) // site:makeChanPointers
		sink = *(*unsafe.Pointer)(unsafe.Pointer(&c))
	}
}
