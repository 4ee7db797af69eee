package dev

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/shoalkv/shoal/cmd/shoal/internal/replica"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
)

// InProcess returns a Launcher that runs every replica in this process; they
// share one cache. stop lets go of it, after the last replica's end.
func InProcess(version string) (launch Launcher, stop func()) {
	cache := pebblestore.NewCache(sharedCacheBytes)
	launch = func(_ context.Context, spec Spec) (Member, error) {
		log, err := openLog(spec.LogFile)
		if err != nil {
			return nil, err
		}
		r, err := replica.Start(replica.Options{
			Group: spec.Group, ID: spec.ID, Peers: spec.Peers, Controllers: spec.Controllers, Shards: spec.Shards,
			Listen: spec.Address, HTTP: spec.HTTP, Data: spec.DataDir, Version: version,
			Logger: replica.NewLogger(log, slog.LevelInfo, false),
			Store:  pebblestore.Options{Cache: cache, MemTableBytes: memtableBytes},
		})
		if err != nil {
			return nil, errors.Join(err, log.Close())
		}
		return &resident{Replica: r, closeLog: sync.OnceFunc(func() { _ = log.Close() })}, nil
	}
	return launch, sync.OnceFunc(cache.Unref)
}

// resident is a Member in this process.
type resident struct {
	*replica.Replica
	closeLog func()
}

// PID is 0: the member has no process of its own.
func (r *resident) PID() int { return 0 }

// Stop drains and closes the replica.
func (r *resident) Stop(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_ = r.Close(ctx) // an error of the stop is in the replica's log
	r.closeLog()
}
