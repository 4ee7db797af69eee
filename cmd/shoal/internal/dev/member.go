package dev

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Member is a replica that was started.
type Member interface {
	// PID is its process; 0: this one.
	PID() int
	// Done is closed when it has ended, by Stop or by itself; Err says why after
	// that.
	Done() <-chan struct{}
	Err() error
	// Stop ends it in order, or by force when the timeout is over, and waits. It
	// may be called again, and after the end.
	Stop(timeout time.Duration)
}

// A Launcher starts replicas. The context bounds the start, not the replica's
// life.
type Launcher func(ctx context.Context, spec Spec) (Member, error)

// Processes returns a Launcher that starts each replica as a child process that
// runs the executable. The children die with this process, however it ends:
// where the system offers that, they are tied to a thread that lives until stop
// is called.
func Processes(executable string, environment []string) (launch Launcher, stop func()) {
	spawn := make(chan func())
	go func() {
		// The kernel signals a child when the thread that started it ends, so this
		// goroutine keeps its thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for start := range spawn {
			start()
		}
	}()
	launch = func(ctx context.Context, spec Spec) (Member, error) {
		cmd := exec.Command(executable, arguments(spec)...)
		cmd.Env = slices.DeleteFunc(slices.Clone(environment), func(v string) bool { return strings.HasPrefix(v, "SHOAL_") })
		cmd.SysProcAttr = childAttributes()
		log, err := openLog(spec.LogFile)
		if err != nil {
			return nil, err
		}
		defer log.Close() // the child has its own handle
		cmd.Stdout, cmd.Stderr = log, log
		started := make(chan error, 1)
		select {
		case spawn <- func() { started <- cmd.Start() }:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := <-started; err != nil {
			return nil, err
		}
		p := &process{cmd: cmd, done: make(chan struct{})}
		go func() {
			p.err = cmd.Wait()
			close(p.done)
		}()
		return p, nil
	}
	return launch, sync.OnceFunc(func() { close(spawn) })
}

// Memory of a dev cluster: it shares a machine with whoever tries it.
const (
	sharedCacheBytes  = 64 << 20 // of all replicas, in one process
	processCacheBytes = 8 << 20  // of each replica, in its own
	memtableBytes     = 4 << 20
)

// arguments is the command line of a replica.
func arguments(spec Spec) []string {
	var peers []string
	for _, id := range slices.Sorted(maps.Keys(spec.Peers)) {
		peers = append(peers, id+"="+spec.Peers[id])
	}
	args := []string{"controller", "--shards", strconv.Itoa(spec.Shards)}
	if spec.Group != 0 {
		args = []string{"server", "--group", strconv.FormatUint(uint64(spec.Group), 10), "--controllers", strings.Join(spec.Controllers, ",")}
	}
	if spec.HTTP != "" {
		args = append(args, "--http", spec.HTTP)
	}
	return append(args, "--cache", strconv.Itoa(processCacheBytes), "--memtable", strconv.Itoa(memtableBytes), "--id", spec.ID, "--listen", spec.Address, "--data", spec.DataDir, "--peers", strings.Join(peers, ","))
}

// openLog opens a log file to append to.
func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// process is a Member in a process of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // written before done is closed
}

func (p *process) PID() int { return p.cmd.Process.Pid }

func (p *process) Done() <-chan struct{} { return p.done }

func (p *process) Err() error { return p.err }

func (p *process) Stop(timeout time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which is the aim
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tail returns the end of a log file, for a message about an early end.
func tail(path string, bytesMax int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > bytesMax {
		if _, err := f.Seek(-bytesMax, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(f)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return strings.TrimSpace(string(text))
}
