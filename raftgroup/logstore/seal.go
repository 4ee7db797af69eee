package logstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// sealBytes is the length of the checksum that a stored entry carries behind
// its extensions. bbolt checks only its meta pages and raft-boltdb nothing, and
// the entries that Raft writes for itself have no checksum of their own.
const sealBytes = 4

// seal returns a copy of log that carries its checksum. The copy shares log's
// data.
func seal(log *raft.Log) *raft.Log {
	sealed := *log
	sealed.Extensions = make([]byte, 0, len(log.Extensions)+sealBytes)
	sealed.Extensions = append(sealed.Extensions, log.Extensions...)
	sealed.Extensions = binary.BigEndian.AppendUint32(sealed.Extensions, checksum(log))
	return &sealed
}

// unseal checks what seal added to log, and takes it off.
func unseal(log *raft.Log) error {
	n := len(log.Extensions) - sealBytes
	if n < 0 {
		return fmt.Errorf("%w: entry %d has no checksum", ErrCorrupt, log.Index)
	}
	want := binary.BigEndian.Uint32(log.Extensions[n:])
	if log.Extensions = log.Extensions[:n:n]; n == 0 {
		log.Extensions = nil
	}
	if got := checksum(log); got != want {
		return fmt.Errorf("%w: entry %d has checksum %08x, want %08x", ErrCorrupt, log.Index, got, want)
	}
	return nil
}

// checksum covers all that decides what an entry means: index, term, type,
// data, extensions. AppendedAt is left out: it is only information.
func checksum(log *raft.Log) uint32 {
	var head [8 + 8 + 1 + 8]byte
	binary.BigEndian.PutUint64(head[:], log.Index)
	binary.BigEndian.PutUint64(head[8:], log.Term)
	head[16] = byte(log.Type)
	binary.BigEndian.PutUint64(head[17:], uint64(len(log.Data)))
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
