// Command mixed allocates at places of known shares, steadily, in turns and in phases, and
// knows exactly how much at each.
//
// It prints "ready". At the line "go" it starts to allocate, at "stop" it stops and prints
// a line of JSON: what each place has made since the start of the program, {"place":
// {"objects": 1, "bytes": 48}}. It ends when its stdin closes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// amount is what one place has made, on a cache line of its own.
type amount struct {
	Objects uint64 `json:"objects"`
	Bytes   uint64 `json:"bytes"`
	_       [48]byte
}

func (a *amount) add(bytes uint64) {
	a.Objects++
	a.Bytes += bytes
}

// sink keeps the latest object of each place alive.
var sink [16]unsafe.Pointer

type node48 struct {
	p *byte
	_ [40]byte
}

type node256 struct {
	p *byte
	_ [248]byte
}

//go:noinline
func steady48() { sink[0] = unsafe.Pointer(&node48{}) }

//go:noinline
func steady256() { sink[1] = unsafe.Pointer(&node256{}) }

//go:noinline
func steady1024() { sink[2] = unsafe.Pointer(new([128]uint64)) }

//go:noinline
func steady8192() { sink[3] = unsafe.Pointer(new([1024]uint64)) }

//go:noinline
func rare96() { sink[4] = unsafe.Pointer(new([12]uint64)) }

// The two of each pair allocate in the same size class, where only their time or turn
// tells them apart.
//
//go:noinline
func evenTurn() { sink[5] = unsafe.Pointer(new([8]uint64)) }

//go:noinline
func oddTurn() { sink[6] = unsafe.Pointer(new([8]uint64)) }

//go:noinline
func fastPhase() { sink[7] = unsafe.Pointer(new([64]uint64)) }

//go:noinline
func slowPhase() { sink[8] = unsafe.Pointer(new([64]uint64)) }

const (
	atSteady48 = iota
	atSteady256
	atSteady1024
	atSteady8192
	atRare96
	atEvenTurn
	atOddTurn
	atFastPhase
	atSlowPhase
	places
)

var names = [places]string{"steady48", "steady256", "steady1024", "steady8192", "rare96",
	"evenTurn", "oddTurn", "fastPhase", "slowPhase"}

var made [places]amount

var running atomic.Bool

// steadily mixes places at random, in fixed shares.
func steadily() {
	random := uint64(88172645463325252)
	for running.Load() {
		for i := 0; i < 1000; i++ {
			random ^= random << 13
			random ^= random >> 7
			random ^= random << 17
			switch n := random >> 32 % 1000; {
			case n < 500:
				steady48()
				made[atSteady48].add(48)
			case n < 900:
				steady256()
				made[atSteady256].add(256)
			case n < 970:
				steady1024()
				made[atSteady1024].add(1024)
			case n < 980:
				steady8192()
				made[atSteady8192].add(8192)
			default:
				rare96()
				made[atRare96].add(96)
			}
		}
	}
}

// inPhases has places take turns for a time each: one as fast as it can, one at a fraction
// of that, and two that alternate object by object. The period divides a second evenly.
func inPhases() {
	for running.Load() {
		for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
			for i := 0; i < 100; i++ {
				fastPhase()
				made[atFastPhase].add(512)
			}
		}
		for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
			for i := 0; i < 20; i++ {
				slowPhase()
				made[atSlowPhase].add(512)
			}
			spin(10 * time.Microsecond)
		}
		for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
			for i := 0; i < 100; i++ {
				evenTurn()
				made[atEvenTurn].add(64)
				oddTurn()
				made[atOddTurn].add(64)
			}
		}
	}
}

func spin(length time.Duration) {
	for begin := time.Now(); time.Since(begin) < length; {
	}
}

func main() {
	// What it is in a program that has a way to ask for its profile.
	runtime.MemProfileRate = 512 * 1024
	fmt.Println("ready")
	var workers sync.WaitGroup
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "go":
			running.Store(true)
			for _, work := range []func(){steadily, inPhases} {
				workers.Add(1)
				go func(work func()) {
					defer workers.Done()
					work()
				}(work)
			}
		case "stop":
			running.Store(false)
			workers.Wait()
			all := map[string]*amount{}
			for i, name := range names {
				all[name] = &made[i]
			}
			json.NewEncoder(os.Stdout).Encode(all)
		}
	}
}
