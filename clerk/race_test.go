//go:build race

package clerk_test

import "runtime"

// The race detector crashes if two goroutines of one bubble run timers side by side
// that are due at once: they share the bubble's state in the detector
// (runtime.timer.unlockAndRun of Go 1.26), and bufconn has such timers for each
// connection. On one processor they take turns. The detector goes by the order in
// which memory is synchronised, and finds the same.
func init() { runtime.GOMAXPROCS(1) }
