// Command symbols has code of every shape that symbolising can go wrong on: inlined
// calls, generics, closures, methods and their generated wrappers, deferred calls.
//
// With the argument "frames" it reads program counters from its standard input, one
// hexadecimal number a line, and prints what the runtime says of each.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
)

type number interface{ ~int | ~float64 }

type pair[K comparable, V any] struct {
	key   K
	value V
}

type table[K comparable, V any] struct{ rows []pair[K, V] }

func (t *table[K, V]) put(k K, v V) *pair[K, V] {
	t.rows = append(t.rows, pair[K, V]{k, v})
	return &t.rows[len(t.rows)-1]
}

func sum[T number](xs ...T) (total T) {
	for _, x := range xs {
		total += add(total, x)
	}
	return total
}

func add[T number](a, b T) T { return a + b }

type shape interface{ area() float64 }
type square struct{ side float64 }

func (s square) area() float64 { return mul(s.side, s.side) }

type named struct {
	square
	name *string
}

func mul(a, b float64) float64 { return a * b }

func newNamed(side float64, name string) *named { return wrap(square{side}, name) }

func wrap(s square, name string) *named {
	n := &named{square: s}
	n.name = clone(name)
	return n
}

func clone(s string) *string {
	c := strings.Clone(s)
	return &c
}

//go:noinline
func visit(n int, f func(int) int) (out []int) {
	defer func() {
		if r := recover(); r != nil {
			out = append(out, -1)
		}
	}()
	for i := 0; i < n; i++ {
		out = append(out, f(i))
	}
	return
}

func check(n int) error {
	if n > 3 {
		return fmt.Errorf("n is %d: %w", n, errTooBig)
	}
	return nil
}

var errTooBig = errors.New("too big")

// printFrames prints function, file and line of the innermost frame at each counter.
func printFrames() {
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		var pc uintptr
		fmt.Sscanf(in.Text(), "%x", &pc)
		// A return address: CallersFrames looks up the byte before it.
		frame, _ := runtime.CallersFrames([]uintptr{pc + 1}).Next()
		fmt.Fprintf(out, "%s\t%s\t%d\n", frame.Function, frame.File, frame.Line)
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "frames" {
		printFrames()
		return
	}
	t := &table[string, int]{}
	t.put("a", len(os.Args))
	u := &table[int, *named]{}
	u.put(1, newNamed(float64(len(os.Args)), "one"))
	base := sum(1, 2, len(os.Args))
	xs := visit(5, func(i int) int {
		inner := func() int { return base / (3 - i) }
		return inner() + sum(i, i)
	})
	sort.Slice(xs, func(i, j int) bool { return xs[i] < xs[j] })
	var s shape = u.rows[0].value
	m := map[string]shape{"x": s}
	ch := make(chan shape, len(m))
	go func() { ch <- m["x"] }()
	fmt.Println(xs, (<-ch).area(), sum(1.5, 2.5), check(base), t.rows)
}
