package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/stall"
	"github.com/shoalkv/shoal/raftgroup/transport"
)

// A guard stands between Raft and the log store.
//
// Raft swallows most storage errors and goes on, sometimes with a wrong idea of
// its own log, and a store that hangs leaves a leader that answers heartbeats
// and does nothing (hashicorp/raft#503, #614, #666). So any error, and any
// operation that outlasts the limit, stops the replica for good: nothing is
// tried again, and what ends after that moment is reported as failed.
//
// It also keeps the newest entries in memory, counts the log's bytes, keeps what
// an open transfer will need, and heals what an installed snapshot contradicts.
type guard struct {
	r     *Replica
	inner LogStore
	// running is set once Raft runs: only then may a goroutine be ended.
	running atomic.Bool

	mu struct {
		sync.Mutex
		tail logTail
		// cuts counts what was taken off the tail: a reader that finds an entry gone
		// looks again if there was a cut since it looked.
		cuts uint64
		// ahead are entries that were read; those of the tail alone count.
		ahead readAhead
		// base stands in for the entry of the newest snapshot, or of the machine at the start, where
		// the log begins behind it, so that a message that begins there fits; index 0: none.
		base raft.Log
		// config is the newest configuration in the log; index 0: none.
		config members
		// appended counts bytes and entries since the log was last cut.
		appendedBytes   int64
		appendedEntries uint64
	}
}

var errEntryLost = errors.New("the log store has lost an entry")

// newGuard reads the log once: for sizes, and for the newest entry clock.
func newGuard(r *Replica) (*guard, error) {
	g := &guard{r: r, inner: r.o.Log}
	g.mu.tail.cacheMax = r.o.CacheBytesMax
	first, err := g.inner.FirstIndex()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	last, err := g.inner.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	for i := first; first > 0 && i <= last; i++ {
		var l raft.Log
		err := g.inner.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			continue // a gap below a snapshot; append starts anew
		}
		if err != nil {
			return nil, fmt.Errorf("read entry %d of the log: %w", i, err)
		}
		g.mu.tail.append(&l)
		g.noteClock(&l)
		if err := g.noteConfigurationLocked(&l); err != nil {
			return nil, err
		}
	}
	g.mu.appendedBytes, g.mu.appendedEntries = g.mu.tail.bytes, uint64(len(g.mu.tail.entries))
	return g, nil
}

// entryClockOffset is where an encoded entry keeps its clock.
const entryClockOffset = 4

// noteClock lets the clock of a later leader never fall behind an entry that it
// stores and has not applied yet.
func (g *guard) noteClock(l *raft.Log) {
	if l.Type == raft.LogCommand && len(l.Data) >= entryClockOffset+8 {
		g.r.clock.raise(binary.BigEndian.Uint64(l.Data[entryClockOffset:]))
	}
}

// watch stops the replica unless the returned function is called before the
// process has run for the limit.
func (g *guard) watch(op string) (done func()) {
	if g.r.o.unsafe.trustStorage {
		return func() {}
	}
	limit := g.r.o.StallLimit
	return stall.Begin(limit, func() { g.r.fatal(&StallError{Op: op, Limit: limit.String()}) }).Done
}

// run does one operation of the store, and judges it.
func (g *guard) run(op string, do func() error) error {
	if g.r.o.unsafe.trustStorage {
		return do()
	}
	if err := g.r.failed(); err != nil {
		return err
	}
	done := g.watch(op)
	err := do()
	done()
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && err.Error() != "not found" {
		err = fmt.Errorf("%s: %w", op, err)
		g.r.fatal(err)
		return err
	}
	if failed := g.r.failed(); failed != nil {
		return failed // it came too late
	}
	return err
}

// orEnd ends the calling goroutine, which is Raft's, where Raft would answer the
// error with a panic that hides the reason. The replica has stopped by then.
func (g *guard) orEnd(err error) error {
	if err != nil && g.running.Load() && g.r.failed() != nil && !g.r.o.unsafe.trustStorage {
		runtime.Goexit()
	}
	return err
}

// FirstIndex implements raft.LogStore.
func (g *guard) FirstIndex() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.tail.lowest(), nil
}

// LastIndex implements raft.LogStore.
func (g *guard) LastIndex() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.tail.last(), nil
}

// GetLog implements raft.LogStore.
func (g *guard) GetLog(index uint64, l *raft.Log) error {
	for {
		g.mu.Lock()
		base, cached, present, cuts := g.mu.base, g.mu.tail.get(index), g.mu.tail.has(index), g.mu.cuts
		if cached == nil && present {
			cached = g.mu.ahead.get(index)
		}
		g.mu.Unlock()
		switch {
		case cached != nil:
			*l = *cached
			return nil
		case !present && base.Index == index && index > 1: // before the first, nobody asks for it
			*l = base
			return nil
		case !present:
			return raft.ErrLogNotFound
		}
		err := g.run("read of the log", func() error { return g.inner.GetLog(index, l) })
		if errors.Is(err, raft.ErrLogNotFound) {
			if g.wasCutSince(cuts) {
				continue // it may be gone, or gone and stored anew
			}
			err = g.lostEntry(index)
		}
		if err == nil {
			g.keep(l, cuts)
		}
		return g.orEnd(err)
	}
}

// keep remembers an entry that was read, if it can't be another one by now.
func (g *guard) keep(l *raft.Log, cuts uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.cuts == cuts {
		g.mu.ahead.add(l)
	}
}

func (g *guard) wasCutSince(cuts uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.cuts != cuts
}

// lostEntry stops the replica: an entry that nobody cut off is not in the store,
// and with it perhaps others.
func (g *guard) lostEntry(index uint64) error {
	if g.r.o.unsafe.trustStorage {
		return raft.ErrLogNotFound
	}
	err := fmt.Errorf("%w: entry %d", errEntryLost, index)
	g.r.fatal(err)
	return err
}

// StoreLog implements raft.LogStore.
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g *guard) StoreLogs(logs []*raft.Log) error {
	done := g.r.limping.append()
	err := g.run("append to the log", func() error { return g.inner.StoreLogs(logs) })
	done()
	if err != nil {
		return err
	}
	g.mu.Lock()
	before := g.mu.tail.bytes
	if logs[0].Index != g.mu.tail.last()+1 {
		g.mu.ahead.clear() // the tail begins anew
	}
	var bad error
	for _, l := range logs {
		g.mu.tail.append(l)
		g.noteClock(l)
		bad = errors.Join(bad, g.noteConfigurationLocked(l))
	}
	config := g.mu.config
	g.mu.appendedBytes += g.mu.tail.bytes - before
	g.mu.appendedEntries += uint64(len(logs))
	due := g.mu.appendedBytes >= g.r.o.SnapshotLogBytes || g.mu.appendedEntries >= g.r.o.SnapshotLogEntries
	g.mu.Unlock()
	if due {
		poke(g.r.compact)
	}
	if bad = errors.Join(bad, g.r.checkAddress(config)); bad != nil {
		g.r.fatal(bad)
	}
	return bad
}

// DeleteRange implements raft.LogStore. Raft's cut of a prefix leaves what an
// open transfer, or a replica that was away for a moment, will ask for. A suffix
// goes as it is told: it is of another history.
func (g *guard) DeleteRange(low, high uint64) error {
	if low == 0 {
		return nil // the log was empty when Raft asked for its beginning
	}
	needs, trailing := g.r.holds.needs(), g.r.trailingBytes()
	g.mu.Lock()
	t := &g.mu.tail
	if t.has(high) && high < t.last() && low <= t.first {
		// The entry at the snapshot's index stays: the next message names it.
		high = min(high-1, t.keepFrom(trailing)-1)
		high = g.r.holds.clamp(t, needs, high)
		low = t.first
	}
	g.mu.Unlock()
	if high < low {
		return nil
	}
	return g.delete(low, high)
}

// delete takes entries off the tail first: the store deletes in several steps,
// and whoever reads between them must not take for lost what is going.
func (g *guard) delete(low, high uint64) error {
	g.mu.Lock()
	g.mu.tail.deleteRange(low, high)
	g.mu.ahead.clear()
	g.mu.cuts++
	if g.mu.config.index >= low && g.mu.config.index <= high {
		g.mu.config = members{} // it was applied, or is of another history
	}
	g.mu.Unlock()
	return g.run("cut of the log", func() error { return g.inner.DeleteRange(low, high) })
}

// rebase makes the log fit a machine that was just replaced by a snapshot, while
// Raft waits for that. If the entry at the snapshot's index is of another term,
// or not there, nothing up to it can be trusted to be the snapshot's history, and
// it goes. What follows such an entry contradicts the snapshot as well, yet Raft
// remembers its end: it stays for Raft to overwrite, with base in front of it, or
// else Raft would refuse the leader's next message forever (hashicorp/raft#697).
// What follows a matching entry may be acknowledged, and stays.
func (g *guard) rebase(index, term uint64) error {
	if g.r.o.unsafe.keepConflict {
		return nil
	}
	matches, err := g.matches(index, term)
	if err != nil || matches {
		return err
	}
	g.mu.Lock()
	low, last := g.mu.tail.lowest(), g.mu.tail.last()
	// It was committed, so that it stays true.
	g.mu.base = raft.Log{Index: index, Term: term, Type: transport.StandIn}
	g.mu.Unlock()
	if low == 0 || low > index {
		return nil
	}
	return g.delete(low, min(index, last))
}

// fit makes the log fit the machine at the start. A log that begins above the
// machine is refused: the entries between are lost.
func (g *guard) fit(at position) error {
	g.mu.Lock()
	low, last := g.mu.tail.lowest(), g.mu.tail.last()
	if !g.r.o.unsafe.keepConflict {
		g.mu.base = raft.Log{Index: at.index, Term: at.term, Type: transport.StandIn}
	}
	g.mu.Unlock()
	switch {
	case low == 0:
		return nil
	case low > at.index+1:
		return fmt.Errorf("the log begins at %d, the machine stands at %d: entries between them are missing", low, at.index)
	case g.r.o.unsafe.keepConflict:
		return nil
	}
	fits, err := g.continues(low, at)
	if err != nil || fits {
		return err
	}
	// Either it ends below the machine, or all of it is of another history. The
	// machine must not lose afterwards what it could have had from the log.
	if err := g.r.o.Store.Sync(); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	return g.delete(low, last)
}

// continues reports whether the log, which begins at low, is of the machine's history:
// it has the machine's entry, or begins right behind it in no earlier term. Terms never
// fall along a log: an earlier one is what rebase left behind a snapshot.
func (g *guard) continues(low uint64, at position) (bool, error) {
	if low <= at.index {
		return g.matches(at.index, at.term)
	}
	var l raft.Log
	if err := g.inner.GetLog(low, &l); err != nil {
		return false, fmt.Errorf("read entry %d of the log: %w", low, err)
	}
	return l.Term >= at.term, nil
}

// matches reports whether the log has the entry (index, term). It may be cut off
// at the same time.
func (g *guard) matches(index, term uint64) (bool, error) {
	for {
		g.mu.Lock()
		present, cuts := g.mu.tail.has(index), g.mu.cuts
		g.mu.Unlock()
		if !present {
			return false, nil
		}
		var l raft.Log
		err := g.inner.GetLog(index, &l)
		if errors.Is(err, raft.ErrLogNotFound) && g.wasCutSince(cuts) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read entry %d of the log: %w", index, err)
		}
		return l.Term == term, nil
	}
}

// wasCut starts the count of appended bytes anew, from what is behind index.
func (g *guard) wasCut(index uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.appendedBytes = g.mu.tail.bytesAfter(index)
	g.mu.appendedEntries = 0
	if last := g.mu.tail.last(); last > index {
		g.mu.appendedEntries = last - index
	}
}

func (g *guard) logBytes() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.tail.bytes
}

// Set implements raft.StableStore.
func (g *guard) Set(key, value []byte) error {
	return g.run("write of a vote", func() error { return g.inner.Set(key, value) })
}

// Get implements raft.StableStore.
func (g *guard) Get(key []byte) (value []byte, err error) {
	err = g.run("read of a vote", func() error { value, err = g.inner.Get(key); return err })
	return value, err
}

// SetUint64 implements raft.StableStore.
func (g *guard) SetUint64(key []byte, value uint64) error {
	return g.orEnd(g.run("write of a term", func() error { return g.inner.SetUint64(key, value) }))
}

// GetUint64 implements raft.StableStore.
func (g *guard) GetUint64(key []byte) (value uint64, err error) {
	err = g.run("read of a term", func() error { value, err = g.inner.GetUint64(key); return err })
	return value, err
}
