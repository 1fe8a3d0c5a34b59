// Command still allocates from many sorts of call sites, and then stands still, so that
// what is read of it from outside can be compared with what it says itself.
//
// It reads commands of one byte from stdin:
//
//	'a' allocates, and drops most of it
//	'g' collects garbage; both answer "done"
//	's' answers with its statistics, as NAME=VALUE on one line
//	'p' writes its heap profile to the file that its first argument names, and answers
//	"done"
//
// The second argument is its MemProfileRate, or none (-).
//
// Between answers it allocates nothing, and nothing starts by itself. It ends when its
// stdin closes.
package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
)

type node struct {
	next *node
	data [5]int
}

type holder[T any] struct{ values []T }

func (h *holder[T]) add(value T) { h.values = append(h.values, value) }

// What the allocations are kept in.
var (
	nodes    *node
	slices   [][]byte
	maps     []map[string]int
	strs     []string
	closures []func() int
	pointers holder[*int]
	buffers  []*bytes.Buffer
	dropped  [64]*node
)

func inlined(n int) []byte { return inlinedToo(n) }

func inlinedToo(n int) []byte { return make([]byte, n) }

//go:noinline
func deep(depth, n int) {
	if depth > 0 {
		deep(depth-1, n)
		return
	}
	slices = append(slices, make([]byte, n))
}

func counter() func() int {
	n := new([3]int)
	return func() int { n[0]++; return n[0] }
}

func (n *node) grow() *node { return &node{next: n} }

func allocate() {
	for i := 0; i < 300; i++ {
		nodes = nodes.grow()
		dropped[i%len(dropped)] = (*node)(nil).grow()
		slices = append(slices, inlined(i*7%3000))
		maps = append(maps, map[string]int{strconv.Itoa(i): i})
		strs = append(strs, strings.Repeat("x", 1+i%50)+strconv.Itoa(i))
		closures = append(closures, counter())
		pointers.add(new(int))
		buffer := new(bytes.Buffer)
		buffer.WriteString(strs[len(strs)-1])
		buffers = append(buffers, buffer)
		deep(i, 100)
	}
	slices = append(slices, make([]byte, 5<<20))
	_ = append([]byte(nil), make([]byte, 3<<20)...)
	slices, maps, strs = slices[len(slices)/2:], maps[len(maps)/2:], nil
	closures = closures[:len(closures)/3]
}

func say(text []byte) {
	syscall.Write(1, append(text, '\n'))
}

// statistics appends what the runtime says of itself.
func statistics(text []byte, m *runtime.MemStats) []byte {
	runtime.ReadMemStats(m)
	threads, _ := runtime.ThreadCreateProfile(nil)
	add := func(name string, value uint64) {
		text = append(append(text, name...), '=')
		text = append(strconv.AppendUint(text, value, 10), ' ')
	}
	add("Alloc", m.Alloc)
	add("TotalAlloc", m.TotalAlloc)
	add("Sys", m.Sys)
	add("Mallocs", m.Mallocs)
	add("Frees", m.Frees)
	add("HeapAlloc", m.HeapAlloc)
	add("HeapSys", m.HeapSys)
	add("HeapIdle", m.HeapIdle)
	add("HeapInuse", m.HeapInuse)
	add("HeapReleased", m.HeapReleased)
	add("HeapObjects", m.HeapObjects)
	add("StackInuse", m.StackInuse)
	add("StackSys", m.StackSys)
	add("MSpanInuse", m.MSpanInuse)
	add("MSpanSys", m.MSpanSys)
	add("MCacheInuse", m.MCacheInuse)
	add("MCacheSys", m.MCacheSys)
	add("BuckHashSys", m.BuckHashSys)
	add("GCSys", m.GCSys)
	add("OtherSys", m.OtherSys)
	add("NextGC", m.NextGC)
	add("LastGC", m.LastGC)
	add("PauseTotalNs", m.PauseTotalNs)
	add("NumGC", uint64(m.NumGC))
	add("NumForcedGC", uint64(m.NumForcedGC))
	add("GCCPUFraction", uint64(m.GCCPUFraction*1e12))
	add("goroutines", uint64(runtime.NumGoroutine()))
	add("threads", uint64(threads))
	add("processors", uint64(runtime.GOMAXPROCS(0)))
	for i := range m.BySize {
		size := &m.BySize[i]
		if i > 0 {
			text = append(text, "size"...)
			text = strconv.AppendUint(text, uint64(size.Size), 10)
			text = append(text, '=')
			text = append(strconv.AppendUint(text, size.Mallocs-size.Frees, 10), ' ')
		}
	}
	return text
}

func writeProfile(path string) {
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	if err := pprof.Lookup("heap").WriteTo(file, 0); err != nil {
		panic(err)
	}
}

func main() {
	if rate, err := strconv.Atoi(os.Args[2]); err == nil {
		runtime.MemProfileRate = rate
	}
	debug.SetGCPercent(-1)
	stop := make(chan bool)
	for i := 0; i < 20; i++ {
		go func() { <-stop }()
	}
	var stats runtime.MemStats
	answer := make([]byte, 0, 8<<10)
	command := make([]byte, 1)
	for {
		if n, _ := syscall.Read(0, command); n != 1 {
			return
		}
		switch command[0] {
		case 'a':
			allocate()
			say(append(answer, "done"...))
		case 'g':
			runtime.GC()
			say(append(answer, "done"...))
		case 's':
			say(statistics(answer, &stats))
		case 'p':
			writeProfile(os.Args[1])
			say(append(answer, "done"...))
		}
	}
}
