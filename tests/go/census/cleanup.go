//go:build go1.24

package main

import "runtime"

// cleanups gives each object one, and says how many that are.
func cleanups(all []*thing) int {
	for i, t := range all {
		runtime.AddCleanup(t, func(int) {}, i)
	}
	return len(all)
}
