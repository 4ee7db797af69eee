package route

import (
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Limits of a session. Shards forget a session that is older than an hour (at
// the least) of cluster time; rotation long before that leaves room for clocks
// that disagree, and for operations that are under way.
const (
	SessionAgeMaxMS  = 15 * 60 * 1000
	sessionWindowMax = 1024 // numbers from the oldest outstanding one on
)

// A Session numbers the writes of one client session, and knows below which
// number all of them were answered. Operations finish in the session that they
// began in.
type Session struct {
	ID      shardcfg.SessionID
	BirthMS uint64

	next uint64 // sequence number to give out; from 1
	// outstanding numbers, ascending.
	outstanding []uint64
	abandoned   bool
	eternal     bool
}

// NewSession returns a session born at birth, in ms since 1970. An eternal one,
// for tests that choose the name, is never due for rotation. first is its first
// sequence number; 0 stands for 1.
func NewSession(id shardcfg.SessionID, birth, first uint64, eternal bool) *Session {
	return &Session{ID: id, BirthMS: birth, next: max(first, 1), eternal: eternal}
}

// Begin gives out the next sequence number.
func (s *Session) Begin() uint64 {
	seq := s.next
	s.next++
	s.outstanding = append(s.outstanding, seq)
	return seq
}

// Finish says that a number is settled: answered, or never to be executed.
func (s *Session) Finish(seq uint64) {
	if i, ok := slices.BinarySearch(s.outstanding, seq); ok {
		s.outstanding = slices.Delete(s.outstanding, i, i+1)
	}
}

// Abandon says that a number's outcome stays unknown. It is never acknowledged,
// so that the write can be tried again by its identity; the session takes no new
// writes.
func (s *Session) Abandon(uint64) { s.abandoned = true }

// AckedBelow returns the number below which all were settled.
func (s *Session) AckedBelow() uint64 {
	if len(s.outstanding) > 0 {
		return s.outstanding[0]
	}
	return s.next
}

// Due reports whether new writes belong in a new session, at now in ms since
// 1970 by the client's or the cluster's clock, whichever is later.
func (s *Session) Due(now uint64) bool {
	if s.eternal {
		return false
	}
	return s.abandoned || now > s.BirthMS+SessionAgeMaxMS ||
		s.next-s.AckedBelow() >= sessionWindowMax
}
