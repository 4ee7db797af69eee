//go:build !linux

package dev

import "syscall"

// childAttributes keeps the terminal's Ctrl-C from a child: this process tells it
// when to stop.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
