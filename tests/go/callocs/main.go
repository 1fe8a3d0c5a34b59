// Command callocs allocates by C's allocator in every way there is, and frees some of it.
//
// It prints "ready", and at a line on stdin does all of it and prints what that was: a line of
// JSON with objects and bytes, allocated and still alive, by the function of Go or C that they
// are to be found under. It ends when its stdin closes.
package main

/*
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *plain(size_t n) { return malloc(n); }
static void *zeroed(size_t n, size_t size) { return calloc(n, size); }
static void *resized(void *p, size_t n) { return realloc(p, n); }
static void *stored(size_t n) { void *p = 0; return posix_memalign(&p, 64, n) ? 0 : p; }
static void *aligned(size_t n) { return aligned_alloc(64, n); }
static void *paged(size_t n) { return memalign(4096, n); }
static char *copied(const char *s) { return strdup(s); }

// A thread that Go knows nothing of; what it allocates it does not free.
void *volatile kept[100];
__attribute__((noinline)) void *on_thread(void *unused) {
	for (int i = 0; i < 100; i++) kept[i] = malloc(48);
	return unused;
}
static void thread(void) {
	pthread_t t;
	pthread_create(&t, 0, on_thread, 0);
	pthread_join(t, 0);
}
*/
import "C"

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"
)

// Sums is what the functions say they did.
type Sums struct {
	Objects     int `json:"objects"`
	Bytes       int `json:"bytes"`
	LiveObjects int `json:"live_objects"`
	LiveBytes   int `json:"live_bytes"`
}

func (s *Sums) made(bytes int) {
	s.Objects++
	s.LiveObjects++
	s.Bytes += bytes
	s.LiveBytes += bytes
}

func (s *Sums) freed(p unsafe.Pointer, bytes int) {
	C.free(p)
	s.gone(bytes)
}

func (s *Sums) gone(bytes int) {
	s.LiveObjects--
	s.LiveBytes -= bytes
}

//go:noinline
func strs() (s Sums) {
	for i := 0; i < 100; i++ {
		p := C.CString(strings.Repeat("x", 1000))
		s.made(1001)
		if i%5 < 2 {
			s.freed(unsafe.Pointer(p), 1001)
		}
	}
	return s
}

//go:noinline
func plain() (s Sums) {
	for size := 0; size < 300_000; size += 1000 {
		p := C.plain(C.size_t(size))
		s.made(size)
		if size%3 == 0 {
			s.freed(p, size)
		}
	}
	return s
}

//go:noinline
func zeroed() (s Sums) {
	// Beyond 128 KiB calloc has the kernel's zeroes, below it writes them.
	for i := 1; i <= 60; i++ {
		p := C.zeroed(C.size_t(i), 5000)
		s.made(i * 5000)
		if i%2 == 0 {
			s.freed(p, i*5000)
		}
	}
	return s
}

//go:noinline
func resized() (s Sums) {
	for i := 0; i < 50; i++ {
		p, old := C.resized(nil, 100), 100
		s.made(old)
		for size := 1000; size <= 1_000_000; size *= 10 {
			p = C.resized(p, C.size_t(size))
			s.made(size)
			s.gone(old)
			old = size
		}
		// More than there is: what was there stays.
		if C.resized(p, C.SIZE_MAX/2-4096) != nil {
			panic("so much memory")
		}
		if i%2 == 0 {
			s.freed(p, old)
		}
	}
	return s
}

//go:noinline
func alignedAll() (s Sums) {
	for i := 0; i < 40; i++ {
		p, q, r := C.stored(500), C.aligned(640), C.paged(5000)
		s.made(500)
		s.made(640)
		s.made(5000)
		if i%4 == 0 {
			s.freed(p, 500)
			s.freed(q, 640)
			s.freed(r, 5000)
		}
	}
	return s
}

//go:noinline
func copied() (s Sums) {
	text := C.CString("to be copied")
	s.made(13)
	for i := 0; i < 30; i++ {
		p := C.copied(text)
		s.made(13)
		if i%3 == 0 {
			s.freed(unsafe.Pointer(p), 13)
		}
	}
	return s
}

//go:noinline
func parallel() (s Sums) {
	const each, workers = 500, 8
	made := make(chan unsafe.Pointer, each)
	var wait sync.WaitGroup
	for w := 0; w < workers; w++ {
		wait.Add(1)
		go func() {
			worker(each, made)
			wait.Done()
		}()
	}
	go func() {
		wait.Wait()
		close(made)
	}()
	for p := range made {
		s.made(64)
		if s.Objects%10 != 0 {
			s.freed(p, 64)
		}
	}
	return s
}

//go:noinline
func worker(n int, made chan unsafe.Pointer) {
	for i := 0; i < n; i++ {
		made <- C.plain(64)
	}
}

func main() {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		all := map[string]Sums{
			"main.strs":       strs(),
			"main.plain":      plain(),
			"main.zeroed":     zeroed(),
			"main.resized":    resized(),
			"main.alignedAll": alignedAll(),
			"main.copied":     copied(),
			"main.worker":     parallel(),
		}
		C.thread()
		all["on_thread"] = Sums{100, 4800, 100, 4800}
		line, _ := json.Marshal(all)
		fmt.Println(string(line))
	}
}
