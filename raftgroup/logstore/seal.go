package logstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// sealBytes is the length of what a stored entry carries behind its extensions:
//
//	previous   u32  the checksum of the entry before it in the log; 0: there was none
//	generation u32  how often the log had been truncated when it was appended
//	sum        u32  its own checksum, which covers the previous one
//
// bbolt checks only its meta pages and raft-boltdb nothing, and the entries that
// Raft writes for itself have no checksum of their own.
const sealBytes = 4 + 4 + 4

// A mark is what a seal says.
type mark struct{ previous, generation, sum uint32 }

// seal returns a copy of log that carries its checksum, and the checksum. The copy
// shares log's data.
func seal(log *raft.Log, previous, generation uint32) (*raft.Log, uint32) {
	sum := checksum(log, previous, generation)
	sealed := *log
	sealed.Extensions = make([]byte, 0, len(log.Extensions)+sealBytes)
	sealed.Extensions = append(sealed.Extensions, log.Extensions...)
	sealed.Extensions = binary.BigEndian.AppendUint32(sealed.Extensions, previous)
	sealed.Extensions = binary.BigEndian.AppendUint32(sealed.Extensions, generation)
	sealed.Extensions = binary.BigEndian.AppendUint32(sealed.Extensions, sum)
	return &sealed, sum
}

// unseal checks what seal added to log, and takes it off.
func unseal(log *raft.Log) (mark, error) {
	n := len(log.Extensions) - sealBytes
	if n < 0 {
		return mark{}, fmt.Errorf("%w: entry %d has no checksum", ErrCorrupt, log.Index)
	}
	m := mark{
		previous:   binary.BigEndian.Uint32(log.Extensions[n:]),
		generation: binary.BigEndian.Uint32(log.Extensions[n+4:]),
		sum:        binary.BigEndian.Uint32(log.Extensions[n+8:]),
	}
	if log.Extensions = log.Extensions[:n:n]; n == 0 {
		log.Extensions = nil
	}
	if got := checksum(log, m.previous, m.generation); got != m.sum {
		return mark{}, fmt.Errorf("%w: entry %d has checksum %08x, want %08x", ErrCorrupt, log.Index, got, m.sum)
	}
	return m, nil
}

// checksum covers all of an entry (the index, term and type; the time, of which
// Raft only tells the age of the log; data and extensions), and what its seal says.
func checksum(log *raft.Log, previous, generation uint32) uint32 {
	var head [4 + 4 + 8 + 8 + 1 + 8 + 4 + 8]byte
	binary.BigEndian.PutUint32(head[:], previous)
	binary.BigEndian.PutUint32(head[4:], generation)
	binary.BigEndian.PutUint64(head[8:], log.Index)
	binary.BigEndian.PutUint64(head[16:], log.Term)
	head[24] = byte(log.Type)
	binary.BigEndian.PutUint64(head[25:], uint64(log.AppendedAt.Unix()))
	binary.BigEndian.PutUint32(head[33:], uint32(log.AppendedAt.Nanosecond()))
	binary.BigEndian.PutUint64(head[37:], uint64(len(log.Data)))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, log.Data)
	return crc32.Update(sum, castagnoli, log.Extensions)
}

// checkAppend refuses a batch that is no run of a log: indexes rise by one,
// terms never fall.
func checkAppend(logs []*raft.Log) error {
	for i, log := range logs {
		if log.Index == 0 || log.Term == 0 {
			return fmt.Errorf("%w: entry %d of term %d", ErrMisuse, log.Index, log.Term)
		}
		if i == 0 {
			continue
		}
		if prev := logs[i-1]; log.Index != prev.Index+1 || log.Term < prev.Term {
			return fmt.Errorf("%w: entry %d of term %d after entry %d of term %d",
				ErrMisuse, log.Index, log.Term, prev.Index, prev.Term)
		}
	}
	return nil
}
