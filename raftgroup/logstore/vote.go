package logstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The names that Raft gives to its term and its vote.
const (
	nameCurrentTerm  = "CurrentTerm"
	nameLastVoteTerm = "LastVoteTerm"
	nameLastVoteCand = "LastVoteCand"
)

// keyVoteRecord is where the three are kept as one value.
var keyVoteRecord = []byte("shoal.vote")

// candidateBytesMax bounds the name of a candidate (an encoded address).
const candidateBytesMax = 4 << 10

// A voteRecord is Raft's current term and last vote. On disk it is, in
// big-endian order:
//
//	format    u8   1
//	term      u64  current term; 0 never set
//	voteTerm  u64  term of the last vote; 0 never voted
//	length    u16  of the candidate
//	candidate bytes
//	crc       u32  CRC32C of everything before it
type voteRecord struct {
	term      uint64
	voteTerm  uint64
	candidate []byte
}

const (
	voteFormat      = 1
	voteHeaderBytes = 1 + 8 + 8 + 2
	voteCRCBytes    = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (v voteRecord) encode() []byte {
	b := make([]byte, 0, voteHeaderBytes+len(v.candidate)+voteCRCBytes)
	b = append(b, voteFormat)
	b = binary.BigEndian.AppendUint64(b, v.term)
	b = binary.BigEndian.AppendUint64(b, v.voteTerm)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v.candidate)))
	b = append(b, v.candidate...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeVote(b []byte) (voteRecord, error) {
	if len(b) < voteHeaderBytes+voteCRCBytes {
		return voteRecord{}, fmt.Errorf("%w: term and vote are cut off at %d bytes", ErrCorrupt, len(b))
	}
	body := b[:len(b)-voteCRCBytes]
	if got, want := crc32.Checksum(body, castagnoli), binary.BigEndian.Uint32(b[len(body):]); got != want {
		return voteRecord{}, fmt.Errorf("%w: term and vote have checksum %08x, want %08x", ErrCorrupt, got, want)
	}
	if body[0] != voteFormat {
		return voteRecord{}, fmt.Errorf("%w: term and vote are of format %d", ErrCorrupt, body[0])
	}
	v := voteRecord{term: binary.BigEndian.Uint64(body[1:]), voteTerm: binary.BigEndian.Uint64(body[9:])}
	if n := int(binary.BigEndian.Uint16(body[17:])); n != len(body)-voteHeaderBytes {
		return voteRecord{}, fmt.Errorf("%w: candidate has %d bytes, says %d", ErrCorrupt, len(body)-voteHeaderBytes, n)
	}
	if v.voteTerm > 0 {
		v.candidate = bytes.Clone(body[voteHeaderBytes:])
	}
	return v, nil
}

// SetUint64 stores a number. Of the names that Raft uses, CurrentTerm is
// written at once, together with the vote as it is, and never falls;
// LastVoteTerm is held for the Set of LastVoteCand that must follow. A held term
// that is not followed up is forgotten, as in a crash, by the next CurrentTerm:
// the vote was then never given.
func (s *checked) SetUint64(key []byte, value uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failed != nil {
		return s.mu.failed
	}
	switch string(key) {
	case nameCurrentTerm:
		s.mu.holding = false
		if value < s.mu.vote.term {
			return fmt.Errorf("%w: term %d after term %d", ErrMisuse, value, s.mu.vote.term)
		}
		next := s.mu.vote
		next.term = value
		return s.writeVoteLocked(next)
	case nameLastVoteTerm:
		s.mu.held, s.mu.holding = value, true
		return nil
	}
	if err := checkForeign(key); err != nil {
		return err
	}
	return s.b.SetUint64(key, value)
}

// Set stores a value. LastVoteCand completes the vote whose term was held, and
// writes both in one transaction.
func (s *checked) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failed != nil {
		return s.mu.failed
	}
	if string(key) != nameLastVoteCand {
		if err := checkForeign(key); err != nil {
			return err
		}
		return s.b.Set(key, value)
	}
	if !s.mu.holding {
		return fmt.Errorf("%w: a candidate without the term of the vote", ErrMisuse)
	}
	s.mu.holding = false
	next, v := s.mu.vote, s.mu.vote
	next.voteTerm, next.candidate = s.mu.held, bytes.Clone(value)
	switch {
	case len(value) == 0 || len(value) > candidateBytesMax:
		return fmt.Errorf("%w: a candidate of %d bytes", ErrMisuse, len(value))
	case next.voteTerm == 0 || next.voteTerm > v.term:
		return fmt.Errorf("%w: a vote in term %d while the term is %d", ErrMisuse, next.voteTerm, v.term)
	case next.voteTerm < v.voteTerm:
		return fmt.Errorf("%w: a vote in term %d after one in term %d", ErrMisuse, next.voteTerm, v.voteTerm)
	case next.voteTerm == v.voteTerm && !bytes.Equal(value, v.candidate):
		return fmt.Errorf("%w: a second vote in term %d, for %q after %q", ErrMisuse, v.voteTerm, value, v.candidate)
	}
	return s.writeVoteLocked(next)
}

// writeVoteLocked makes next durable. After a failed write nobody knows what a
// restart would read, so the store answers nothing about votes any more.
func (s *checked) writeVoteLocked(next voteRecord) error {
	if err := s.b.Set(keyVoteRecord, next.encode()); err != nil {
		s.mu.failed = fmt.Errorf("write term %d and vote in term %d: %w", next.term, next.voteTerm, err)
		return s.mu.failed
	}
	s.mu.vote = next
	return nil
}

// GetUint64 reads a number, or ErrNotFound. It never answers a held term.
func (s *checked) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failed != nil {
		return 0, s.mu.failed
	}
	var n uint64
	switch string(key) {
	case nameCurrentTerm:
		n = s.mu.vote.term
	case nameLastVoteTerm:
		n = s.mu.vote.voteTerm
	default:
		n, err := s.b.GetUint64(key)
		if isNotFound(err) {
			err = ErrNotFound
		}
		return n, err
	}
	if n == 0 {
		return 0, ErrNotFound
	}
	return n, nil
}

// Get reads a value, or ErrNotFound.
func (s *checked) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failed != nil {
		return nil, s.mu.failed
	}
	if string(key) == nameLastVoteCand {
		if s.mu.vote.voteTerm == 0 {
			return nil, ErrNotFound
		}
		return bytes.Clone(s.mu.vote.candidate), nil
	}
	v, err := s.b.Get(key)
	if isNotFound(err) {
		err = ErrNotFound
	}
	return v, err
}

// checkForeign refuses a write to the record by its name, and to Raft's names
// with a type that Raft never uses for them.
func checkForeign(key []byte) error {
	switch string(key) {
	case nameCurrentTerm, nameLastVoteTerm, nameLastVoteCand, string(keyVoteRecord):
		return fmt.Errorf("%w: %q is not set this way", ErrMisuse, key)
	}
	return nil
}
