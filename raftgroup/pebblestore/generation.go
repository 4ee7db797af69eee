package pebblestore

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// generation is one open database with the count of its users: calls under way,
// snapshots, iterators, batches. It starts with one user, its owner; when the
// owner retired it and the others left, it may be closed.
type generation struct {
	db    *pebble.DB
	dir   string
	users atomic.Int64
	idle  chan struct{} // closed when users is down to zero, for good
}

func openGeneration(dir string, opts *pebble.Options) (g *generation, err error) {
	// Damaged files make Pebble panic here and there.
	defer func() {
		if r := recover(); r != nil {
			err = panicError("open", r)
		}
	}()
	if !opts.ErrorIfExists {
		if err := checkManifest(opts.FS, dir); err != nil {
			return nil, err
		}
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	g = &generation{db: db, dir: dir, idle: make(chan struct{})}
	g.users.Store(1)
	return g, nil
}

// enter adds a user, unless the last one has left.
func (g *generation) enter() bool {
	for {
		n := g.users.Load()
		if n == 0 {
			return false
		}
		if g.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *generation) leave() {
	switch n := g.users.Add(-1); {
	case n == 0:
		close(g.idle)
	case n < 0:
		panic(fmt.Sprintf("pebblestore: %d users", n))
	}
}

// retire gives up the owner's share. Call it once.
func (g *generation) retire() { g.leave() }

// close closes the database, once idle.
func (g *generation) close() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError("close", r)
		}
	}()
	if err := g.db.Close(); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

func panicError(op string, r any) error {
	if stop, ok := r.(stopped); ok {
		return stop.err
	}
	return fmt.Errorf("%s: panic: %v\n%s", op, r, debug.Stack())
}
