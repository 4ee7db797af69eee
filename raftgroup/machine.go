package raftgroup

import (
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// A StateMachine is what a group replicates. It keeps its whole state in the
// group's store; raftgroup commits the state, the applied index, term and
// configuration of an entry (or of several) in one batch.
//
// Apply and Reset are called by one goroutine, never concurrently. Everyone
// else reads the state from snapshots of the store.
type StateMachine interface {
	// Apply applies the commands of e, in order, to b, and returns one result
	// for each, in the same order. It must be deterministic: a function of the
	// state in b and of e alone. Refusing a command is a result, not an error; an
	// error says that the replica can't go on (an unreadable store, an unknown
	// kind of command) and stops it. Commands alias memory that is reused after
	// the call.
	//
	// Keys that begin with 0xFFFF are raftgroup's own; the machine leaves them
	// alone.
	Apply(b store.Batch, e *entry.Entry) (results []any, err error)

	// Reset makes the machine forget what it cached: at the start, and after a
	// received snapshot replaced the store.
	Reset(r store.Reader) error

	// Applied is called after the batch of one or more entries was committed to
	// the store and so became visible, with the index of the last; for wake-ups
	// only, and it must not block.
	Applied(index uint64)
}
