// Allocations whose code is not where it seems: closures, inlining, generics, interfaces,
// deep stacks, goroutines.

package main

import (
	"reflect"
	"unsafe"
)

var (
	sinkFunc func() int
	sinkAny  interface{}
)

//go:noinline
func closure(n int) {
	for i := 0; i < n; i++ {
		a, b := i, n
		sinkFunc = func() int { return a + b } // site:closure
	}
}

// closureByReference moves the captured variable to the heap too.
//
//go:noinline
func closureByReference(n int) {
	for i := 0; i < n; i++ {
		count := scanT24{}                                        // site:captured
		sinkFunc = func() int { count.p = nil; return len(text) } // site:closureByReference
		sink = unsafe.Pointer(&count)
	}
}

func (s *scanT48) method() int { return 48 }

var receiver = &scanT48{}

//go:noinline
func methodValue(n int) {
	for i := 0; i < n; i++ {
		sinkFunc = receiver.method // site:methodValue
	}
}

type leaf struct{ left, right *leaf }

// newLeaf is inlined into its callers.
func newLeaf() *leaf {
	return &leaf{} // site:newLeaf
}

// newTree is inlined into its callers, and newLeaf into it.
func newTree() *leaf {
	return newLeaf() // site:newTree
}

//go:noinline
func inlinedA(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(newLeaf()) // site:inlinedA
	}
}

//go:noinline
func inlinedB(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(newLeaf()) // site:inlinedB
	}
}

//go:noinline
func inlinedTwice(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(newTree()) // site:inlinedTwice
	}
}

// Two types of one shape share the code of a generic function, which takes the type
// from its dictionary.
type (
	pairA struct {
		p, q *byte
		n    int
	}
	pairB struct {
		p, q *byte
		n    int
	}
	pointsA struct{ x, y, z int }
	pointsB struct{ x, y, z int }
)

//go:noinline
func newOf[T any]() *T {
	return new(T) // site:newOf
}

//go:noinline
func genericScan(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(newOf[pairA]())
		sink = unsafe.Pointer(newOf[pairB]())
	}
}

//go:noinline
func genericNoscan(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(newOf[pointsA]())
		sink = unsafe.Pointer(newOf[pointsB]())
	}
}

var structValue scanT160

//go:noinline
func structToInterface(n int) {
	for i := 0; i < n; i++ {
		sinkAny = structValue // site:structToInterface
	}
}

//go:noinline
func intToInterface(n int) {
	for i := 0; i < n; i++ {
		sinkAny = 1000 + i // site:intToInterface
	}
}

//go:noinline
func stringToInterface(n int) {
	for i := 0; i < n; i++ {
		sinkAny = sinkTail // site:stringToInterface
	}
}

var reflected = reflect.TypeOf(scanT64{})

//go:noinline
func byReflection(n int) {
	for i := 0; i < n; i++ {
		sink = reflect.New(reflected).UnsafePointer() // site:byReflection
	}
}

//go:noinline
func deep(n int) {
	for i := 0; i < n; i++ {
		descend(60, deepBottom)
	}
}

// tooDeep has more frames than heaptap keeps.
//
//go:noinline
func tooDeep(n int) {
	for i := 0; i < n; i++ {
		descend(500, tooDeepBottom)
	}
}

//go:noinline
func descend(levels int, bottom func()) {
	if levels > 0 {
		descend(levels-1, bottom)
		return
	}
	bottom()
}

//go:noinline
func deepBottom() {
	sink = unsafe.Pointer(new(scanT32)) // site:deepBottom
}

//go:noinline
func tooDeepBottom() {
	sink = unsafe.Pointer(new(scanT64)) // site:tooDeepBottom
}

//go:noinline
func parallelScan(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT48)) // site:parallelScan
	}
}

//go:noinline
func parallelNoscan(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT96)) // site:parallelNoscan
	}
}

//go:noinline
func parallelTiny(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(int32)) // site:parallelTiny
	}
}
