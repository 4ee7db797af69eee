//go:build !unix

package main

import "time"

var begun = time.Now()

// cpuTime is the time that passed, where the system tells nothing better.
func cpuTime() time.Duration { return time.Since(begun) }
