// Command types says what reflect knows of many types, and where their descriptors lie.
//
// It prints a line "ADDRESS\tSIZE\tKIND\tPACKAGE\tNAME" for each, then "ready", and ends
// when its stdin closes.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"reflect"
	"text/template"
	"unsafe"
)

type node struct{ next *node }

type (
	pair[A, B any] struct {
		a A
		b B
	}
	byName   map[string]*node
	alphabet [26]rune
	names    []string
	events   chan struct{ at int64 }
	visit    func(*node, ...any) error
	visitor  interface{ visit(*node) error }
	handle   uintptr
	pointer  unsafe.Pointer
)

// roots are types of each kind, named and unnamed; what they are made of comes with them.
var roots = []any{
	node{}, &node{}, pair[int, string]{}, pair[[]node, pair[int8, *byName]]{}, byName{}, alphabet{},
	names{}, make(events), visit(nil), (*visitor)(nil), handle(0), pointer(nil),
	map[[2]string]struct{}{}, []map[string][]any{}, func(chan<- int, <-chan error) {}, complex64(0),
	complex128(0), float32(0), uint16(0), true, struct {
		node
		N int `json:"n"`
	}{}, &bufio.Reader{}, &template.Template{}, os.Stdin,
}

var seen = map[reflect.Type]bool{}

// visitType prints a type and all it is made of.
func visitType(t reflect.Type) {
	if seen[t] {
		return
	}
	seen[t] = true
	// A reflect.Type is an interface around the pointer to the descriptor.
	address := (*[2]uintptr)(unsafe.Pointer(&t))[1]
	fmt.Printf("%#x\t%d\t%s\t%s\t%s\n", address, t.Size(), t.Kind(), t.PkgPath(), t)
	switch t.Kind() {
	case reflect.Map:
		visitType(t.Key())
		visitType(t.Elem())
	case reflect.Array, reflect.Chan, reflect.Ptr, reflect.Slice:
		visitType(t.Elem())
	case reflect.Struct:
		for i := 0; i < t.NumField(); i++ {
			visitType(t.Field(i).Type)
		}
	case reflect.Func:
		for i := 0; i < t.NumIn(); i++ {
			visitType(t.In(i))
		}
		for i := 0; i < t.NumOut(); i++ {
			visitType(t.Out(i))
		}
	}
}

func main() {
	for _, root := range roots {
		visitType(reflect.TypeOf(root))
	}
	// Neither of these has a descriptor in the program.
	created := reflect.StructOf([]reflect.StructField{{Name: "X", Type: reflect.TypeOf(node{})}})
	visitType(created)
	visitType(reflect.ArrayOf(77, reflect.TypeOf(node{})))
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}
