package logstore

import (
	"os"
	"syscall"
)

// fdatasync makes a file's bytes durable, and what of its metadata is needed to
// read them: not the time of the last change, which would cost a write of its own.
func fdatasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := c.Control(func(fd uintptr) {
		for {
			if failed = syscall.Fdatasync(int(fd)); failed != syscall.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return failed
}
