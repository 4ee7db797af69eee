package raftgroup

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// An fsm drives the machine: Raft's FSM goroutine calls it, one call at a time.
// The position it publishes is the machine's own; Raft's AppliedIndex counts
// what was merely queued.
//
// It implements raft.BatchingFSM, so that it sees configuration entries too:
// with them, and since barriers are never used and each leader commits a no-op
// command after Raft's own, every index that a reader waits for arrives.
type fsm struct {
	r *Replica

	// swap is held from the moment the store was found durable until Raft has
	// cut its log, and while a received snapshot replaces the store: Raft would
	// otherwise move its last snapshot backwards (hashicorp/raft#248).
	// It is taken by sending: a mutex is not held while a disk is waited for, and
	// would stop virtual time.
	swap chan struct{} // buffered 1

	mu struct {
		sync.Mutex
		at          position
		members     members
		labels      map[string]string // server id -> label
		replacement replacement
		generation  uint64        // raised when a snapshot replaces the store
		advanced    chan struct{} // closed when at moves; nil while nobody waits
	}
}

// noopResult is the result of entry.KindNoop.
type noopResult struct{ index, term uint64 }

// load reads the position at the start, or after the store was replaced.
func (f *fsm) load(r store.Reader) error {
	at, err := readPosition(r)
	if err != nil {
		return err
	}
	m, err := readMembers(r)
	if err != nil {
		return err
	}
	known, err := readLabels(r)
	if err != nil {
		return err
	}
	replacing, err := readReplacement(r)
	if err != nil {
		return err
	}
	labels := make(map[string]string, len(known))
	for id, member := range known {
		labels[id] = member.Label
	}
	f.mu.Lock()
	f.mu.at, f.mu.members, f.mu.labels, f.mu.replacement = at, m, labels, replacing
	f.wakeLocked()
	f.mu.Unlock()
	f.r.clock.raise(at.clock)
	return nil
}

func (f *fsm) position() position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.at
}

// snapshotOf returns position, configuration and generation at one moment.
func (f *fsm) snapshotOf() (position, members, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.at, f.mu.members, f.mu.generation
}

func (f *fsm) label(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.labels[id]
}

func (f *fsm) wakeLocked() {
	if f.mu.advanced != nil {
		close(f.mu.advanced)
		f.mu.advanced = nil
	}
}

// wait returns once the machine has applied index, or when ctx or stop end.
func (f *fsm) wait(ctx context.Context, stop <-chan struct{}, index uint64) error {
	for {
		f.mu.Lock()
		if f.mu.at.index >= index {
			f.mu.Unlock()
			return nil
		}
		if f.mu.advanced == nil {
			f.mu.advanced = make(chan struct{})
		}
		advanced := f.mu.advanced
		f.mu.Unlock()
		select {
		case <-advanced:
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return ErrClosed
		}
	}
}

// Apply implements raft.FSM; Raft calls ApplyBatch instead.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: the entries in as few batches of the
// store as their size allows, each with the position that it leads to.
//
// On an error it stops the replica, and answers with something that is no result:
// its callers are told that the outcome is unknown. So is everyone whose entry
// comes after it; nothing is applied any more.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	for next := 0; next < len(logs); {
		n, err := f.applySome(logs[next:], results[next:])
		if err != nil {
			f.r.fatal(err)
			return make([]any, len(logs))
		}
		next += n
	}
	return results
}

// batchBytesMax is where a batch of the store ends. It ends between two entries,
// never inside one: an entry is applied as a whole or not at all.
const batchBytesMax = 16 << 20

// applySome applies entries in one batch, from the first on, until that is large
// enough, and returns how many they were.
func (f *fsm) applySome(logs []*raft.Log, results []any) (n int, err error) {
	if err := f.r.failed(); err != nil {
		return 0, err
	}
	b, err := f.r.o.Store.NewBatch()
	if err != nil {
		return 0, fmt.Errorf("open a batch: %w", err)
	}
	defer b.Close()
	step := &applyStep{f: f, batch: b}
	step.at, step.members, _ = f.snapshotOf()
	before := step.at.index
	for n < len(logs) && b.Size() < batchBytesMax {
		l := logs[n]
		n++
		if l.Index <= step.at.index {
			continue // replayed by Raft; the state has it
		}
		done := f.r.guard.watch("apply of an entry") // a read of the store may hang in it
		results[n-1], err = step.entry(l)
		done()
		if err != nil {
			return 0, err
		}
	}
	if step.at.index == before {
		return n, nil
	}
	if err := b.Set(keyPosition, step.at.encode()); err != nil {
		return 0, fmt.Errorf("write the applied index: %w", err)
	}
	if err := f.r.failed(); err != nil {
		return 0, err // it stalled, and what it read then is not to be trusted
	}
	done := f.r.guard.watch("commit of a batch")
	err = b.Commit()
	done()
	if err != nil {
		return 0, fmt.Errorf("commit entry %d: %w", step.at.index, err)
	}
	f.publish(step)
	f.r.counters.applied.Add(uint64(n))
	f.r.counters.batches.Add(1)
	f.r.o.Machine.Applied(step.at.index)
	return n, nil
}

func (f *fsm) publish(s *applyStep) {
	f.r.clock.raise(s.at.clock)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.at, f.mu.members = s.at, s.members
	if s.replacement != nil {
		f.mu.replacement = *s.replacement
	}
	for _, m := range s.labels {
		if m.gone {
			delete(f.mu.labels, m.serverID)
		} else {
			f.mu.labels[m.serverID] = m.label
		}
	}
	f.wakeLocked()
}

// Snapshot implements raft.FSM: it only notes where the state stands.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.r.failed(); err != nil {
		return nil, err
	}
	at, _, generation := f.snapshotOf()
	return &durablePoint{f: f, index: at.index, generation: generation}, nil
}

// Restore implements raft.FSM. Raft hands over what the snapshot store opened.
func (f *fsm) Restore(rc io.ReadCloser) error {
	for {
		if received, ok := rc.(*receivedReader); ok {
			return f.r.snapshots.install(received.in)
		}
		wrapper, ok := rc.(raft.ReadCloserWrapper)
		if !ok {
			return fmt.Errorf("restore from a foreign snapshot %T", rc)
		}
		rc = wrapper.WrappedReadCloser()
	}
}

// An applyStep applies the entries of one batch.
type applyStep struct {
	f       *fsm
	batch   store.Batch
	at      position
	members members
	labels  []memberLabel
	// replacement is what an entry noted; nil: none did.
	replacement *replacement
}

// A memberLabel is a label that an entry set, or took away.
type memberLabel struct {
	serverID, label string
	gone            bool
}

func (s *applyStep) entry(l *raft.Log) (result any, err error) {
	switch l.Type {
	case raft.LogConfiguration:
		s.members = members{index: l.Index, config: raft.DecodeConfiguration(l.Data)}
		if err := s.configuration(); err != nil {
			return nil, fmt.Errorf("write the configuration: %w", err)
		}
	case raft.LogCommand:
		if result, err = s.commands(l); err != nil {
			return nil, fmt.Errorf("apply entry %d of term %d: %w", l.Index, l.Term, err)
		}
	default:
		return nil, fmt.Errorf("entry %d is of the unknown type %v", l.Index, l.Type)
	}
	s.at.index, s.at.term = l.Index, l.Term
	return result, nil
}

// configuration records the configuration, and forgets the labels of those who
// left.
func (s *applyStep) configuration() error {
	if err := s.batch.Set(keyConfiguration, s.members.encode()); err != nil {
		return err
	}
	known, err := readLabels(s.batch)
	if err != nil {
		return err
	}
	for _, server := range s.members.config.Servers {
		delete(known, string(server.ID))
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if err := s.batch.Delete(memberKey(id)); err != nil {
			return err
		}
		s.labels = append(s.labels, memberLabel{serverID: id, gone: true})
	}
	return nil
}

// commands applies the commands of one entry, raftgroup's own itself and the
// others, in one call, by the machine.
func (s *applyStep) commands(l *raft.Log) ([]any, error) {
	e, err := entry.Decode(l.Data)
	if err != nil {
		return nil, err
	}
	if e.Feature > entry.FeatureLevel {
		return nil, fmt.Errorf("written at feature level %d, this version understands %d", e.Feature, entry.FeatureLevel)
	}
	e.Index, e.Term = l.Index, l.Term
	if !s.f.r.o.unsafe.rawClock {
		e.Clock = max(e.Clock, s.at.clock)
	}
	s.at.clock = e.Clock
	results := make([]any, len(e.Commands))
	machine := make([]entry.Command, 0, len(e.Commands))
	var slots []int
	for i, c := range e.Commands {
		if c.Kind >= entry.KindMachineMin {
			machine, slots = append(machine, c), append(slots, i)
			continue
		}
		if results[i], err = s.own(l, c); err != nil {
			return nil, err
		}
	}
	if len(machine) == 0 {
		return results, nil
	}
	e.Commands = machine
	out, err := s.f.r.o.Machine.Apply(s.batch, &e)
	if err != nil {
		return nil, err
	}
	if len(out) != len(machine) {
		return nil, fmt.Errorf("the machine returned %d results for %d commands", len(out), len(machine))
	}
	for i, slot := range slots {
		results[slot] = out[i]
	}
	return results, nil
}

// own applies one of raftgroup's own commands.
func (s *applyStep) own(l *raft.Log, c entry.Command) (any, error) {
	switch c.Kind {
	case entry.KindNoop:
		return noopResult{index: l.Index, term: l.Term}, nil
	case entry.KindRaiseFeature:
		if len(c.Body) != 1 {
			return nil, fmt.Errorf("feature level of %d bytes", len(c.Body))
		}
		if c.Body[0] > entry.FeatureLevel {
			return nil, fmt.Errorf("the group goes to feature level %d, this version understands %d", c.Body[0], entry.FeatureLevel)
		}
		s.at.feature = max(s.at.feature, c.Body[0])
		return s.at.feature, nil
	case entry.KindMember:
		m, err := decodeMemberRecord(c.Body)
		if err != nil {
			return nil, err
		}
		s.labels = append(s.labels, memberLabel{serverID: m.ServerID, label: m.Label})
		return nil, s.batch.Set(memberKey(m.ServerID), c.Body)
	case entry.KindHandover:
		return nil, s.batch.Set(keyHandover, binary.BigEndian.AppendUint64(nil, s.at.clock))
	case entry.KindReplacement:
		p, err := decodeReplacement(c.Body)
		if err != nil {
			return nil, err
		}
		s.replacement = &p
		return nil, s.batch.Set(keyReplacement, c.Body)
	default:
		return nil, fmt.Errorf("unknown kind %d of command", c.Kind)
	}
}
