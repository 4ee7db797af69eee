package logstore

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// deleteEntriesMax bounds one transaction of DeleteRange, so that truncating a
// long log does not hold up an append for seconds.
const deleteEntriesMax = 4096

// A backend is a kind of log store without the checks: what raft-boltdb offers.
// Its StableStore answers an unknown key with an error whose text is "not
// found".
type backend interface {
	raft.LogStore
	raft.StableStore
	SizeBytes() (int64, error)
	Close() error
}

// checked is the LogStore around every backend: it seals entries with a
// checksum, keeps term and vote in one value, and refuses unsafe writes.
type checked struct {
	kind string
	b    backend

	mu struct {
		sync.Mutex
		vote voteRecord // as it is on disk
		// held is the term of a vote whose candidate was not named yet; it is
		// in no answer and on no disk.
		held    uint64
		holding bool
		// failed is set once a write of the record failed: what is on disk is
		// then unknown, so nothing is answered any more.
		failed error
	}
}

func newChecked(kind string, b backend) (*checked, error) {
	s := &checked{kind: kind, b: b}
	raw, err := b.Get(keyVoteRecord)
	if isNotFound(err) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read term and vote: %w", err)
	}
	if s.mu.vote, err = decodeVote(raw); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *checked) Kind() string              { return s.kind }
func (s *checked) SizeBytes() (int64, error) { return s.b.SizeBytes() }
func (s *checked) Close() error              { return s.b.Close() }

func (s *checked) FirstIndex() (uint64, error) { return s.b.FirstIndex() }
func (s *checked) LastIndex() (uint64, error)  { return s.b.LastIndex() }

// GetLog reads an entry and checks that it is the one that was stored there.
func (s *checked) GetLog(index uint64, log *raft.Log) error {
	var stored raft.Log
	if err := s.b.GetLog(index, &stored); err != nil {
		if errors.Is(err, raft.ErrLogNotFound) {
			return raft.ErrLogNotFound
		}
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	if stored.Index != index {
		return fmt.Errorf("%w: entry %d says that it is entry %d", ErrCorrupt, index, stored.Index)
	}
	if err := unseal(&stored); err != nil {
		return err
	}
	*log = stored
	return nil
}

func (s *checked) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, all or none, and returns once they are durable.
func (s *checked) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if err := checkAppend(logs); err != nil {
		return err
	}
	sealed := make([]*raft.Log, len(logs))
	for i, log := range logs {
		sealed[i] = seal(log)
	}
	if err := s.b.StoreLogs(sealed); err != nil {
		return fmt.Errorf("append log entries %d to %d: %w", logs[0].Index, logs[len(logs)-1].Index, err)
	}
	return nil
}

// DeleteRange deletes the entries from min to max, both included, in bounded
// transactions. A crash in the middle leaves no hole: a suffix goes from its
// end, a prefix from its start.
func (s *checked) DeleteRange(min, max uint64) error {
	first, err := s.b.FirstIndex()
	if err != nil {
		return fmt.Errorf("delete log entries %d to %d: %w", min, max, err)
	}
	last, err := s.b.LastIndex()
	if err != nil {
		return fmt.Errorf("delete log entries %d to %d: %w", min, max, err)
	}
	if min > max || last == 0 || min > last || max < first {
		return nil
	}
	suffix := max >= last
	lo, hi := clamp(min, first, last), clamp(max, first, last)
	for lo <= hi {
		from, to := lo, hi
		if hi-lo >= deleteEntriesMax {
			if suffix {
				from = hi - deleteEntriesMax + 1
			} else {
				to = lo + deleteEntriesMax - 1
			}
		}
		if err := s.b.DeleteRange(from, to); err != nil {
			return fmt.Errorf("delete log entries %d to %d: %w", from, to, err)
		}
		if suffix {
			if from == lo {
				return nil
			}
			hi = from - 1
		} else {
			lo = to + 1
		}
	}
	return nil
}

func clamp(n, lo, hi uint64) uint64 { return min(max(n, lo), hi) }

func isNotFound(err error) bool { return err != nil && err.Error() == ErrNotFound.Error() }
