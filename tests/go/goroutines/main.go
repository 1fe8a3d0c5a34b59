// Command goroutines parks some thousand goroutines in every way there is, writes its own
// goroutine dump to a file, and stands still.
//
// goroutines FILE COUNT: parks about COUNT goroutines, writes runtime.Stack of all to FILE and
// says "ready". From then on nothing moves: the main goroutine keeps the only P, inside a
// system call that the scheduler does not know of, until stdin closes.
package main

import (
	"bytes"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// spawned counts the goroutines that park() started; each parks at once.
var spawned int

// park starts n goroutines that run f.
func park(n int, f func()) {
	for i := 0; i < n; i++ {
		spawned++
		go f()
	}
}

// stacks is what /debug/pprof/goroutine?debug=2 returns.
func stacks() []byte {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return buf[:n]
		}
	}
}

// settled returns a dump in which all goroutines but the yielding ones are at rest: they
// wait, or are in a system call.
func settled() []byte {
	for {
		dump := stacks()
		runnable := bytes.Count(dump, []byte(" [runnable]"))
		running := bytes.Count(dump, []byte(" [running"))
		if runnable == yielding && running == 1 && runtime.NumGoroutine() > spawned {
			return dump
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// rawly makes a system call without a word to the scheduler: the P is kept.
func rawly(number, fd uintptr, buf []byte) int {
	n, _, errno := syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	switch errno {
	case 0:
		return int(n)
	case syscall.EINTR:
		return -1
	}
	os.Exit(3)
	return 0
}

func main() {
	runtime.GOMAXPROCS(1)
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	fd, err := syscall.Open(os.Args[1], syscall.O_CREAT|syscall.O_TRUNC|syscall.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1)
	few()
	cgo()
	coroutines()
	finalizers()
	for spawned < count {
		many()
	}
	settled()
	// The collector notes in each goroutine when it found it blocked.
	runtime.GC()
	debug.SetGCPercent(-1)
	yield(20)
	ready := []byte("ready\n")
	dump := settled()
	for left := dump; len(left) > 0; {
		if n := rawly(syscall.SYS_WRITE, uintptr(fd), left); n > 0 {
			left = left[n:]
		}
	}
	rawly(syscall.SYS_WRITE, 1, ready)
	input := make([]byte, 1)
	for rawly(syscall.SYS_READ, 0, input) != 0 {
	}
}
