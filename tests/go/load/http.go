package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// A handler calls some this often: a few thousand objects.
const callsPerRequest = 500

// Requests a second: so few that none waits for another.
const requestRate = 200

// serveHTTP starts a server and a client that asks it at a steady rate; the result tells
// the 99th percentile of the latencies since it was last asked, in nanoseconds.
func serveHTTP() func() int64 {
	k := new(kept)
	var one sync.Mutex
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		for i := 0; i < callsPerRequest; i++ {
			some(k)
		}
		one.Unlock()
		fmt.Fprintln(w, "done")
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, handler)
	var mu sync.Mutex
	var latencies []time.Duration
	go func() {
		url := "http://" + listener.Addr().String()
		for range time.Tick(time.Second / requestRate) {
			begin := time.Now()
			answer, err := http.Get(url)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			took := time.Since(begin)
			mu.Lock()
			latencies = append(latencies, took)
			mu.Unlock()
			atomic.AddInt64(&done[0].ops, callsPerRequest)
		}
	}()
	return func() int64 {
		mu.Lock()
		defer mu.Unlock()
		sorted := latencies
		latencies = nil
		if len(sorted) == 0 {
			return 0
		}
		sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
		return int64(sorted[(len(sorted)-1)*99/100])
	}
}
