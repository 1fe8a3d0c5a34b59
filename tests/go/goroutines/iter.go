//go:build go1.23

package main

import "iter"

var pulled []func() (int, bool)

// coroutines parks some behind iter.Pull: two inside their sequence, one before it.
func coroutines() {
	for i := 0; i < 3; i++ {
		next, _ := iter.Pull(func(yield func(int) bool) {
			for yield(i) {
			}
		})
		if i > 0 {
			next()
		}
		pulled = append(pulled, next)
		spawned++
	}
}
