// The same with the bodies read and closed: the connection serves the next poll too.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

var url string

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	url = "http://" + listener.Addr().String()
	http.HandleFunc("/status", status)
	http.HandleFunc("/page", page)
	go http.Serve(listener, nil)
	go poll()
	go fetch()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func status(w http.ResponseWriter, r *http.Request) {
	w.Write([]byte("fine"))
}

func page(w http.ResponseWriter, r *http.Request) {
	w.Write(make([]byte, 32<<10))
}

// poll looks some 25 times a second how the other service is.
func poll() {
	for range time.Tick(40 * time.Millisecond) {
		response, err := http.Get(url + "/status")
		if err != nil {
			continue
		}
		healthy = response.StatusCode == http.StatusOK
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

var healthy bool

// fetch reads pages, and closes their bodies.
func fetch() {
	for range time.Tick(10 * time.Millisecond) {
		response, err := http.Get(url + "/page")
		if err != nil {
			continue
		}
		io.ReadAll(response.Body)
		response.Body.Close()
	}
}
