package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// aside is a database in a directory beside the live one, opened for reading
// only: a checkpoint or a received state. It is a store.Reader.
type aside struct {
	s    *Store
	dir  string // path
	stop *failStop
	mu   struct {
		sync.Mutex
		g      *generation // nil until first read
		closed bool
	}
}

func (s *Store) newAside(dir string, stop *failStop) (*aside, error) {
	a := &aside{s: s, dir: dir, stop: stop}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return nil, store.ErrClosed
	}
	s.mu.asides[a] = struct{}{}
	return a, nil
}

// Get implements store.Reader.
func (a *aside) Get(key []byte) ([]byte, bool, error) {
	g, err := a.enter()
	if err != nil {
		return nil, false, err
	}
	defer g.leave()
	return a.stop.get(g.db, key)
}

// Iterate implements store.Reader.
func (a *aside) Iterate(lower, upper []byte) (store.Iterator, error) {
	g, err := a.enter()
	if err != nil {
		return nil, err
	}
	return newIterator(a.stop, g, g.db, lower, upper)
}

// enter opens the database if need be, and holds it until leave.
func (a *aside) enter() (*generation, error) {
	if err := a.s.stop.err(); err != nil {
		return nil, err
	}
	if err := a.stop.err(); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return nil, store.ErrClosed
	}
	if a.mu.g == nil {
		opts := a.s.pebbleOptions(a.stop)
		opts.ReadOnly = true
		opts.ErrorIfNotExists = true
		opts.DisableTableStats = true
		g, err := openGeneration(a.dir, opts)
		if err != nil {
			return nil, a.stop.fail(fmt.Errorf("open %s: %w", a.dir, err))
		}
		a.mu.g = g
	}
	if !a.mu.g.enter() {
		return nil, store.ErrClosed
	}
	return a.mu.g, nil
}

// shut closes the database, once its readers are gone, and reports whether this
// call was the one that did. The files stay.
func (a *aside) shut() (bool, error) {
	a.mu.Lock()
	g, closed := a.mu.g, a.mu.closed
	a.mu.g, a.mu.closed = nil, true
	a.mu.Unlock()
	if closed {
		return false, nil
	}
	a.s.mu.Lock()
	delete(a.s.mu.asides, a)
	a.s.mu.Unlock()
	if g == nil {
		return true, nil
	}
	g.retire()
	<-g.idle
	return true, g.close()
}

// release closes the database and deletes its files. A second call does nothing.
func (a *aside) release() error {
	first, err := a.shut()
	if !first {
		return nil
	}
	return errors.Join(err, a.s.fs.RemoveAll(a.dir))
}

// verifyTable checks every block of a file, if it is a table. Opening a database
// reads hardly any of them.
func (a *aside) verifyTable(name string) (err error) {
	if !strings.HasSuffix(name, ".sst") {
		return nil
	}
	// Damaged files make Pebble panic here and there.
	defer func() {
		if r := recover(); r != nil {
			err = panicError("verify", r)
		}
	}()
	opts := a.s.pebbleOptions(a.stop)
	opts.EnsureDefaults()
	file, err := a.s.fs.Open(a.s.fs.PathJoin(a.dir, name))
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, opts.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}
