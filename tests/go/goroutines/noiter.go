//go:build !go1.23

package main

// coroutines exist from Go 1.23 on.
func coroutines() {}
