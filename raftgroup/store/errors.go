package store

import "errors"

var (
	// ErrBatchOpen is returned by NewBatch while another batch of the store is
	// open. It is a programmer's error: a store has one writer at a time.
	ErrBatchOpen = errors.New("store: a batch is already open")

	// ErrBatchFull is returned by the writes of a batch that has BatchBytesMax:
	// such a batch can only be closed. Whoever commits batches of a sensible size
	// never meets it; Pebble would panic at 4 GiB, again at every replay of the log.
	ErrBatchFull = errors.New("store: the batch is full")

	// ErrNeedBounds is returned by DeleteRange if a bound is nil.
	ErrNeedBounds = errors.New("store: DeleteRange needs both bounds")

	// ErrEmptyKey is returned by Set for the empty key, which no store can hold:
	// Pebble's tables panic on it, long after the batch was committed. To every
	// other call the empty key is absent, or a bound below all keys.
	ErrEmptyKey = errors.New("store: empty key")

	// ErrBadStream is wrapped by the error of Receive if the stream is
	// truncated, damaged, or not of this kind of store.
	ErrBadStream = errors.New("store: bad checkpoint stream")

	// ErrStaleIterator is returned by the Close of an iterator that was made
	// from a batch and used after the batch's next write.
	ErrStaleIterator = errors.New("store: batch iterator used after a write")
)
