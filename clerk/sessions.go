package clerk

import (
	"slices"
	"sync"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A sessionBook gives writes their identities. New writes go to the current
// session; an older one lives on only in the operations that began in it.
type sessionBook struct {
	mu struct {
		sync.Mutex
		current *route.Session // nil: none yet
		// clock is the newest cluster clock that any server told, in ms since 1970.
		clock uint64
		// limit is the clock of the server that last refused a session because it
		// was born in its future, in ms since 1970, and limitAt the client's clock
		// then: nothing is dated later than that server's clock is by now. 0: none.
		limit, limitAt uint64
	}
}

func (b *sessionBook) init(explicit Identity) {
	if !explicit.IsZero() {
		b.mu.current = route.NewSession(explicit.Session, explicit.BirthMS, explicit.Sequence, true)
	}
}

// begin gives a write its session and sequence number. now is the client's
// clock.
func (b *sessionBook) begin(now uint64) (*route.Session, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now = b.dateLocked(now)
	if b.mu.current == nil || b.mu.current.Due(now) {
		b.mu.current = route.NewSession(draw128[shardcfg.SessionID](), now, 1, false)
	}
	return b.mu.current, b.mu.current.Begin()
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

// refused ends a session that a server refused: the next write begins another.
// ahead says that it was born in the future of the server's clock, else it was
// too old. now is the client's clock.
func (b *sessionBook) refused(s *route.Session, sequence uint64, ahead bool, clock, now uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Finish(sequence)
	b.mu.limit, b.mu.limitAt = 0, 0
	if ahead {
		b.mu.limit, b.mu.limitAt = clock, now
	}
	if b.mu.current == s {
		b.mu.current = nil
	}
}

// observe notes a cluster clock that a server told.
func (b *sessionBook) observe(clock uint64) {
	b.mu.Lock()
	b.mu.clock = max(b.mu.clock, clock)
	b.mu.Unlock()
}

// message is what a request says of a session.
func (b *sessionBook) message(s *route.Session) *kvpb.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &kvpb.Session{Id: slices.Clone(s.ID[:]), BirthMs: s.BirthMS, AckedBelow: s.AckedBelow()}
}

// birth dates something that begins now, by the client's clock.
func (b *sessionBook) birth(now uint64) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dateLocked(now)
}

// dateLocked dates something that begins now: by the later of the client's clock
// and the newest cluster clock, but not in the future of a server that refused
// that. Clocks of groups may differ by more than a session may lie ahead; the
// newest of them must not shut out the others.
func (b *sessionBook) dateLocked(now uint64) uint64 {
	date := max(now, b.mu.clock)
	if b.mu.limit > 0 {
		date = min(date, b.mu.limit+now-min(now, b.mu.limitAt))
	}
	return date
}
