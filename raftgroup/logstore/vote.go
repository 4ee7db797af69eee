package logstore

import (
	"bytes"
	"fmt"
)

// The names that Raft gives to its term and its vote. The stable store knows no
// others.
const (
	nameCurrentTerm  = "CurrentTerm"
	nameLastVoteTerm = "LastVoteTerm"
	nameLastVoteCand = "LastVoteCand"
)

// SetUint64 stores a number. CurrentTerm is written at once, together with the
// vote as it is, and never falls; LastVoteTerm is held for the Set of LastVoteCand
// that must follow. A held term that is not followed up is forgotten, as in a
// crash, by the next CurrentTerm: the vote was then never given.
func (s *checked) SetUint64(key []byte, value uint64) error {
	s.ballot.Lock()
	defer s.ballot.Unlock()
	switch string(key) {
	case nameCurrentTerm:
		s.ballot.holding = false
		return s.hard.updateVote(func(h *hardState) error {
			if value < h.term {
				return fmt.Errorf("%w: term %d after term %d", ErrMisuse, value, h.term)
			}
			h.term = value
			return nil
		})
	case nameLastVoteTerm:
		s.ballot.held, s.ballot.holding = value, true
		return nil
	}
	return foreign(key)
}

// Set stores a value: LastVoteCand, which completes the vote whose term was held,
// and writes both in one record.
func (s *checked) Set(key, value []byte) error {
	s.ballot.Lock()
	defer s.ballot.Unlock()
	if string(key) != nameLastVoteCand {
		return foreign(key)
	}
	if !s.ballot.holding {
		return fmt.Errorf("%w: a candidate without the term of the vote", ErrMisuse)
	}
	s.ballot.holding = false
	term := s.ballot.held
	return s.hard.updateVote(func(h *hardState) error {
		switch {
		case len(value) == 0 || len(value) > candidateBytesMax:
			return fmt.Errorf("%w: a candidate of %d bytes", ErrMisuse, len(value))
		case term == 0 || term > h.term:
			return fmt.Errorf("%w: a vote in term %d while the term is %d", ErrMisuse, term, h.term)
		case term < h.voteTerm:
			return fmt.Errorf("%w: a vote in term %d after one in term %d", ErrMisuse, term, h.voteTerm)
		case term == h.voteTerm && !bytes.Equal(value, h.candidate):
			return fmt.Errorf("%w: a second vote in term %d, for %q after %q", ErrMisuse, term, value, h.candidate)
		}
		h.voteTerm, h.candidate = term, bytes.Clone(value)
		return nil
	})
}

// GetUint64 reads a number, or ErrNotFound. It never answers a held term.
func (s *checked) GetUint64(key []byte) (uint64, error) {
	state, err := s.hard.get()
	if err != nil {
		return 0, err
	}
	var n uint64
	switch string(key) {
	case nameCurrentTerm:
		n = state.term
	case nameLastVoteTerm:
		n = state.voteTerm
	}
	if n == 0 {
		return 0, ErrNotFound
	}
	return n, nil
}

// Get reads a value, or ErrNotFound.
func (s *checked) Get(key []byte) ([]byte, error) {
	state, err := s.hard.get()
	if err != nil {
		return nil, err
	}
	if string(key) != nameLastVoteCand || state.voteTerm == 0 {
		return nil, ErrNotFound
	}
	return bytes.Clone(state.candidate), nil
}

// foreign refuses a value that Raft does not keep here, or not with this type: it
// would be covered by nothing.
func foreign(key []byte) error {
	return fmt.Errorf("%w: %q is not set this way", ErrMisuse, key)
}
