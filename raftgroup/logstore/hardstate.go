package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
)

// candidateBytesMax bounds the name of a candidate (an encoded address).
const candidateBytesMax = 2 << 10

// A hardState is what a replica must never take back: its term, its vote, and
// where its log ends. On disk it is, in big-endian order:
//
//	magic      u32  "SHHS"
//	format     u8   1
//	sequence   u64  rises by one with each write
//	term       u64  current term; 0 never set
//	voteTerm   u64  term of the last vote; 0 never voted
//	first      u64  the log's lowest index; 0 no entries
//	last       u64  the log's highest index; 0 no entries
//	sum        u32  the checksum of the entry last, which links it to all before
//	generation u32  how often the log was truncated
//	length     u16  of the candidate
//	candidate  bytes
//	crc        u32  CRC32C of everything before it
type hardState struct {
	term      uint64
	voteTerm  uint64
	candidate []byte
	log       extent
}

// An extent is where a log begins and ends.
type extent struct {
	first, last uint64
	sum         uint32
	// generation rises when entries are truncated. It tells an entry that was
	// appended just now from one that was truncated and is still there.
	generation uint32
}

const (
	hardStateMagic       = "SHHS"
	hardStateFormat      = 1
	hardStateHeaderBytes = 4 + 1 + 8 + 2*8 + 2*8 + 2*4 + 2
	hardStateCRCBytes    = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h hardState) sameVote(o hardState) bool {
	return h.term == o.term && h.voteTerm == o.voteTerm && bytes.Equal(h.candidate, o.candidate)
}

func (h hardState) encode(sequence uint64) []byte {
	b := make([]byte, 0, hardStateHeaderBytes+len(h.candidate)+hardStateCRCBytes)
	b = append(b, hardStateMagic...)
	b = append(b, hardStateFormat)
	b = binary.BigEndian.AppendUint64(b, sequence)
	b = binary.BigEndian.AppendUint64(b, h.term)
	b = binary.BigEndian.AppendUint64(b, h.voteTerm)
	b = binary.BigEndian.AppendUint64(b, h.log.first)
	b = binary.BigEndian.AppendUint64(b, h.log.last)
	b = binary.BigEndian.AppendUint32(b, h.log.sum)
	b = binary.BigEndian.AppendUint32(b, h.log.generation)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.candidate)))
	b = append(b, h.candidate...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeHardState reads a record at the start of b; what follows it is ignored.
func decodeHardState(b []byte) (h hardState, sequence uint64, err error) {
	if len(b) < hardStateHeaderBytes+hardStateCRCBytes || string(b[:4]) != hardStateMagic || b[4] != hardStateFormat {
		return hardState{}, 0, fmt.Errorf("%w: the hard state has no header", ErrCorrupt)
	}
	end := hardStateHeaderBytes + int(binary.BigEndian.Uint16(b[hardStateHeaderBytes-2:]))
	if end > len(b)-hardStateCRCBytes {
		return hardState{}, 0, fmt.Errorf("%w: the hard state is cut off", ErrCorrupt)
	}
	if got, want := crc32.Checksum(b[:end], castagnoli), binary.BigEndian.Uint32(b[end:]); got != want {
		return hardState{}, 0, fmt.Errorf("%w: the hard state has checksum %08x, want %08x", ErrCorrupt, got, want)
	}
	h.term, h.voteTerm = binary.BigEndian.Uint64(b[13:]), binary.BigEndian.Uint64(b[21:])
	h.log = extent{
		first:      binary.BigEndian.Uint64(b[29:]),
		last:       binary.BigEndian.Uint64(b[37:]),
		sum:        binary.BigEndian.Uint32(b[45:]),
		generation: binary.BigEndian.Uint32(b[49:]),
	}
	if h.voteTerm > 0 {
		h.candidate = bytes.Clone(b[hardStateHeaderBytes:end])
	}
	return h, binary.BigEndian.Uint64(b[5:]), nil
}

// slots are two places of slotBytes each, of which a write of one never touches
// the other.
type slots interface {
	read() ([2][]byte, error)
	// write returns when the bytes are durable.
	write(slot uint64, b []byte) error
	Close() error
}

// slotBytes keeps the slots apart by as much as any disk or page cache writes at
// once.
const slotBytes = 4 << 10

// hardStates keeps the hard state in two slots, which are written in turn, so
// that a write that is cut off leaves the one before it.
//
// Term and vote exist nowhere else. So they are written to both slots, one after
// the other, before anybody hears of them: if one of them rots later, the other
// still has them. The extent of the log is written to one slot. If just that one
// rots, the other tells of an earlier one, and the log itself is sound; if the log
// rots, the extent tells.
type hardStates struct {
	slots slots

	mu struct {
		// Held across a write: the next one is made of what this one left.
		sync.Mutex
		state    hardState // as it is on disk
		sequence uint64    // of the newest slot
		failed   error     // once a write failed: nobody knows what is on disk
	}
}

// openHardStates reads what is there. It returns a warning if one of the slots can't
// be read: a write of it was cut off, or it rotted. The state is the right one
// in either case.
func openHardStates(s slots) (h *hardStates, warning, err error) {
	found, err := s.read()
	if err != nil {
		return nil, nil, fmt.Errorf("read the hard state: %w", err)
	}
	h = &hardStates{slots: s}
	var states [2]hardState
	var sequences [2]uint64
	var bad [2]error
	for i, b := range found {
		states[i], sequences[i], bad[i] = decodeHardState(b)
		if bad[i] == nil && sequences[i]%2 != uint64(i) {
			bad[i] = fmt.Errorf("%w: the hard state of slot %d is in slot %d", ErrCorrupt, sequences[i]%2, i)
		}
	}
	newest := 0
	switch {
	case bad[0] != nil && bad[1] != nil:
		return nil, nil, fmt.Errorf("both copies: %w", errors.Join(bad[0], bad[1]))
	case bad[0] != nil:
		newest = 1
	case bad[1] != nil:
	case sequences[0] == sequences[1]+1:
	case sequences[1] == sequences[0]+1:
		newest = 1
	default:
		return nil, nil, fmt.Errorf("%w: the copies of the hard state are number %d and %d: a write was lost", ErrCorrupt, sequences[0], sequences[1])
	}
	h.mu.state, h.mu.sequence = states[newest], sequences[newest]
	if other := 1 - newest; bad[other] != nil {
		warning = bad[other]
	} else if states[other].sameVote(states[newest]) {
		return h, nil, nil
	}
	// What was read may be acted on from now on, so it must be there twice.
	return h, warning, h.update(func(*hardState) {})
}

func (h *hardStates) get() (hardState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.state, h.mu.failed
}

// update changes the state, durably. After a failed write nothing is answered or
// written any more.
func (h *hardStates) update(change func(*hardState)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.updateLocked(change)
}

// updateVote is update for term and vote. check may refuse the change; its error
// is returned, and changes nothing.
func (h *hardStates) updateVote(change func(*hardState) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.failed != nil {
		return h.mu.failed
	}
	next := h.mu.state
	if err := change(&next); err != nil {
		return err
	}
	set := func(s *hardState) { *s = next }
	if err := h.updateLocked(set); err != nil {
		return err
	}
	return h.updateLocked(set)
}

func (h *hardStates) updateLocked(change func(*hardState)) error {
	if h.mu.failed != nil {
		return h.mu.failed
	}
	next := h.mu.state
	change(&next)
	sequence := h.mu.sequence + 1
	if err := h.slots.write(sequence%2, next.encode(sequence)); err != nil {
		h.mu.failed = fmt.Errorf("write the hard state (term %d, log up to %d): %w", next.term, next.log.last, err)
		return h.mu.failed
	}
	h.mu.state, h.mu.sequence = next, sequence
	return nil
}
