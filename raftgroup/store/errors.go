package store

import "errors"

var (
	// ErrBatchOpen is returned by NewBatch while another batch of the store is
	// open. It is a programmer's error: a store has one writer at a time.
	ErrBatchOpen = errors.New("store: a batch is already open")

	// ErrNeedBounds is returned by DeleteRange if a bound is nil.
	ErrNeedBounds = errors.New("store: DeleteRange needs both bounds")

	// ErrBadStream is wrapped by the error of Receive if the stream is
	// truncated, damaged, or not of this kind of store.
	ErrBadStream = errors.New("store: bad checkpoint stream")

	// ErrStaleIterator is returned by the Close of an iterator that was made
	// from a batch and used after the batch's next write.
	ErrStaleIterator = errors.New("store: batch iterator used after a write")
)
