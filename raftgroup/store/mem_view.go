package store

import (
	"sync"
	"sync/atomic"
)

// copyOf is Get over a tree.
func (t tree) copyOf(key []byte) ([]byte, bool, error) {
	value, ok := t.get(key)
	if !ok {
		return nil, false, nil
	}
	return []byte(value), true, nil
}

// memView is a Snapshot: one state of a Mem, until Close.
type memView struct {
	m      *Mem
	use    *usage // nil: Adopt does not wait for this view
	tree   tree
	closed atomic.Bool
}

// Get implements Reader.
func (v *memView) Get(key []byte) ([]byte, bool, error) {
	if err := v.check(OpGet); err != nil {
		return nil, false, err
	}
	return v.tree.copyOf(key)
}

// Iterate implements Reader.
func (v *memView) Iterate(lower, upper []byte) (Iterator, error) {
	if err := v.check(OpIterate); err != nil {
		return nil, err
	}
	if v.use != nil {
		v.m.mu.Lock()
		v.use.open++
		v.m.mu.Unlock()
	}
	return newMemIterator(v.m, v.use, v.tree, lower, upper), nil
}

// Close implements Snapshot.
func (v *memView) Close() error {
	if v.closed.Swap(true) {
		return ErrClosed
	}
	v.m.leave(v.use)
	return nil
}

func (v *memView) check(op Op) error {
	if v.closed.Load() {
		return ErrClosed
	}
	return v.m.check(op)
}

// memBatch edits a tree of its own, which Commit makes the visible one.
type memBatch struct {
	m      *Mem
	use    *usage
	tree   tree
	owner  *owner
	writes int
	size   int
	closed bool
}

// Get implements Reader.
func (b *memBatch) Get(key []byte) ([]byte, bool, error) {
	if err := b.check(OpGet); err != nil {
		return nil, false, err
	}
	return b.tree.copyOf(key)
}

// Iterate implements Reader.
func (b *memBatch) Iterate(lower, upper []byte) (Iterator, error) {
	if err := b.check(OpIterate); err != nil {
		return nil, err
	}
	b.m.mu.Lock()
	b.use.open++
	b.m.mu.Unlock()
	it := newMemIterator(b.m, b.use, b.tree, lower, upper)
	it.batch, it.batchWrites = b, b.writes
	return it, nil
}

// Set implements Batch.
func (b *memBatch) Set(key, value []byte) error {
	if b.closed {
		return ErrClosed
	}
	if len(key) == 0 {
		return ErrEmptyKey
	}
	if err := b.grow(len(key) + len(value)); err != nil {
		return err
	}
	b.tree.set(b.owner, key, value)
	return nil
}

// grow counts one more write of n bytes.
func (b *memBatch) grow(n int) error {
	if b.size+n > BatchBytesMax {
		return ErrBatchFull
	}
	b.size += n
	b.writes++
	return nil
}

// Delete implements Batch.
func (b *memBatch) Delete(key []byte) error {
	if b.closed {
		return ErrClosed
	}
	if err := b.grow(len(key)); err != nil {
		return err
	}
	b.tree.delete(b.owner, key)
	return nil
}

// DeleteRange implements Batch.
func (b *memBatch) DeleteRange(lower, upper []byte) error {
	if b.closed {
		return ErrClosed
	}
	if lower == nil || upper == nil {
		return ErrNeedBounds
	}
	if err := b.grow(len(lower) + len(upper)); err != nil {
		return err
	}
	b.tree.deleteRange(b.owner, lower, upper)
	return nil
}

// Size implements Batch.
func (b *memBatch) Size() int { return b.size }

// Commit implements Batch.
func (b *memBatch) Commit() error {
	if b.closed {
		return ErrClosed
	}
	m := b.m
	m.mu.Lock()
	err := m.checkLocked(OpCommit)
	if err == nil && b.writes > 0 {
		m.commitLocked(b.tree)
	}
	m.mu.Unlock()
	b.finish()
	return err
}

// Close implements Batch.
func (b *memBatch) Close() error {
	if !b.closed {
		b.finish()
	}
	return nil
}

// finish ends the batch's right to write, to its nodes too.
func (b *memBatch) finish() {
	b.closed = true
	b.owner, b.tree = nil, tree{}
	b.m.mu.Lock()
	b.m.mu.writer = writerNone
	b.m.mu.Unlock()
	b.m.leave(b.use)
}

func (b *memBatch) check(op Op) error {
	if b.closed {
		return ErrClosed
	}
	return b.m.check(op)
}

// memCheckpoint is a frozen state of a Mem.
type memCheckpoint struct {
	view memView
}

// Reader implements Checkpoint.
func (c *memCheckpoint) Reader() Reader { return &c.view }

// Size implements Checkpoint.
func (c *memCheckpoint) Size() int64 { return c.view.tree.streamSize() }

// Close implements Checkpoint. A second Close does nothing.
func (c *memCheckpoint) Close() error {
	c.view.closed.Store(true)
	return nil
}

// memIncoming is a received state, in use once adopted.
type memIncoming struct {
	view memView
	used sync.Mutex // held for good by whoever uses the Incoming up
}

// Reader implements Incoming.
func (in *memIncoming) Reader() Reader { return &in.view }

// Adopt implements Incoming.
func (in *memIncoming) Adopt() error {
	if !in.used.TryLock() {
		return ErrClosed
	}
	in.view.closed.Store(true)
	return in.view.m.adopt(in.view.tree)
}

// Discard implements Incoming.
func (in *memIncoming) Discard() error {
	if in.used.TryLock() {
		in.view.closed.Store(true)
	}
	return nil
}
