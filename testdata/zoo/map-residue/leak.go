// A service that queues a tenant's jobs in a map of the tenant. When the jobs are done the
// map is empty, but its table stays as large as it ever was.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A tenant has jobs now and then.
type tenant struct {
	jobs map[uint64]uint64
}

var tenants [1 << 14]tenant

var turn int

// recent is a map of healthy use: as many keys are deleted as are added.
var recent = map[uint64][2]uint64{}

var latest uint64

func main() {
	go every(100, work)
	go every(4000, visit)
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// work gives the next tenant 400 jobs, and does them.
func work() {
	t := &tenants[turn%len(tenants)]
	turn++
	enqueue(t, 400)
	for job := range t.jobs {
		delete(t.jobs, job)
	}
}

func enqueue(t *tenant, jobs uint64) {
	if t.jobs == nil {
		t.jobs = map[uint64]uint64{}
	}
	for job := uint64(0); job < jobs; job++ {
		t.jobs[job] = job * job
	}
}

func visit() {
	latest++
	recent[latest] = [2]uint64{latest, latest * latest}
	delete(recent, latest-2000)
}

var page []byte

func answer() {
	page = make([]byte, 12<<10)
}

// every calls do so many times a second, in small groups.
func every(perSecond int, do func()) {
	for range time.Tick(10 * time.Millisecond) {
		for i := 0; i < perSecond/100; i++ {
			do()
		}
	}
}
