package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/transfer"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
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

// scansAtOnce is how many shards an export reads at a time: each page is a round
// trip, and most shards are one page.
const scansAtOnce = 16

// Scan implements transfer.Scanner. each is called by one goroutine at a time.
func (s store) Scan(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error {
	config := s.Placement()
	if config == nil || bytes.IndexByte(prefix, '{') >= 0 { // perhaps one shard only
		return s.scanInOrder(ctx, prefix, keysOnly, each)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var one sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(scansAtOnce, len(config.Shards)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				shard := next.Add(1) - 1
				if shard >= int64(len(config.Shards)) {
					return
				}
				if err := s.scanShard(ctx, shardcfg.ShardID(shard), prefix, keysOnly, &one, each); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// scanShard reads one shard, page by page.
func (s store) scanShard(ctx context.Context, shard shardcfg.ShardID, prefix []byte, keysOnly bool, one *sync.Mutex, each func(key, value []byte) error) error {
	for cursor := (clerk.Cursor{Shard: shard}); ; {
		page, err := s.ScanPage(ctx, prefix, cursor, scanOptions(keysOnly)...)
		if err != nil {
			return err
		}
		if err := handOver(page.Entries, one, each); err != nil {
			return err
		}
		if cursor = page.Next; page.Done || cursor.Shard != shard {
			return nil
		}
	}
}

// handOver calls each for the entries of a page.
func handOver(entries []clerk.Entry, one *sync.Mutex, each func(key, value []byte) error) error {
	one.Lock()
	defer one.Unlock()
	for _, e := range entries {
		if err := each(e.Key, e.Value); err != nil {
			return err
		}
	}
	return nil
}

func (s store) scanInOrder(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error {
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
