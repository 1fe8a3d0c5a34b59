// Command calls has one function for each way Go code comes to allocate: what their
// machine code passes on is compared with what they say here. It is not run.
package main

import "reflect"

type pair struct{ a, b *int }

type triple struct{ a, b, c *int }

type words struct{ a, b, c uint64 }

type big struct {
	p    *int
	rest [20]uint64
}

var (
	sinkAny   any
	sinkP     *pair
	sinkT     *triple
	sinkW     *words
	sinkB     *big
	sinkTs    []triple
	sinkWs    []words
	sinkS     string
	sinkF     func() int
	sinkM     map[string]words
	sinkC     chan triple
	sinkBytes []byte
	length    = 10
)

//go:noinline
func pointers2() { sinkP = &pair{} }

//go:noinline
func pointers3() { sinkT = new(triple) }

//go:noinline
func noscan3() { sinkW = &words{1, 2, 3} }

//go:noinline
func over80() { sinkB = new(big) }

//go:noinline
func slice() { sinkTs = make([]triple, length) }

//go:noinline
func constSlice() { sinkWs = make([]words, 3) }

//go:noinline
func grow() { sinkTs = append(sinkTs, triple{}) }

//go:noinline
func growBytes() { sinkBytes = append(sinkBytes, 1) }

//go:noinline
func concat() { sinkS = sinkS + "x" + sinkS }

//go:noinline
func fromBytes() { sinkS = string(sinkBytes) }

//go:noinline
func closure(n int) { sinkF = func() int { n++; return n } }

//go:noinline
func boxed() { sinkAny = *sinkW }

//go:noinline
func boxedInt() { sinkAny = length }

//go:noinline
func mapped() { sinkM = make(map[string]words, 100) }

//go:noinline
func channel() { sinkC = make(chan triple, 4) }

//go:noinline
func reflected() { sinkAny = reflect.New(reflect.TypeOf(words{})) }

// The type that two branches agree on, and one they do not.
//
//go:noinline
func either(yes bool) {
	if yes {
		sinkAny = new(words)
	} else {
		sinkAny = new([3]uint64)
	}
}

func inlined() *triple { return &triple{} }

//go:noinline
func inlines() { sinkT = inlined() }

//go:noinline
func newOf[T any]() *T { return new(T) }

//go:noinline
func sliceOf[T any](n int) []T { return make([]T, n) }

//go:noinline
func sliceVia[T any](n int) []T { return sliceOf[T](n) }

//go:noinline
func makerOf[T any]() func() *T { return func() *T { return new(T) } }

//go:noinline
func genericNew() { sinkT = newOf[triple]() }

//go:noinline
func genericNewBig() { sinkB = newOf[big]() }

//go:noinline
func genericSlice() { sinkWs = sliceOf[words](length) }

//go:noinline
func genericVia() { sinkWs = sliceVia[words](length) }

//go:noinline
func genericClosure() { sinkT = makerOf[triple]()() }

func main() {
	for _, f := range []func(){
		pointers2, pointers3, noscan3, over80, slice, constSlice, grow, growBytes, concat, fromBytes,
		func() { closure(length) }, boxed, boxedInt, mapped, channel, reflected,
		func() { either(length > 1) }, inlines, genericNew, genericNewBig, genericSlice, genericVia,
		genericClosure,
	} {
		f()
	}
}
