package dev

import "syscall"

// childAttributes makes a child die with the thread that started it, and keeps
// the terminal's Ctrl-C from it: this process tells it when to stop.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
