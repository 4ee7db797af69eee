package check

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/workload"
)

// A witness is a store that remembers why an operation last failed, for a check
// that can't be finished to say what it met. It is safe for concurrent use.
type witness struct {
	store workload.Store
	// within also bounds every operation.
	within context.Context
	// succeeded counts the operations that were answered.
	succeeded atomic.Uint64
	mu        struct {
		sync.Mutex
		last error // nil: none failed
	}
}

// bound is ctx that ends with the witness's bound as well.
func (w *witness) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	drop := context.AfterFunc(w.within, func() {
		if errors.Is(w.within.Err(), context.Canceled) { // a deadline is told as one, below
			end()
		}
	})
	deadline, ok := w.within.Deadline()
	if !ok {
		return ctx, func() { drop(); end() }
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	return ctx, func() { drop(); cancel(); end() }
}

func (w *witness) note(err error) {
	if clerk.FamilyOf(err) == clerk.FamilyDone {
		w.succeeded.Add(1)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.last = err
}

// lastFailure is why an operation last failed; nil: none did.
func (w *witness) lastFailure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.last
}

func (w *witness) Get(ctx context.Context, key []byte) (clerk.Value, error) {
	ctx, cancel := w.bound(ctx)
	defer cancel()
	v, err := w.store.Get(ctx, key)
	w.note(err)
	return v, err
}

func (w *witness) Put(ctx context.Context, key, value []byte, options ...clerk.WriteOption) (clerk.Version, error) {
	ctx, cancel := w.bound(ctx)
	defer cancel()
	version, err := w.store.Put(ctx, key, value, options...)
	w.note(err)
	return version, err
}

func (w *witness) Append(ctx context.Context, key, value []byte, options ...clerk.WriteOption) (clerk.Appended, error) {
	ctx, cancel := w.bound(ctx)
	defer cancel()
	a, err := w.store.Append(ctx, key, value, options...)
	w.note(err)
	return a, err
}

func (w *witness) Delete(ctx context.Context, key []byte, options ...clerk.WriteOption) error {
	ctx, cancel := w.bound(ctx)
	defer cancel()
	err := w.store.Delete(ctx, key, options...)
	w.note(err)
	return err
}
