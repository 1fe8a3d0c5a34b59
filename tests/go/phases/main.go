// Command phases allocates at known places in ways that trick samplers: two places in turns,
// and two whose turns take a while each, in one of which next to nothing is allocated.
//
// It prints "ready". At a line "run MILLISECONDS" on stdin it works for so long and prints
// what every place has made since the program started, as JSON {place: {"objects", "bytes"}};
// it ends when stdin closes. Each place has functions of its name.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
	"unsafe"
)

type scan48 struct {
	p *byte
	_ [40]byte
}

type amount struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

var sink unsafe.Pointer

// kept grows: what is in it stays alive.
var kept [][]byte

var made = map[string]*amount{}

func count(place string, objects, size int64) {
	sum := made[place]
	if sum == nil {
		sum = &amount{}
		made[place] = sum
	}
	sum.Objects += objects
	sum.Bytes += objects * size
}

//go:noinline
func even() { sink = unsafe.Pointer(new(scan48)) }

//go:noinline
func odd() { sink = unsafe.Pointer(new(scan48)) }

//go:noinline
func fast() { sink = unsafe.Pointer(new([6]uint64)) }

//go:noinline
func slow() { sink = unsafe.Pointer(new([6]uint64)) }

//go:noinline
func keep() { kept = append(kept, make([]byte, 1024)) }

var spun uint64

// spin is work without allocations.
func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i := 0; i < 100; i++ {
			spun = spun*6364136223846793005 + 1442695040888963407
		}
	}
}

// run works for some time: phases of much and of little in turns.
func run(d, phase time.Duration, pause time.Duration) {
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		var evens, fasts, slows, keeps int64
		for stop := time.Now().Add(phase); time.Now().Before(stop); {
			for i := 0; i < 100; i++ {
				even()
				odd()
				fast()
				fast()
				fast()
			}
			evens += 100
			fasts += 300
			keep()
			keeps++
			if pause > 0 {
				spin(pause)
			}
		}
		for stop := time.Now().Add(phase); time.Now().Before(stop); {
			slow()
			slows++
			spin(20 * time.Microsecond)
		}
		count("even", evens, 48)
		count("odd", evens, 48)
		count("fast", fasts, 48)
		count("slow", slows, 48)
		count("keep", keeps, 1024)
		if len(kept) > 1<<16 {
			kept = nil
		}
	}
}

func main() {
	phase := flag.Duration("phase", 70*time.Millisecond, "length of a phase")
	pause := flag.Duration("pause", 0, "pause between a hundred rounds of the busy phase")
	flag.Parse()
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var milliseconds int
		if _, err := fmt.Sscanf(in.Text(), "run %d", &milliseconds); err != nil {
			fmt.Fprintln(os.Stderr, "phases: not a command:", in.Text())
			os.Exit(2)
		}
		run(time.Duration(milliseconds)*time.Millisecond, *phase, *pause)
		line, _ := json.Marshal(made)
		fmt.Println(string(line))
	}
}
