package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTicks is the unit of /proc/PID/stat on Linux.
const clockTicks = 100

// idle measures what `shoal dev` costs when nobody uses it: three controllers,
// two groups of three and a spare one, in one process.
func idle(ctx context.Context, b *bench) error {
	dir, err := b.dir("idle")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.binary, "dev", "--data", dir, "--listen", "127.0.0.1:18400")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a process that has ended already is what we want
		_ = cmd.Wait()                          // its exit code is not measured
	}()
	ready := false
	for lines := bufio.NewScanner(out); !ready && lines.Scan(); {
		ready = strings.HasPrefix(lines.Text(), "ready ")
	}
	if !ready {
		return fmt.Errorf("dev ended before it was ready")
	}
	readyAfter := time.Since(start)
	settle(ctx, 10*time.Second)
	before, err := cpuSeconds(cmd.Process.Pid)
	if err != nil {
		return err
	}
	const window = 30 * time.Second
	settle(ctx, window)
	after, err := cpuSeconds(cmd.Process.Pid)
	if err != nil {
		return err
	}
	rss, err := residentMB(cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("An idle `shoal dev` (12 replicas in one process, 1,024 shards), over %v.\n\n", window)
	fmt.Println("| ready after s | cores | resident MB |\n|---:|---:|---:|")
	fmt.Printf("| %.1f | %.3f | %.0f |\n\n", readyAfter.Seconds(), (after-before)/window.Seconds(), rss)
	return nil
}

func settle(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// cpuSeconds is the processor time that a process has used, from /proc.
func cpuSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("unreadable stat of process %d", pid)
	}
	sum := 0.0
	for _, f := range fields[11:13] { // utime, stime
		ticks, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, err
		}
		sum += ticks
	}
	return sum / clockTicks, nil
}

// residentMB is a process's resident memory, from /proc.
func residentMB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(kb)[0], 64)
			return n / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in the status of process %d", pid)
}
