// Package transfer copies keys between a store and files: a directory with a key
// per file, or lines of JSON.
//
// Import and Export own the goroutines that they start, and wait for them. The
// store is the two consumer interfaces Putter and Scanner. It imports the
// standard library, golang.org/x/sync and shardcfg (for the limits of keys and
// values).
package transfer

import (
	"context"
	"errors"
	"sync/atomic"
)

// A Putter is where Import writes to.
type Putter interface {
	// Put sets a key. An error that matches ErrSkip says that this record can't
	// be stored, and that others can; any other error ends the import.
	Put(ctx context.Context, key, value []byte) error
}

// A Scanner is what Export reads from.
type Scanner interface {
	// Scan calls each for every key with the prefix, in any order; value is nil
	// with keysOnly. It ends at the first error of each, and returns it.
	Scan(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error
}

// ErrSkip marks a record that can't be stored for what it is.
var ErrSkip = errors.New("not imported")

// Live is what has been copied so far, for a progress display. It is safe for
// concurrent use.
type Live struct {
	keys, bytes atomic.Uint64
	done, total atomic.Uint64
}

// Keys is how many keys were copied.
func (l *Live) Keys() uint64 { return l.keys.Load() }

// Bytes is the size of the values that were copied.
func (l *Live) Bytes() uint64 { return l.bytes.Load() }

// Progress is how much of the work is done, in a unit of its own. Total is 0
// while it is not known.
func (l *Live) Progress() (done, total uint64) { return l.done.Load(), l.total.Load() }

func (l *Live) add(valueBytes int) {
	l.keys.Add(1)
	l.bytes.Add(uint64(valueBytes))
}
