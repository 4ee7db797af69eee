package clerk

import (
	"slices"
	"sync"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A sessionBook guards the book of sessions, which route decides about.
type sessionBook struct {
	mu struct {
		sync.Mutex
		book route.Book
	}
}

func (b *sessionBook) init(explicit Identity) {
	if !explicit.IsZero() {
		b.mu.book.Use(route.NewSession(explicit.Session, explicit.BirthMS, explicit.Sequence, true))
	}
}

// begin gives a write its session and sequence number. now is the client's
// clock.
func (b *sessionBook) begin(now uint64) (*route.Session, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.book.Begin(now, draw128[shardcfg.SessionID])
}

// finish settles a write's number, or abandons it.
func (b *sessionBook) finish(s *route.Session, sequence uint64, settled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if settled {
		s.Finish(sequence)
	} else {
		s.Abandon(sequence)
	}
}

// refused ends a session that a server refused.
func (b *sessionBook) refused(s *route.Session, sequence uint64, ahead bool, clock, now uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.book.Refused(s, sequence, ahead, clock, now)
}

// observe notes a cluster clock that a server told.
func (b *sessionBook) observe(clock uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.book.Observe(clock)
}

// message is what a request says of a session.
func (b *sessionBook) message(s *route.Session) *kvpb.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &kvpb.Session{Id: slices.Clone(s.ID[:]), BirthMs: s.BirthMS, AckedBelow: s.AckedBelow()}
}
