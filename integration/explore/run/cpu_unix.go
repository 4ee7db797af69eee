//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpuTime is how much of the processors this process has used: what a search
// costs where others share the machine.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
