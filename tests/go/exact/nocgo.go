//go:build !cgo

package main

// cgoSites is empty in a program without cgo.
var cgoSites []site
