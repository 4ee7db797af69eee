// Package stall watches operations that must end: of a disk, or of what waits for
// one. It tells an operation that stalls from a process that was paused. A process
// that is stopped by a signal, frozen with its container, or on a virtual machine
// that was suspended, finds on waking that its clock has run on; nothing is wrong
// with its disk. So a limit counts the time in which the process ran.
//
// Row 3 of the layers: it imports the standard library only. It starts timers, and
// no goroutine that outlives them.
package stall

import (
	"context"
	"sync"
	"time"
)

// steps is how many times a watch looks at the clock within its limit.
const steps = 20

// A Watch is one operation under watch. Methods may be called concurrently.
type Watch struct {
	stalled func()
	step    time.Duration // how far apart the looks at the clock are

	mu struct {
		sync.Mutex
		timer *time.Timer
		last  time.Time     // of the last look at the clock
		left  time.Duration // of the limit
		ended bool
	}
}

// Begin calls stalled, once and in a goroutine of its own, if the process runs for
// limit before Done is called. A pause of the process counts as one and a half
// steps of a twentieth of the limit, however long it was; so does any time in which
// the process gets no processor. A limit that is not positive watches nothing.
func Begin(limit time.Duration, stalled func()) *Watch {
	w := &Watch{stalled: stalled, step: limit / steps}
	if limit <= 0 {
		w.mu.ended = true
		return w
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.last, w.mu.left = time.Now(), limit
	w.mu.timer = time.AfterFunc(w.step, w.look)
	return w
}

func (w *Watch) look() {
	if w.count() {
		w.stalled()
	}
}

// count takes the time since the last look from what is left, and reports whether
// the limit is reached.
func (w *Watch) count() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.ended {
		return false
	}
	now := time.Now()
	w.mu.left -= min(now.Sub(w.mu.last), w.step+w.step/2)
	w.mu.last = now
	if w.mu.left <= 0 {
		w.mu.ended = true
		return true
	}
	w.mu.timer.Reset(min(w.step, w.mu.left))
	return false
}

// Done ends the watch: the operation has ended. It may be called more than once.
func (w *Watch) Done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.ended = true
	if w.mu.timer != nil {
		w.mu.timer.Stop()
	}
}

// Context returns a context that ends with parent, or when the process has run for
// limit. The caller calls cancel.
func Context(parent context.Context, limit time.Duration) (ctx context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(parent)
	w := Begin(limit, func() { end(context.DeadlineExceeded) })
	return ctx, func() {
		w.Done()
		end(context.Canceled)
	}
}
