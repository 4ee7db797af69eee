package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A Process is one replica: a child process with a data directory and an
// address of its own. Its methods may be called by any goroutine.
type Process struct {
	// ID is its --id; Group its gid, 0 for a controller.
	ID    string
	Group uint64
	// Addr is where it listens; Dir is its data directory.
	Addr, Dir string

	binary  string
	args    []string
	env     []string
	logFile string

	mu struct {
		sync.Mutex
		cmd  *exec.Cmd
		done chan struct{} // closed when cmd has ended
		exit int           // its exit code, once done is closed; -1: by a signal
	}
}

// Start starts the process; it fails if the process is running.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runningLocked() {
		return fmt.Errorf("process %s is already running", p.ID)
	}
	if err := os.MkdirAll(filepath.Dir(p.logFile), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.binary, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	// The kernel ends the child with its parent, also when the parent is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start process %s: %w", p.ID, err)
	}
	done := make(chan struct{})
	p.mu.cmd, p.mu.done = cmd, done
	go func() {
		_ = cmd.Wait() // the exit code below says all that matters
		p.mu.Lock()
		p.mu.exit = cmd.ProcessState.ExitCode()
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

func (p *Process) runningLocked() bool {
	if p.mu.cmd == nil {
		return false
	}
	select {
	case <-p.mu.done:
		return false
	default:
		return true
	}
}

// Running reports whether the process lives (a paused one does).
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runningLocked()
}

// PID is the process id of the newest start; 0 before the first.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.cmd == nil {
		return 0
	}
	return p.mu.cmd.Process.Pid
}

// signal sends a signal; to a process that has ended it does nothing.
func (p *Process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return nil
	}
	if err := p.mu.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to process %s: %w", s, p.ID, err)
	}
	return nil
}

// Pause stops the process where it stands, until it is killed.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, err := p.Wait(10 * time.Second)
	return err
}

// Stop ends the process with SIGTERM, and with SIGKILL if it takes longer than
// patience. It returns the exit code.
func (p *Process) Stop(patience time.Duration) (int, error) {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	if code, err := p.Wait(patience); err == nil {
		return code, nil
	}
	return -1, errors.Join(fmt.Errorf("process %s did not stop within %v", p.ID, patience), p.Kill())
}

// Wait waits until the process has ended by itself and returns its exit code.
func (p *Process) Wait(patience time.Duration) (int, error) {
	p.mu.Lock()
	done := p.mu.done
	p.mu.Unlock()
	if done == nil {
		return 0, fmt.Errorf("process %s was never started", p.ID)
	}
	select {
	case <-done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.mu.exit, nil
	case <-time.After(patience):
		return 0, fmt.Errorf("process %s is still running after %v", p.ID, patience)
	}
}

// Log returns what the process wrote to stdout and stderr, over all its starts.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// run runs a command of the binary to its end, as a user would.
func run(ctx context.Context, binary string, args, env []string) Result {
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	if cmd.ProcessState == nil {
		r.Exit, r.Stderr = -1, err.Error()
		return r
	}
	r.Exit = cmd.ProcessState.ExitCode()
	return r
}
