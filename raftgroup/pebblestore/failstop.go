package pebblestore

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// failStop remembers the first failure, and makes it the answer to every later
// call. It is also the Logger that Pebble sees.
type failStop struct {
	kind    error // wrapped by the failure
	log     Logger
	onFatal func(error) // nil if nobody is to be told
	failure atomic.Pointer[stopped]
	failed  chan struct{} // closed on failure
}

// stopped is the failure, and what is thrown through Pebble's frames to get out
// of a call that can't go on.
type stopped struct{ err error }

func (f *failStop) init(kind error, log Logger, onFatal func(error)) {
	f.kind, f.log, f.onFatal = kind, log, onFatal
	f.failed = make(chan struct{})
}

// err returns the failure, if there was one.
func (f *failStop) err() error {
	if s := f.failure.Load(); s != nil {
		return s.err
	}
	return nil
}

// fail records cause unless there is a failure already, and returns the failure.
func (f *failStop) fail(cause error) error {
	if err := f.err(); err != nil {
		return err
	}
	s := &stopped{err: fmt.Errorf("%w: %w", f.kind, cause)}
	if !f.failure.CompareAndSwap(nil, s) {
		return f.err()
	}
	close(f.failed)
	f.log.Error("store failed", "error", s.err)
	if f.onFatal != nil {
		// Pebble may hold its locks now; the callee may want to close the store.
		go f.onFatal(s.err)
	}
	return s.err
}

// caught is deferred around calls of Pebble: a panic becomes a failure. Pebble
// panics if it can't open the next log file, for one.
func (f *failStop) caught(op string, err *error) {
	if r := recover(); r != nil {
		*err = f.fail(panicError(op, r))
	}
}

// write runs a step after whose error nothing can be assumed. Where the disk
// stalls or Pebble stops its own goroutines, the step may never end; its caller
// learns of the failure all the same, and leaves it behind.
func (f *failStop) write(op string, step func() error) error {
	err := f.attempt(op, step)
	if err != nil {
		return f.fail(fmt.Errorf("%s: %w", op, err))
	}
	return f.err() // a background step may have failed meanwhile
}

// attempt is write for a step whose error is no failure of the store.
func (f *failStop) attempt(op string, step func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		defer f.caught(op, &err)
		err = step()
	}()
	select {
	case err := <-done:
		return err
	case <-f.failed:
		return f.err()
	}
}

// readError judges the error of a read: whatever it is, a disk that can't be
// read can't be trusted.
func (f *failStop) readError(op string, err error) error {
	return f.fail(fmt.Errorf("%s: %w", op, err))
}

// Infof implements pebble.Logger.
func (f *failStop) Infof(format string, args ...any) {
	f.log.Debug(fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (f *failStop) Errorf(format string, args ...any) {
	f.log.Error(fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. Pebble relies on it not to return: what
// follows a failed manifest write deletes the log that is still needed. Where
// one of our own calls is waiting below, it is unwound by a panic that caught
// turns into an error; one of Pebble's own goroutines is stopped where it is.
func (f *failStop) Fatalf(format string, args ...any) {
	err := f.fail(fmt.Errorf(format, args...))
	if calledFromHere() {
		panic(stopped{err})
	}
	select {}
}

const packageName = "github.com/shoalkv/shoal/raftgroup/pebblestore."

// calledFromHere reports whether a function of this package is among the
// callers of its caller.
func calledFromHere() bool {
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if strings.HasPrefix(frame.Function, packageName) {
			return true
		}
		if !more {
			return false
		}
	}
}

// listener returns what Pebble tells about its background work.
func (f *failStop) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			_ = f.fail(fmt.Errorf("background: %w", err))
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			_ = f.fail(fmt.Errorf("corrupt file %s: %w", info.Path, info.Details))
		},
	}
}

// silence is the Logger of those who gave none.
type silence struct{}

func (silence) Debug(string, ...any) {}
func (silence) Error(string, ...any) {}

// isNotFound reports Pebble's way to say absent.
func isNotFound(err error) bool { return errors.Is(err, pebble.ErrNotFound) }
