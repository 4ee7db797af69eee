package bench

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// keyPrefix begins the names of the keys that are read and written.
const keyPrefix = "bench/"

// keyDigits is the least number of digits that follow it.
const keyDigits = 10

// Key is the name of the i-th key.
func Key(i int) []byte { return fmt.Appendf(nil, "%s%0*d", keyPrefix, keyDigits, i) }

// isKey reports whether a key is one of a benchmark.
func isKey(key []byte) bool {
	digits, ok := bytes.CutPrefix(key, []byte(keyPrefix))
	return ok && len(digits) >= keyDigits && len(bytes.Trim(digits, "0123456789")) == 0
}

// countedMax bounds the keys of which it is kept which were written.
const countedMax = 1 << 26

// A keySet knows which keys were written. The zero set knows none. It is safe for
// concurrent use.
type keySet struct {
	bits  []atomic.Uint64
	count atomic.Uint64
}

func newKeySet(keys int) *keySet {
	s := &keySet{}
	if keys <= countedMax {
		s.bits = make([]atomic.Uint64, (keys+63)/64)
	}
	return s
}

// add takes in a key. Beyond countedMax keys each write counts as one of its own.
func (s *keySet) add(i int) {
	if s.bits == nil {
		s.count.Add(1)
		return
	}
	bit := uint64(1) << (i % 64)
	if s.bits[i/64].Or(bit)&bit == 0 {
		s.count.Add(1)
	}
}

// A Cleaner is a store that keys are removed from.
type Cleaner interface {
	// Scan calls each for every key with the prefix; by one goroutine at a time.
	Scan(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error
	// Remove removes a key; that there is none is no error.
	Remove(ctx context.Context, key []byte) error
}

// cleanersCount is how many keys are removed at a time.
const cleanersCount = 128

// Clean removes the keys that benchmarks left, and no others. It counts them in
// removed as it goes, and returns the first error.
func Clean(ctx context.Context, s Cleaner, removed *atomic.Uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keys := make(chan []byte, cleanersCount)
	var wg sync.WaitGroup
	for range cleanersCount {
		wg.Go(func() {
			for key := range keys {
				if ctx.Err() != nil {
					continue
				}
				if err := s.Remove(ctx, key); err != nil {
					cancel(err)
				} else {
					removed.Add(1)
				}
			}
		})
	}
	err := s.Scan(ctx, []byte(keyPrefix), true, func(key, _ []byte) error {
		if !isKey(key) {
			return nil
		}
		select {
		case keys <- bytes.Clone(key):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(keys)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
