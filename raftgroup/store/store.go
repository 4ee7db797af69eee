// Package store is the ordered key/value store under every replicated machine:
// get, iterate, snapshot, atomic batch, range delete. It is an interface with
// one in-memory implementation (Mem, copy-on-write, which models durable and
// volatile state for simulation) and one real one (package pebblestore). One
// contract suite (package storetest) runs both.
//
// Row 0 of the layers: it imports the standard library only, starts no
// goroutine, and reads no clock.
//
// Ownership of slices, everywhere in this package: the store copies what it
// keeps, so a caller may reuse every slice it passed in once the call returned;
// slices returned by Get belong to the caller; slices returned by an Iterator's
// Key and Value are valid only until its next call.
package store

import (
	"errors"
	"io"
)

// ErrClosed is returned by every call on a closed store, snapshot or iterator.
var ErrClosed = errors.New("store: closed")

// A Reader reads one consistent state. Keys are ordered as bytes.Compare
// orders them.
//
// An error from any call is an environmental failure (a damaged block, a
// closed store), never "not found": a replica that meets one must stop.
type Reader interface {
	// Get returns a copy of the value of key, and whether key is present. An
	// empty value is present, and returned as a non-nil empty slice.
	Get(key []byte) (value []byte, ok bool, err error)

	// Iterate returns an iterator over lower <= key < upper, positioned before
	// the first key. A nil bound is open. The caller closes it.
	Iterate(lower, upper []byte) (Iterator, error)
}

// An Iterator walks the keys of a Reader upwards, over the state as it was when
// Iterate was called. One goroutine at a time may use it.
//
//	for it.Next() { use(it.Key(), it.Value()) }
//	if err := it.Close(); err != nil { ... }
type Iterator interface {
	// Next moves to the next key and reports whether there is one.
	Next() bool
	// SeekGE moves to the first key at or after key (and within the bounds) and
	// reports whether there is one. Next then moves past it.
	SeekGE(key []byte) bool
	// Key is valid until the next call on the iterator.
	Key() []byte
	// Value is valid until the next call on the iterator.
	Value() []byte
	// Close frees the iterator and returns the first error that it met.
	Close() error
}

// A Snapshot is a Reader over a state that no later batch changes. Any number
// of goroutines may read it. It must be closed soon: it holds back compaction,
// and Adopt waits for it.
type Snapshot interface {
	Reader
	Close() error
}

// BatchBytesMax bounds what a batch may hold, as Batch.Size counts.
const BatchBytesMax = 1 << 30

// A Batch collects writes that become visible, and later durable, together. It
// is also a Reader of the store as it will be once the batch is committed:
// its own writes are seen. An iterator made from a batch sees the writes made
// before Iterate and may not be used after the next write. Not safe for
// concurrent use.
type Batch interface {
	Reader
	// Set, Delete and DeleteRange return ErrBatchFull where they would lead beyond
	// BatchBytesMax.
	Set(key, value []byte) error
	// Delete of an absent key does nothing.
	Delete(key []byte) error
	// DeleteRange deletes every lower <= key < upper. Both bounds are needed.
	DeleteRange(lower, upper []byte) error
	// Size is the number of bytes that were written into the batch: of keys, of
	// values and of bounds, overwritten ones too, and what the store adds to them.
	Size() int
	// Commit makes the batch visible in one step. It is durable only after the
	// next successful Sync (or once the store chose to flush it); batches become
	// durable in the order of their commits, never one without its forerunners.
	// The batch may not be used afterwards.
	Commit() error
	// Close frees a batch; after Commit it does nothing.
	Close() error
}

// A Store is the state of one replica.
//
// Any number of goroutines may read; one at a time may hold a Batch.
type Store interface {
	Reader
	NewSnapshot() (Snapshot, error)
	NewBatch() (Batch, error)

	// Sync returns once everything committed before the call is durable. An
	// error means that nothing may be assumed: stop, never retry.
	Sync() error

	// Checkpoint freezes the present state, durably, for streaming to another
	// replica. It costs no copy of the data. The caller closes it, soon.
	Checkpoint() (Checkpoint, error)

	// Receive reads a stream that a Checkpoint wrote, checks it completely and
	// stores it aside, durably, without touching the present state.
	Receive(r io.Reader) (Incoming, error)

	// DiskUsage is the store's size on its medium in bytes, approximately.
	DiskUsage() int64

	// Close frees the store. What was committed and not synced may be lost.
	Close() error
}

// A Checkpoint is a frozen state in a form that can be streamed.
type Checkpoint interface {
	// Reader reads the frozen state, for the index it stands at.
	Reader() Reader
	// Size is the exact number of bytes that WriteTo will write.
	Size() int64
	// WriteTo writes the stream: the store's own self-checking format, accepted
	// only by Receive of the same kind of store.
	WriteTo(w io.Writer) (int64, error)
	Close() error
}

// Incoming is a received state that is not yet in use.
type Incoming interface {
	// Reader reads the received state, so that its index can be judged before
	// it replaces anything.
	Reader() Reader
	// Adopt replaces the store's whole state by this one, atomically and
	// durably: after a crash the store holds either. It waits until open
	// snapshots and iterators of the old state are closed. Incoming is used up.
	Adopt() error
	// Discard deletes the received state. After Adopt it does nothing.
	Discard() error
}

// PrefixEnd returns the smallest key above every key that begins with prefix,
// for use as an upper bound; nil when there is none (prefix all 0xFF or empty).
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
