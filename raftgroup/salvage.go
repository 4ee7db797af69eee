package raftgroup

import (
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// A Replayed says what Replay found and did.
type Replayed struct {
	// StateIndex is the entry at which the state stood: it was committed.
	StateIndex uint64
	// AppliedIndex is the entry at which it stands now, and Clock that entry's
	// clock, in ms since 1970.
	AppliedIndex, Clock uint64
	// Entries is how many were applied.
	Entries int
}

// ErrNothing says that a replica never applied an entry.
var ErrNothing = errors.New("the replica has applied nothing")

// Replay applies to the state of a stopped replica what its log holds behind it.
// Nobody can tell which of these entries were committed: a majority of the group
// may have stored them, and acknowledged what they did, or only this replica. It is
// for copies of a replica's disk, which must never run as that replica again.
func Replay(st store.Store, m StateMachine, log LogStore) (Replayed, error) {
	r, err := offline(st, m, log)
	if err != nil {
		return Replayed{}, err
	}
	at := r.fsm.position()
	out := Replayed{StateIndex: at.index, AppliedIndex: at.index, Clock: at.clock}
	if log == nil {
		return out, r.appliedSome()
	}
	if r.guard, err = newGuard(r); err != nil {
		return out, err
	}
	if err := r.guard.fit(at); err != nil {
		return out, err
	}
	last, err := r.guard.LastIndex()
	if err != nil {
		return out, err
	}
	var batch []*raft.Log
	for i := at.index + 1; i <= last; i++ {
		l := &raft.Log{}
		if err := r.guard.GetLog(i, l); err != nil {
			return out, fmt.Errorf("read entry %d of the log: %w", i, err)
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration { // Raft's own mean nothing to the machine
			batch = append(batch, l)
		}
		if len(batch) == appendEntriesMax || i == last && len(batch) > 0 {
			r.fsm.ApplyBatch(batch)
			if err := r.failed(); err != nil {
				return out, err
			}
			out.Entries += len(batch)
			batch = batch[:0]
		}
	}
	at = r.fsm.position()
	out.AppliedIndex, out.Clock = at.index, at.clock
	return out, errors.Join(r.appliedSome(), st.Sync())
}

func (r *Replica) appliedSome() error {
	if r.fsm.position().index == 0 {
		return ErrNothing
	}
	return nil
}

// offline is as much of a Replica as applies entries: no Raft, no network.
func offline(st store.Store, m StateMachine, log LogStore) (*Replica, error) {
	r := &Replica{o: Options{Store: st, Machine: m, Log: log, CacheBytesMax: 16 << 20, StallLimit: -1, Logger: hclog.NewNullLogger(), OnFatal: func(error) {}}, stopped: make(chan struct{})}
	r.fsm = &fsm{r: r, swap: make(chan struct{}, 1)}
	r.guard = &guard{r: r}
	if err := r.fsm.load(st); err != nil {
		return nil, err
	}
	if err := m.Reset(st); err != nil {
		return nil, fmt.Errorf("reset the machine: %w", err)
	}
	return r, nil
}

// Reform makes a copy of a replica's disk that of the only member of a new group,
// which begins where the state stands. edit changes the machine's state in the same
// batch. log is empty; self is a member that never was one of any group.
func Reform(st store.Store, log LogStore, self formation.Member, edit func(store.Batch) error) error {
	at, err := readPosition(st)
	if err != nil {
		return err
	}
	if at.index == 0 {
		return ErrNothing
	}
	// As for every replica: the log must never know an older term than the machine.
	if err := log.SetUint64([]byte("CurrentTerm"), at.term); err != nil {
		return fmt.Errorf("write the term: %w", err)
	}
	b, err := st.NewBatch()
	if err != nil {
		return err
	}
	defer b.Close()
	first := members{index: at.index, config: raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(self.ServerID), Address: raft.ServerAddress(self.Address),
	}}}}
	if err := b.Set(keyConfiguration, first.encode()); err != nil {
		return err
	}
	if err := b.DeleteRange(keyMember, store.PrefixEnd(keyMember)); err != nil {
		return err
	}
	if err := b.Set(memberKey(self.ServerID), encodeMemberRecord(self)); err != nil {
		return err
	}
	if err := edit(b); err != nil {
		return err
	}
	if err := b.Commit(); err != nil {
		return err
	}
	return st.Sync()
}
