package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/transfer"
)

// store is a Clerk as the load generator and the transfers see it.
type store struct{ *clerk.Clerk }

// Read implements bench.Store.
func (s store) Read(ctx context.Context, key []byte) (bool, error) {
	_, err := s.Get(ctx, key)
	if errors.Is(err, clerk.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Write implements bench.Store.
func (s store) Write(ctx context.Context, key, value []byte) error {
	_, err := s.Clerk.Put(ctx, key, value)
	return err
}

// Remove implements bench.Cleaner.
func (s store) Remove(ctx context.Context, key []byte) error {
	if err := s.Delete(ctx, key); !errors.Is(err, clerk.ErrNotFound) {
		return err
	}
	return nil
}

// putAttempts is how often an import tries a put that runs into its deadline.
const putAttempts = 5

// Put implements transfer.Putter. A put that timed out is tried again, as the
// same write where it may have been executed: one slow moment of a disk must
// not end a long import.
func (s store) Put(ctx context.Context, key, value []byte) error {
	var options []clerk.WriteOption
	for attempt := 1; ; attempt++ {
		_, err := s.Clerk.Put(ctx, key, value, options...)
		switch {
		case errors.Is(err, clerk.ErrInvalid):
			return fmt.Errorf("%w: %w", transfer.ErrSkip, err)
		case !errors.Is(err, clerk.ErrTimeout) || attempt == putAttempts || ctx.Err() != nil:
			return err
		}
		if failed := (*clerk.Error)(nil); errors.As(err, &failed) && !failed.Identity.IsZero() {
			options = []clerk.WriteOption{clerk.As(failed.Identity)}
		}
	}
}

// Scan implements transfer.Scanner.
func (s store) Scan(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error {
	for entry, err := range s.Clerk.Scan(ctx, prefix, scanOptions(keysOnly)...) {
		if err != nil {
			return err
		}
		if err := each(entry.Key, entry.Value); err != nil {
			return err
		}
	}
	return nil
}

func scanOptions(keysOnly bool) []clerk.ScanOption {
	if keysOnly {
		return []clerk.ScanOption{clerk.KeysOnly()}
	}
	return nil
}
