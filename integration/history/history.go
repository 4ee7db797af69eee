// Package history records what clients did to a cluster and judges it: per-key
// linearizability with porcupine, and append tokens exactly once.
//
// It stands beside the product: it knows keys, values and the three families of
// outcomes, but no package of the store. A Recorder may be used by any number of
// goroutines; a History is judged when all of them are done.
package history

import (
	"sync"
	"time"
)

// Kind is what an operation does.
type Kind uint8

// The kinds of operations.
const (
	Get Kind = iota + 1
	Put
	Append
	Delete
	// PutIf is a put that takes effect only at the version IfVersion; 0: absent.
	PutIf
)

// Outcome is what the client learned.
type Outcome uint8

const (
	// Done: the operation was executed once, and the result fields hold.
	Done Outcome = iota + 1
	// NotDone: the operation had no effect and never will.
	NotDone
	// Unknown: it was executed, was not, or will yet be.
	Unknown
)

// An Operation is one call of one client.
type Operation struct {
	Client int
	Kind   Kind
	Key    string
	// Value is what was put or appended.
	Value string
	// IfVersion is PutIf's condition.
	IfVersion uint64

	// Call and Return are in ns on the recorder's one monotonic clock.
	Call, Return int64
	Outcome      Outcome

	// Results, where Outcome is Done.

	// Found is false where a get or delete met no key.
	Found bool
	// Matched is false where PutIf's condition did not hold; Version is then the
	// version that the key had, 0 if it was absent.
	Matched bool
	// Read is what a get returned. A Recorder keeps of a long one its digest,
	// which the judge goes by, and as much of the text as a picture shows.
	Read string
	// Version is the key's version after a put, append or PutIf, and of a get.
	Version uint64
	// Length is what an append returned: the bytes of the value afterwards.
	Length uint64

	// readSum is the digest of what was read, where Read is a part of it only;
	// its length is above 0 then.
	readSum valueSum
}

// A Recorder collects operations.
type Recorder struct {
	start time.Time
	mu    struct {
		sync.Mutex
		operations []Operation
	}
}

// NewRecorder returns an empty recorder; its clock starts now.
func NewRecorder() *Recorder { return &Recorder{start: time.Now()} }

// Now is the recorder's clock, for Call and Return.
func (r *Recorder) Now() int64 { return int64(time.Since(r.start)) }

// Add records a finished operation. It keeps less than 400 bytes of it, however
// long the value that was read.
func (r *Recorder) Add(op Operation) {
	if len(op.Read) > shownBytesMax {
		op.readSum = valueSum{}.add(op.Read)
		op.Read = short(op.Read)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.operations = append(r.mu.operations, op)
}

// History returns what was recorded so far. The caller may not change it.
func (r *Recorder) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.operations[:len(r.mu.operations):len(r.mu.operations)]
}

// A History is a set of finished operations, in any order.
type History []Operation

// Count returns how many operations ended with an outcome.
func (h History) Count(o Outcome) int {
	n := 0
	for i := range h {
		if h[i].Outcome == o {
			n++
		}
	}
	return n
}
