package pebblestore

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// firstKey is the first key in order that a store can hold.
var firstKey = []byte{0}

// batch implements store.Batch. It holds the writer's place and its generation.
type batch struct {
	s *Store
	g *generation
	b *pebble.Batch // nil once committed or closed
}

// Get implements store.Reader.
func (b *batch) Get(key []byte) ([]byte, bool, error) {
	if err := b.check(); err != nil {
		return nil, false, err
	}
	return b.s.stop.get(b.b, key)
}

// Iterate implements store.Reader.
func (b *batch) Iterate(lower, upper []byte) (store.Iterator, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if !b.g.enter() {
		return nil, store.ErrClosed
	}
	return newIterator(&b.s.stop, b.g, b.b, lower, upper)
}

// Set implements store.Batch.
func (b *batch) Set(key, value []byte) error {
	if err := b.check(); err != nil {
		return err
	}
	if len(key) == 0 {
		return store.ErrEmptyKey
	}
	if err := b.fits(len(key) + len(value)); err != nil {
		return err
	}
	return b.b.Set(key, value, nil)
}

// Delete implements store.Batch.
func (b *batch) Delete(key []byte) error {
	if err := b.check(); err != nil {
		return err
	}
	if len(key) == 0 {
		return nil // as absent as can be, and poison to a table
	}
	if err := b.fits(len(key)); err != nil {
		return err
	}
	return b.b.Delete(key, nil)
}

// DeleteRange implements store.Batch.
func (b *batch) DeleteRange(lower, upper []byte) error {
	if err := b.check(); err != nil {
		return err
	}
	if lower == nil || upper == nil {
		return store.ErrNeedBounds
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil // Pebble would keep a tombstone that is inside out
	}
	if len(lower) == 0 {
		lower = firstKey
	}
	if err := b.fits(len(lower) + len(upper)); err != nil {
		return err
	}
	return b.b.DeleteRange(lower, upper, nil)
}

// writeOverheadBytes is more than Pebble adds to one write.
const writeOverheadBytes = 16

// fits returns an error if n bytes more are too many: Pebble panics at 4 GiB.
func (b *batch) fits(n int) error {
	if b.b.Len()+n+writeOverheadBytes > b.s.opts.BatchBytesMax {
		return store.ErrBatchFull
	}
	return nil
}

// Size implements store.Batch.
func (b *batch) Size() int {
	if b.b == nil {
		return 0
	}
	return b.b.Len()
}

// Commit implements store.Batch.
func (b *batch) Commit() error {
	if err := b.check(); err != nil {
		_ = b.Close()
		return err
	}
	// The step may outlive this call, so it must not look at b.
	db, inner := b.g.db, b.b
	err := b.s.stop.write("commit", func() error { return db.Apply(inner, pebble.NoSync) })
	if err != nil {
		// Pebble may still hold on to the batch, so it is not given back.
		b.leave()
		return err
	}
	return b.Close()
}

// Close implements store.Batch.
func (b *batch) Close() (err error) {
	if b.b == nil {
		return nil
	}
	inner := b.b
	defer b.leave()
	defer b.s.stop.caught("close batch", &err)
	return inner.Close()
}

func (b *batch) leave() {
	b.b = nil
	b.s.batchOpen.Store(false)
	b.g.leave()
	<-b.s.writer
}

func (b *batch) check() error {
	if b.b == nil {
		return store.ErrClosed
	}
	return b.s.stop.err()
}
