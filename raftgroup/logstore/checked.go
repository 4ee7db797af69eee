package logstore

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// deleteEntriesMax bounds one transaction of DeleteRange, so that truncating a
// long log does not hold up an append for seconds.
const deleteEntriesMax = 4096

// A backend is a kind of log store without the checks.
type backend interface {
	// Indexes lists the entries in their order.
	Indexes() ([]uint64, error)
	// GetLog reads an entry, or raft.ErrLogNotFound.
	GetLog(index uint64, log *raft.Log) error
	// StoreLogs and DeleteRange (both ends included) do all or nothing, and
	// return when it is durable.
	StoreLogs(logs []*raft.Log) error
	DeleteRange(min, max uint64) error
	SizeBytes() (int64, error)
	Close() error
}

// checked is the LogStore around every backend: it links the entries by their
// checksums, keeps term and vote, and refuses unsafe writes.
//
// The hard state never tells of more than the backend has: it is written after an
// append and before a deletion. So a backend that has less was damaged. One that
// has more was cut off in its work: entries at the end are an append if they are of
// the present generation, and everything else was being deleted.
type checked struct {
	kind string
	b    backend
	hard *hardStates

	// deleting is held by one deletion after the other, and appending while the end
	// of the log is moved: by an append, or by a deletion up to the end. They are held
	// across writes, and taken in this order, before mu.
	deleting, appending sync.Mutex
	generation          uint32 // of the log; guarded by appending
	// ballot is held across a write of term or vote.
	ballot struct {
		sync.Mutex
		// held is the term of a vote whose candidate was not named yet; it is
		// in no answer and on no disk.
		held    uint64
		holding bool
	}

	mu struct {
		sync.Mutex
		chain chain
		// cuts counts deletions: a reader that finds an entry gone looks again if
		// there was one since it looked.
		cuts uint64
		// failed is set once an append or a deletion failed: what is on disk is
		// then unknown, so nothing more is written.
		failed error
	}
}

// newChecked reads the whole log, compares it with the hard state, and completes
// what was cut off.
func newChecked(kind string, b backend, hard *hardStates) (*checked, error) {
	s := &checked{kind: kind, b: b, hard: hard}
	state, err := hard.get()
	if err != nil {
		return nil, err
	}
	indexes, err := b.Indexes()
	if err != nil {
		return nil, err
	}
	want := state.log
	s.generation = want.generation
	if want.last == 0 {
		want.first = 1
	}
	below, _ := slices.BinarySearch(indexes, want.first)
	above, err := s.load(indexes[below:], want)
	if err != nil {
		return nil, err
	}
	above += below
	// A deletion was cut off: it is written down in the hard state, and what is left
	// of it goes now.
	for _, rest := range [][]uint64{indexes[:below], indexes[above:]} {
		if len(rest) > 0 {
			if err := b.DeleteRange(rest[0], rest[len(rest)-1]); err != nil {
				return nil, fmt.Errorf("delete log entries %d to %d: %w", rest[0], rest[len(rest)-1], err)
			}
		}
	}
	// An append was cut off: nobody has heard of it, but from now on others may.
	if end := s.mu.chain.last(); end.index != want.last {
		return s, hard.update(func(h *hardState) {
			h.log.first, h.log.last, h.log.sum = s.mu.chain.first().index, end.index, end.sum
		})
	}
	return s, nil
}

// load reads entries into the chain, as far as they belong to the log, and returns
// how many do. Those up to the last one that the hard state tells of do, and all
// must be there; behind it, those of the same generation.
func (s *checked) load(indexes []uint64, want extent) (n int, err error) {
	for n < len(indexes) {
		index := indexes[n]
		_, m, err := s.read(index)
		if errors.Is(err, raft.ErrLogNotFound) {
			err = fmt.Errorf("%w: entry %d is listed and not there", ErrCorrupt, index)
		}
		if err != nil {
			return 0, err
		}
		if index > want.last && m.generation != want.generation {
			break
		}
		switch before := s.mu.chain.last(); {
		case before.index == 0 && want.last > 0 && index != want.first:
			return 0, fmt.Errorf("%w: it begins at entry %d, and had entry %d", ErrCorrupt, index, want.first)
		case (before.index > 0 || want.last == 0) && m.previous != before.sum:
			return 0, fmt.Errorf("%w: entry %d does not follow entry %d", ErrCorrupt, index, before.index)
		}
		s.mu.chain.links = append(s.mu.chain.links, link{index, m.sum})
		n++
	}
	if end, ok := s.mu.chain.find(want.last); want.last > 0 && (!ok || end.sum != want.sum) {
		return 0, fmt.Errorf("%w: it goes up to entry %d, and had entry %d with checksum %08x",
			ErrCorrupt, s.mu.chain.last().index, want.last, want.sum)
	}
	return n, nil
}

func (s *checked) Kind() string              { return s.kind }
func (s *checked) SizeBytes() (int64, error) { return s.b.SizeBytes() }
func (s *checked) Close() error              { return errors.Join(s.b.Close(), s.hard.slots.Close()) }

// FirstIndex is 0 for an empty log.
func (s *checked) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.chain.first().index, nil
}

// LastIndex is 0 for an empty log.
func (s *checked) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.chain.last().index, nil
}

// GetLog reads an entry and checks that it is the one that was stored there.
func (s *checked) GetLog(index uint64, log *raft.Log) error {
	for {
		s.mu.Lock()
		want, ok := s.mu.chain.find(index)
		cuts := s.mu.cuts
		s.mu.Unlock()
		if !ok {
			return raft.ErrLogNotFound
		}
		stored, m, err := s.read(index)
		switch {
		case err == nil && m.sum == want.sum:
			*log = stored
			return nil
		case s.wasCutSince(cuts):
			continue // it may be gone, or gone and stored anew
		case errors.Is(err, raft.ErrLogNotFound):
			return fmt.Errorf("%w: entry %d is lost", ErrCorrupt, index)
		case err != nil:
			return err
		}
		return fmt.Errorf("%w: entry %d has checksum %08x, and had %08x", ErrCorrupt, index, m.sum, want.sum)
	}
}

func (s *checked) wasCutSince(cuts uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.cuts != cuts
}

// read reads an entry with what its seal says.
func (s *checked) read(index uint64) (log raft.Log, m mark, err error) {
	if err := s.b.GetLog(index, &log); err != nil {
		return raft.Log{}, mark{}, fmt.Errorf("read log entry %d: %w", index, err)
	}
	if log.Index != index {
		return raft.Log{}, mark{}, fmt.Errorf("%w: entry %d says that it is entry %d", ErrCorrupt, index, log.Index)
	}
	if m, err = unseal(&log); err != nil {
		return raft.Log{}, mark{}, err
	}
	return log, m, nil
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
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	last, failed := s.mu.chain.last(), s.mu.failed
	s.mu.Unlock()
	switch {
	case failed != nil:
		return failed
	case logs[0].Index <= last.index:
		return fmt.Errorf("%w: entry %d while the log goes up to %d", ErrMisuse, logs[0].Index, last.index)
	}
	sealed, links := make([]*raft.Log, len(logs)), make([]link, len(logs))
	sum := last.sum
	for i, log := range logs {
		sealed[i], sum = seal(log, sum, s.generation)
		links[i] = link{log.Index, sum}
	}
	end := links[len(links)-1]
	if err := s.b.StoreLogs(sealed); err != nil {
		return s.fail(fmt.Errorf("append log entries %d to %d: %w", logs[0].Index, end.index, err))
	}
	if err := s.hard.update(func(h *hardState) {
		if last.index == 0 {
			h.log.first = logs[0].Index
		}
		h.log.last, h.log.sum = end.index, end.sum
	}); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.chain.links = append(s.mu.chain.links, links...)
	return nil
}

func (s *checked) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.failed = err
	return err
}

// DeleteRange deletes the entries from min to max, both included, in bounded
// transactions. They must be a prefix or a suffix of the log. A crash in the
// middle leaves no hole: a suffix goes from its end, a prefix from its start.
func (s *checked) DeleteRange(min, max uint64) error {
	s.deleting.Lock()
	defer s.deleting.Unlock()
	s.mu.Lock()
	low, _ := s.mu.chain.below(min)
	high := s.mu.chain.through(max)
	entries := len(s.mu.chain.links)
	s.mu.Unlock()
	switch {
	case low >= high:
		return nil
	case high == entries:
		return s.truncate(min)
	case low == 0:
		return s.cut(max)
	}
	return fmt.Errorf("%w: entries %d to %d are deleted from the middle of the log", ErrMisuse, min, max)
}

// truncate deletes the entries from min on.
func (s *checked) truncate(min uint64) error {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	n, _ := s.mu.chain.below(min)
	goes := s.mu.chain.links[n:]
	s.mu.chain.cutSuffix(n)
	s.mu.cuts++
	left, failed := s.mu.chain.last(), s.mu.failed
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	s.generation++
	if err := s.hard.update(func(h *hardState) {
		if left.index == 0 {
			h.log.first = 0
		}
		h.log.last, h.log.sum, h.log.generation = left.index, left.sum, s.generation
	}); err != nil {
		return s.fail(err)
	}
	for len(goes) > 0 {
		i := max(len(goes)-deleteEntriesMax, 0)
		if err := s.delete(goes[i:]); err != nil {
			return err
		}
		goes = goes[:i]
	}
	return nil
}

// cut deletes the entries up to max, of which others follow.
func (s *checked) cut(max uint64) error {
	s.mu.Lock()
	n := s.mu.chain.through(max)
	goes := s.mu.chain.links[:n]
	s.mu.chain.cutPrefix(n)
	s.mu.cuts++
	first, failed := s.mu.chain.first().index, s.mu.failed
	s.mu.Unlock()
	if failed != nil {
		return failed
	}
	if err := s.hard.update(func(h *hardState) { h.log.first = first }); err != nil {
		return s.fail(err)
	}
	for len(goes) > 0 {
		n := min(len(goes), deleteEntriesMax)
		if err := s.delete(goes[:n]); err != nil {
			return err
		}
		goes = goes[n:]
	}
	return nil
}

func (s *checked) delete(goes []link) error {
	low, high := goes[0].index, goes[len(goes)-1].index
	if err := s.b.DeleteRange(low, high); err != nil {
		return s.fail(fmt.Errorf("delete log entries %d to %d: %w", low, high, err))
	}
	return nil
}
