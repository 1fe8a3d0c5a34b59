package main

import (
	"net"
	"os"
	"reflect"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	never   = make(chan int)
	full    = make(chan int)
	nothing chan int
	mutex   sync.Mutex
	rw      sync.RWMutex
	read    sync.RWMutex
	group   sync.WaitGroup
	once    sync.Once
	cond    = sync.NewCond(&sync.Mutex{})
	closed  = make(chan int)
	started = make(chan bool)
)

// yielding goroutines are runnable whenever nobody else runs.
var yielding int

func yield(n int) {
	var running int32
	park(n, func() {
		atomic.AddInt32(&running, 1)
		for {
			runtime.Gosched()
		}
	})
	for atomic.LoadInt32(&running) < int32(n) {
		runtime.Gosched()
	}
	yielding += n
}

// few parks what costs threads or descriptors.
func few() {
	mutex.Lock()
	rw.Lock()
	read.RLock()
	group.Add(1)
	close(closed)
	park(1, func() { once.Do(func() { <-never }) })
	park(5, readPipe)
	park(5, inSyscall)
	park(3, locked)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	park(2, func() { listener.Accept() })
	// The timer's goroutine.
	spawned++
	time.AfterFunc(time.Nanosecond, waits[int](never).receive)
}

func readPipe() {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer w.Close()
	r.Read(make([]byte, 1))
}

func inSyscall() {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		panic(err)
	}
	syscall.Read(ends[0], make([]byte, 1))
}

func locked() {
	runtime.LockOSThread()
	<-never
}

// many parks what costs nothing: each way once.
func many() {
	park(3, func() { <-never })
	park(2, func() { full <- 1 })
	park(1, func() { <-nothing })
	park(1, func() { nothing <- 1 })
	park(1, func() {
		for range never {
		}
	})
	park(1, func() {
		select {
		case <-never:
		case full <- 1:
		}
	})
	park(1, func() { select {} })
	park(2, func() { time.Sleep(time.Hour) })
	park(1, func() {
		select {
		case <-time.After(time.Hour):
		case <-never:
		}
	})
	park(1, mutex.Lock)
	park(1, func() { mutex.Lock() })
	park(1, rw.Lock)
	park(1, rw.RLock)
	park(1, func() { read.Lock() })
	park(1, group.Wait)
	park(1, func() { once.Do(func() {}) })
	park(1, func() {
		cond.L.Lock()
		cond.Wait()
	})
	shapes()
	spawned += 2
	go sum(1, 2)
	go func(a, b int) { sum(a, b) }(3, 4)
	inlinedGo()
}

// shapes parks behind every kind of frame.
func shapes() {
	park(1, func() { deep(30) })
	park(1, func() { deep(300) })
	park(1, func() { small(never) })
	park(1, func() { outer(never) })
	park(1, func() { generic(never) })
	park(1, func() { generic(make(chan string)) })
	park(1, func() { pair[int, string]{}.block(1) })
	park(1, waits[int](never).receive)
	park(1, wrapped{&inner{}}.block)
	park(1, func() {
		var b blocker = wrapped{&inner{}}
		b.block()
	})
	park(1, func() {
		var b blocker = &promoted{}
		b.block()
	})
	park(1, func() { deferred() })
	park(1, func() { panicking() })
	park(1, func() { faulting(nil) })
	park(1, func() { exiting() })
	park(1, func() { reflect.ValueOf(small).Call([]reflect.Value{reflect.ValueOf(never)}) })
	park(1, func() { made()(never) })
	park(1, func() { reflect.ValueOf(&inner{}).MethodByName("Block").Interface().(func())() })
	park(1, func() { sort.Slice([]int{1, 2, 3}, func(i, j int) bool { <-never; return i < j }) })
	park(1, func() { large() })
	park(1, func() {
		func() {
			func() { <-never }()
		}()
	})
}

func sum(a, b int) { <-never }

// inlinedGo is small enough to be inlined: its go statement then stands in many.
func inlinedGo() { go2() }

func go2() {
	spawned++
	go small(never)
}

//go:noinline
func deep(n int) int {
	if n == 0 {
		return <-never
	}
	return deep(n-1) + 1
}

func small(ch chan int) { <-ch }

func outer(ch chan int) { middle(ch) }

func middle(ch chan int) { small(ch) }

//go:noinline
func generic[T any](ch chan T) T { return <-ch }

type pair[K comparable, V any] struct {
	key   K
	value V
}

//go:noinline
func (p pair[K, V]) block(k K) { <-never }

type waits[T any] chan T

//go:noinline
func (w waits[T]) receive() { <-w }

type blocker interface{ block() }

type inner struct{ n int }

//go:noinline
func (i *inner) block() { <-never }

//go:noinline
func (i *inner) Block() { <-never }

type wrapped struct{ *inner }

type promoted struct {
	n int
	wrapped
}

func deferred() {
	defer func() { <-never }()
	defer small(closed)
}

func panicking() {
	defer func() { <-never }()
	panic("parked")
}

//go:noinline
func faulting(p *int) int {
	defer func() { <-never }()
	return *p
}

func exiting() {
	defer func() { <-never }()
	runtime.Goexit()
}

func made() func(chan int) {
	f := func(args []reflect.Value) []reflect.Value {
		args[0].Recv()
		return nil
	}
	return reflect.MakeFunc(reflect.TypeOf(small), f).Interface().(func(chan int))
}

// large has a frame of many pages.
//
//go:noinline
func large() byte {
	var room [100_000]byte
	fill(room[:])
	return room[<-never]
}

//go:noinline
func fill(room []byte) {
	for i := range room {
		room[i] = byte(i)
	}
}

type finalized struct{ p [4]*int }

// finalizers parks the goroutine that runs them.
func finalizers() {
	runtime.SetFinalizer(&finalized{}, func(*finalized) {
		started <- true
		<-never
	})
	runtime.GC()
	<-started
	spawned++
}
