package route

import "github.com/shoalkv/shoal/shardctrler/shardcfg"

// A Book gives a client's writes their identities. New writes go to the current
// session; an older one lives on only in the operations that began in it. The
// zero Book has no session yet. All times are in ms since 1970; now is always
// the client's own clock.
type Book struct {
	current *Session // nil: none yet
	// clock is the newest cluster clock that any server told.
	clock uint64
	// limit is the clock of the server that last refused a session, once one did
	// because it was born in its future, and limitAt the client's clock then:
	// nothing is dated later than that server's clock is by now. 0: none.
	limit, limitAt uint64
}

// Use makes s the current session.
func (b *Book) Use(s *Session) { b.current = s }

// Begin gives a write its session and sequence number; draw names a new
// session.
func (b *Book) Begin(now uint64, draw func() shardcfg.SessionID) (*Session, uint64) {
	now = b.Date(now)
	if b.current == nil || b.current.Due(now) {
		b.current = NewSession(draw(), now, 1, false)
	}
	return b.current, b.current.Begin()
}

// Refused ends a session that a server refused: the next write begins another.
// ahead says that it was born in the future of the server's clock, else it was
// too old. clock is the server's; if the session was too old, it is at least the
// shard's floor.
//
// A floor may be far ahead of its group's clock and far behind the newest clock,
// because it came with its shard from a group whose clock was wrong. So who was
// too young for one server and is then too old for one must not fall back on the
// newest clock: it would be too young again, and so on.
func (b *Book) Refused(s *Session, seq uint64, ahead bool, clock, now uint64) {
	s.Finish(seq)
	if ahead || b.limit > 0 {
		b.limit, b.limitAt = clock, now
	}
	if b.current == s {
		b.current = nil
	}
}

// Observe notes a cluster clock that a server told.
func (b *Book) Observe(clock uint64) { b.clock = max(b.clock, clock) }

// Date dates something that begins now: by the later of the client's clock and
// the newest cluster clock, but not in the future of a server that refused that.
// Clocks of groups may differ by more than a session may lie ahead; the newest of
// them must not shut out the others.
func (b *Book) Date(now uint64) uint64 {
	date := max(now, b.clock)
	if b.limit > 0 {
		date = min(date, b.limit+now-min(now, b.limitAt))
	}
	return date
}
