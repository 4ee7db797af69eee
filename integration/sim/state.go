package sim

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A machine is a step machine of the product.
type machine interface {
	Apply(b store.Batch, e *entry.Entry) ([]any, error)
	Reset(r store.Reader) error
}

// A raftGroup is the replicas of one log, and the states that the log leads to.
// Since applying is deterministic, a state is computed once and shared; see
// replicaState for those that compute it again.
type raftGroup struct {
	w        *World
	name     string
	replicas []*replica
	fresh    func() machine
	// seen is told of every entry once, when it is first applied anywhere.
	seen func(st *state, e *entry.Entry)

	machine machine
	mem     *store.Mem
	newest  *state
	states  []*state // the last ones, in order of index, ending in newest
}

// statesMax bounds the states that lagging replicas can take over.
const statesMax = 256

// A state is what a store holds after an entry. It is never changed, except
// that the store of a replica that computes for itself goes on.
type state struct {
	index, term, clock uint64
	mem                *store.Mem
	p                  *packet
	results            []any // one for each command of the entry
	changes            placement.Changes
	unnoted            bool // what changed is not known: it was not computed from the state before
	view               *handoff.View
}

func newRaftGroup(w *World, name string, nodes []*node, fresh func() machine, top func(r *replica) resident) *raftGroup {
	g := &raftGroup{w: w, name: name, fresh: fresh, machine: fresh(), mem: store.NewMem()}
	g.newest = &state{mem: g.mem.Clone()}
	g.states = []*state{g.newest}
	w.check(g.machine.Reset(g.mem), "reset")
	for slot, n := range nodes {
		r := &replica{g: g, slot: slot, n: n, vote: -1}
		r.pack, r.reads = packer{r: r}, reader{r: r}
		r.machine = replicaState{r: r, at: g.newest, durable: g.newest}
		g.replicas = append(g.replicas, r)
		n.host = r
		r.top = top(r)
	}
	for _, r := range g.replicas {
		r.start()
	}
	return g
}

// at returns the shared state of an index; nil: not computed yet, or forgotten.
func (g *raftGroup) at(index uint64) *state {
	first := g.states[0].index
	if index < first || index > g.newest.index {
		return nil
	}
	return g.states[index-first]
}

// compute applies the next entry, for everyone.
func (g *raftGroup) compute(rec record) {
	st, e, _ := g.apply(g.machine, g.mem, g.newest, rec, nil)
	g.w.check(g.mem.Sync(), "sync")
	st.mem, st.unnoted = g.mem.Clone(), false
	g.newest = st
	g.states = append(g.states, st)
	if len(g.states) > 2*statesMax {
		g.states = append([]*state(nil), g.states[statesMax:]...)
	}
	g.w.trace.note(traceApplied, g.replicas[0].n.id, st.index, st.term)
	g.seen(st, &e)
}

// positionKey is where raftgroup keeps the applied index: in the same batch as
// the data.
var positionKey = []byte{0xFF, 0xFF, 1}

// apply applies one entry to a store, as raftgroup's fsm does. r is the replica
// that does so through its disk; nil: all do, and nothing fails.
func (g *raftGroup) apply(m machine, mem *store.Mem, before *state, rec record, r *replica) (*state, entry.Entry, bool) {
	w := g.w
	st := &state{index: before.index + 1, term: rec.term, p: rec.p, mem: mem, unnoted: true}
	raw := bytes.Clone(rec.p.raw)
	e, err := entry.Decode(raw)
	w.check(err, "decode an entry")
	e.Index, e.Term = st.index, st.term
	e.Clock = max(e.Clock, before.clock)
	st.clock = e.Clock
	plain, err := mem.NewBatch()
	w.check(err, "open a batch")
	b := plain
	if r != nil && r.disk != nil {
		b = newDiskBatch(plain, r.disk)
	}
	failed := func(err error, doing string) bool {
		if r == nil {
			w.check(err, g.name+": "+doing)
			return false
		}
		if !r.failed(err, doing) {
			return false
		}
		w.check(plain.Close(), "close a batch")
		return true
	}
	st.results = make([]any, len(e.Commands))
	if own := e.Commands[0].Kind < entry.KindMachineMin; !own {
		told := false
		if r != nil && r.disk != nil && r.disk.newer != nil && w.rng.fault.IntN(3) == 0 {
			e.Commands[0], told = r.disk.command(e.Commands[0])
		}
		st.results, err = m.Apply(b, &e)
		if told && err == nil {
			w.fail("version", "%s applies a command of a newer version: %+v", r.n.addr, e.Commands[0])
		}
		if failed(err, "apply") {
			return nil, e, false
		}
		if len(st.results) != len(e.Commands) {
			w.fail("machine", "%d results of %d commands", len(st.results), len(e.Commands))
		}
	}
	var at [24]byte
	binary.BigEndian.PutUint64(at[:], st.index)
	binary.BigEndian.PutUint64(at[8:], st.term)
	binary.BigEndian.PutUint64(at[16:], st.clock)
	if failed(b.Set(positionKey, at[:]), "write the position") || failed(b.Commit(), "commit") {
		return nil, e, false
	}
	return st, e, true
}

// position reads where a store stands.
func (w *World) position(r store.Reader) (st state) {
	b, ok, err := r.Get(positionKey)
	w.check(err, "read the position")
	if ok {
		st.index = binary.BigEndian.Uint64(b)
		st.term = binary.BigEndian.Uint64(b[8:])
		st.clock = binary.BigEndian.Uint64(b[16:])
	}
	return st
}

// A replicaState is a replica's applied state. It is one of the group's shared
// states, with those behind durable lost in a crash; or, after a crash, a
// machine and a store of its own, which replay the log and must come to the same
// states.
type replicaState struct {
	r       *replica
	at      *state
	own     machine // nil: the state is shared
	pending bool

	durable  *state   // of a shared one
	unsynced []*state // behind it, oldest first
}

func (s *replicaState) index() uint64 { return s.at.index }

// soon applies what is committed, in a while.
func (s *replicaState) soon() {
	if s.pending {
		return
	}
	s.pending = true
	w := s.r.g.w
	d := between(w.rng.raft, 0, w.p.ApplyDelay)
	if s.r.role != leader && !w.quiet() && chance(w.rng.raft, w.p.ApplySlow) {
		d += between(w.rng.raft, 0, 20*w.p.Election)
	}
	s.r.n.after(d, func() {
		s.pending = false
		for s.at.index < s.r.commit && !s.r.stopping {
			s.next()
		}
	})
}

// next applies one entry.
func (s *replicaState) next() {
	r, g := s.r, s.r.g
	index := s.at.index + 1
	rec := r.log[index-r.base-1]
	if index > g.newest.index {
		g.compute(rec)
	}
	shared := g.at(index)
	if shared != nil && (shared.p != rec.p || shared.term != rec.term) {
		g.w.fail("raft", "%s: %s applies another entry at %d than was applied before", g.name, r.n.addr, index)
	}
	if (shared == nil || r.disk != nil) && s.own == nil {
		s.compute(s.at.mem.Clone())
	}
	if s.own == nil {
		s.take(shared)
	} else {
		st, _, ok := g.apply(s.own, s.at.mem, s.at, rec, r)
		if !ok {
			return
		}
		g.w.stats.Replayed++
		if shared != nil {
			s.compare(st, shared)
		}
		s.at = st
		if shared != nil && index == r.commit {
			s.share(shared)
		}
	}
	r.visible()
}

// visible tells everyone who waits for applied states.
func (r *replica) visible() {
	if r.role == leader && !r.ready && r.machine.index() >= r.noop {
		r.ready = true
		r.top.led()
		r.reads.begin()
	}
	r.top.applied(r.machine.at)
	r.pack.applied(r.machine.at)
	r.reads.applied()
	r.machine.compact()
}

func (s *replicaState) take(st *state) {
	s.at = st
	s.unsynced = append(s.unsynced, st)
	if len(s.unsynced) > s.r.g.w.p.UnsyncedMax {
		s.durable, s.unsynced = s.unsynced[0], s.unsynced[1:]
	}
}

// compute makes the replica compute its states itself, from mem on.
func (s *replicaState) compute(mem *store.Mem) {
	w := s.r.g.w
	at := w.position(mem)
	at.mem, at.unnoted = mem, true
	s.at = &at
	s.own = s.r.g.fresh()
	s.durable, s.unsynced = nil, nil
	w.check(s.own.Reset(mem), "reset after a restart")
}

// share ends that: the state was found equal.
func (s *replicaState) share(st *state) {
	s.at, s.own = st, nil
	s.durable, s.unsynced = st, nil
}

func (s *replicaState) compare(mine, shared *state) {
	w := s.r.g.w
	if mine.mem.Hash() != shared.mem.Hash() {
		w.fail("divergence", "%s: %s replayed its log to another state at %d than was computed first", s.r.g.name, s.r.n.addr, mine.index)
	}
	w.trace.note(traceReplayed, s.r.n.id, mine.index, mine.mem.Hash().Low)
}

// crash puts the state back to one that a loss of power leaves, and makes the
// replica replay.
func (s *replicaState) crash(rng *rand.Rand) {
	var mem *store.Mem
	if s.own != nil {
		mem = s.at.mem.Crash(rng.IntN(s.at.mem.Unsynced() + 1))
	} else {
		st := s.durable
		if n := rng.IntN(len(s.unsynced) + 1); n > 0 {
			st = s.unsynced[n-1]
		}
		mem = st.mem.Clone()
	}
	s.pending = false
	s.compute(mem)
	if s.at.index < s.r.base {
		s.r.g.w.fail("raft", "%s lost entries that its store needs: it stands at %d, its log begins behind %d", s.r.n.addr, s.at.index, s.r.base)
	}
}

// compact drops entries from the log that the store is durable past.
func (s *replicaState) compact() {
	r := s.r
	every := r.g.w.p.CompactAt
	if every == 0 || s.at.index-r.base < every {
		return
	}
	s.sync()
	keep := s.at.index - every/4
	r.baseTerm = r.termAt(keep)
	r.log = append([]record(nil), r.log[keep-r.base:]...)
	r.base = keep
	r.synced = max(r.synced, keep)
}

func (s *replicaState) sync() {
	if s.own != nil {
		s.r.g.w.check(s.at.mem.Sync(), "sync")
		return
	}
	s.durable, s.unsynced = s.at, nil
}

// snapshotTimeout is how long a leader waits before it sends a snapshot again.
const snapshotTimeout = 300 * time.Millisecond

// sendSnapshot streams the applied state to a replica that needs entries which
// the log has no more.
func (r *replica) sendSnapshot(slot int) {
	if r.busy[slot] {
		return
	}
	w := r.g.w
	r.busy[slot] = true
	term := r.term
	r.n.after(snapshotTimeout, func() {
		if r.role == leader && r.term == term {
			r.busy[slot] = false
		}
	})
	// The stream of a store at one moment: a clone's checkpoint leaves r's own
	// durability alone.
	c, err := r.machine.at.mem.Clone().Checkpoint()
	w.check(err, "checkpoint")
	var stream bytes.Buffer
	_, err = c.WriteTo(&stream)
	w.check(err, "stream a checkpoint")
	w.check(c.Close(), "close a checkpoint")
	r.sent[slot]++
	m := appending{term: term, from: r.slot, round: r.round, number: r.sent[slot]}
	r.tell(slot, func(to *replica) { to.onSnapshot(m, stream.Bytes()) })
}

func (r *replica) onSnapshot(m appending, stream []byte) {
	from, term := m.from, m.term
	if term < r.term {
		return
	}
	if term > r.term || r.role != follower {
		r.retire(term)
	}
	r.lead = from
	r.touch()
	w := r.g.w
	mem := r.machine.at.mem
	if r.machine.own == nil {
		mem = mem.Clone()
	}
	in, err := mem.Receive(bytes.NewReader(stream))
	w.check(err, "receive a snapshot")
	at := w.position(in.Reader())
	if at.index > r.machine.index() || w.bugs.OldSnapshot {
		w.check(in.Adopt(), "adopt a snapshot")
		r.install(mem, at)
	} else {
		w.check(in.Discard(), "discard a snapshot")
	}
	last := r.machine.index()
	r.tell(from, func(to *replica) { to.onAppended(r.slot, m, term, last, true) })
}

// install makes a received state the replica's own. Entries behind it stay if
// they belong to it.
func (r *replica) install(mem *store.Mem, at state) {
	w := r.g.w
	w.stats.happened(KindSnapshot)
	w.trace.note(traceSnapshot, r.n.id, at.index, at.term)
	if at.index <= r.last() && at.index >= r.base && r.termAt(at.index) == at.term {
		r.log = append([]record(nil), r.log[at.index-r.base:]...)
	} else {
		r.log = nil
		r.cuts++
	}
	r.base, r.baseTerm = at.index, at.term
	r.synced = min(max(r.synced, r.base), r.last())
	r.commit = max(r.commit, at.index)
	r.machine.compute(mem)
	if shared := r.g.at(at.index); shared != nil {
		r.machine.compare(r.machine.at, shared)
		r.machine.share(shared)
	}
	r.top.received()
	r.visible()
	if r.machine.index() < r.commit {
		r.machine.soon()
	}
}
