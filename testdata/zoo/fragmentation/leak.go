// A service that imports files of records and keeps few of them. The records of a file are of
// one size, and lie in spans of their own, of which each survivor holds one: much is in use for
// little that is alive.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A file has records of one size.
const (
	files    = 8
	smallest = 128
	step     = 96
	fileSize = 6 << 20
	pageSize = 8 << 10
)

// kept of each file.
var kept [files][][]byte

func main() {
	for file := 0; file < files; file++ {
		load(file)
	}
	go reload()
	go every(1000, answer)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// reload imports one file after the other again.
func reload() {
	file := 0
	for range time.Tick(time.Second / 2) {
		load(file)
		file = (file + 1) % files
	}
}

func load(file int) {
	size := smallest + file*step
	records := parse(size)
	var survivors [][]byte
	for i := 0; i < len(records); i += pageSize / size {
		survivors = append(survivors, records[i])
	}
	kept[file] = survivors
}

func parse(size int) [][]byte {
	records := make([][]byte, fileSize/size)
	for i := range records {
		records[i] = make([]byte, size)
		records[i][0] = byte(i)
	}
	return records
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
