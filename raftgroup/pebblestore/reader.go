package pebblestore

import (
	"bytes"
	"io"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// source is what a database, a snapshot and a batch of Pebble have in common.
type source interface {
	Get(key []byte) (value []byte, closer io.Closer, err error)
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// get copies one value out of src.
func (f *failStop) get(src source, key []byte) (value []byte, ok bool, err error) {
	defer f.caught("get", &err)
	found, closer, err := src.Get(key)
	if isNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, f.readError("get", err)
	}
	value = make([]byte, len(found))
	copy(value, found)
	if err := closer.Close(); err != nil {
		return nil, false, f.readError("get", err)
	}
	return value, true, nil
}

// snapshot implements store.Snapshot.
type snapshot struct {
	stop   *failStop
	g      *generation
	snap   *pebble.Snapshot
	closed atomic.Bool
}

// Get implements store.Reader.
func (s *snapshot) Get(key []byte) ([]byte, bool, error) {
	if err := s.check(); err != nil {
		return nil, false, err
	}
	return s.stop.get(s.snap, key)
}

// Iterate implements store.Reader.
func (s *snapshot) Iterate(lower, upper []byte) (store.Iterator, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if !s.g.enter() {
		return nil, store.ErrClosed
	}
	return newIterator(s.stop, s.g, s.snap, lower, upper)
}

// Close implements store.Snapshot.
func (s *snapshot) Close() (err error) {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	defer s.g.leave()
	defer s.stop.caught("close snapshot", &err)
	return s.snap.Close()
}

func (s *snapshot) check() error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return s.stop.err()
}

// iterator implements store.Iterator. It holds its generation until Close.
type iterator struct {
	stop *failStop
	g    *generation
	it   *pebble.Iterator
	opts pebble.IterOptions
	err  error

	started bool
	valid   bool
	void    bool // the bounds let nothing through
	closed  bool
}

// newIterator takes over the caller's hold on g, also if it fails.
func newIterator(stop *failStop, g *generation, src source, lower, upper []byte) (it *iterator, err error) {
	it = &iterator{stop: stop, g: g}
	if len(lower) > 0 {
		it.opts.LowerBound = lower
	}
	if upper != nil {
		it.opts.UpperBound = upper
		if it.void = bytes.Compare(lower, upper) >= 0; it.void {
			// Pebble expects sane bounds, and takes an empty one for an open one.
			it.opts.LowerBound, it.opts.UpperBound = nil, []byte{0}
		}
	}
	defer func() {
		if err != nil {
			g.leave()
		}
	}()
	defer stop.caught("iterate", &err)
	if it.it, err = src.NewIter(&it.opts); err != nil {
		return nil, stop.readError("iterate", err)
	}
	return it, nil
}

// Next implements store.Iterator.
func (it *iterator) Next() bool {
	if !it.usable() {
		return false
	}
	defer it.stop.caught("iterate", &it.err)
	switch {
	case !it.started:
		it.started = true
		it.valid = it.it.First()
	case it.valid:
		it.valid = it.it.Next()
	}
	return it.valid
}

// SeekGE implements store.Iterator.
func (it *iterator) SeekGE(key []byte) bool {
	if !it.usable() {
		return false
	}
	defer it.stop.caught("iterate", &it.err)
	it.started = true
	if len(key) == 0 {
		// Every key is at or after the empty one; Pebble's own checks, which a race
		// build switches on, panic on it.
		it.valid = it.it.First()
	} else {
		it.valid = it.it.SeekGE(key)
	}
	return it.valid
}

func (it *iterator) usable() bool {
	if it.closed || it.void || it.err != nil {
		return false
	}
	if it.err = it.stop.err(); it.err != nil {
		it.valid = false
	}
	return it.err == nil
}

// Key implements store.Iterator.
func (it *iterator) Key() []byte {
	if !it.valid || it.closed {
		return nil
	}
	return it.it.Key()
}

// Value implements store.Iterator.
func (it *iterator) Value() []byte {
	if !it.valid || it.closed {
		return nil
	}
	value, err := it.it.ValueAndErr()
	if err != nil {
		it.err = it.stop.readError("iterate", err)
		it.valid = false
		return nil
	}
	return value
}

// Close implements store.Iterator.
func (it *iterator) Close() error {
	if it.closed {
		return store.ErrClosed
	}
	it.closed = true
	defer it.g.leave()
	if err := it.closeInner(); err != nil && it.err == nil {
		it.err = it.stop.readError("iterate", err)
	}
	return it.err
}

func (it *iterator) closeInner() (err error) {
	defer it.stop.caught("iterate", &err)
	return it.it.Close()
}
