package explore

import (
	"fmt"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Options of a search.
type Options struct {
	// Plant is a mistake to make; nil: none.
	Plant *Plant
	// Full keeps every committed prefix, as if anything in it might matter ever
	// later. It proves on small bounds that pruning loses nothing.
	Full bool
	// TimeMax and BytesMax, of the heap, end the search undecided; 0: never. They
	// are looked at now and then.
	TimeMax  time.Duration
	BytesMax uint64
	// Progress, if set, is called now and then.
	Progress func(Report)
}

// explorer holds the tables of one search. Locals, commands, facts and configs
// are numbered as they are met; what a command does to a local, and what a
// leader proposes in one, is computed once.
type explorer struct {
	bound     Bound
	opts      Options
	full      bool
	pageBytes int
	keys      [][][]byte
	read      func(store.Reader, int, []byte) (kvfsm.Lookup, error)

	locals     []*local
	localIDs   map[sum]uint32
	reducedIDs map[sum]uint32
	configs    []*config // from 1
	configIDs  map[string]uint32
	made       map[uint64]uint32 // configs by number, lives and owners
	facts      []fact
	factIDs    map[sum]uint32
	commands   []command
	commandIDs map[string]uint32
	steps      map[uint64]step
	pages      map[uint64][]uint32
	expected   map[string][]byte
	writes     []uint32 // by operation
	floors     []uint32 // RaiseFloor and Prune of every shard
	adopts     map[uint32]uint32
	grantMoves map[uint64][]uint32
	alive      map[uint64]string // verdicts of fair runs

	scratch struct {
		facts, words, commands []uint32
		next                   state
		key                    []byte
	}
}

// command is one command that some search met.
type command struct {
	cmd   kvfsm.Command
	shard int // -1: concerns all
	op    int // of a Write; else -1
}

// step is what a command does to a local.
type step struct {
	to      uint32
	outcome kvfsm.Outcome // of a Write
	verdict kvfsm.Verdict // of others
	err     string
}

func newExplorer(b Bound, o Options) *explorer {
	if b.Groups > seatsMax || b.Shards > ShardsMax || b.Configs > configsMax || b.Destroyed > destroyedMax || len(b.Ops) > OpsMax {
		panic(fmt.Sprintf("explore: bound %+v is beyond the limits", b))
	}
	x := &explorer{bound: b, opts: o, full: o.Full, pageBytes: 1, read: kvfsm.Get,
		localIDs: map[sum]uint32{}, reducedIDs: map[sum]uint32{}, configIDs: map[string]uint32{},
		factIDs: map[sum]uint32{}, commandIDs: map[string]uint32{}, steps: map[uint64]step{},
		pages: map[uint64][]uint32{}, expected: map[string][]byte{}, configs: []*config{nil},
		adopts: map[uint32]uint32{}, grantMoves: map[uint64][]uint32{}, made: map[uint64]uint32{}, alive: map[uint64]string{}}
	if b.WholePages {
		x.pageBytes = 1 << 20
	}
	if o.Plant != nil && o.Plant.Get != nil {
		x.read = o.Plant.Get
	}
	for s := range b.Shards {
		s := shardcfg.ShardID(s)
		var keys [][]byte
		for i := range b.Keys {
			keys = append(keys, key(b.Shards, s, i))
		}
		x.keys = append(x.keys, keys)
		if b.Expiry {
			x.floors = append(x.floors, x.internCommand(&kvfsm.RaiseFloor{Shard: s, Floor: floorNew}),
				x.internCommand(&kvfsm.Prune{Shard: s, Max: 100}))
		}
	}
	for i := range b.Ops {
		id := x.internCommand(b.write(i))
		x.commands[id].op = i
		x.writes = append(x.writes, id)
	}
	return x
}

// first returns the state in which nothing happened yet.
func (x *explorer) first() *state {
	st := &state{}
	for s := range st.claims {
		st.claims[s], st.mintedBy[s] = noInc, noInc
	}
	for seat := range x.bound.Groups {
		x.found(st, seat)
	}
	return st
}

// found puts a fresh group on a seat.
func (x *explorer) found(st *state, seat int) {
	st.locals[seat] = x.internLocal(st.inc(seat), store.NewMem())
	if x.full {
		st.past[seat] = append(st.past[seat][:0], st.locals[seat])
	}
}

func (x *explorer) internLocal(inc incID, s *store.Mem) uint32 {
	l := x.readLocal(inc, s)
	if id, ok := x.localIDs[l.whole]; ok {
		return id
	}
	x.learn(l)
	id := uint32(len(x.locals))
	x.locals = append(x.locals, l)
	x.localIDs[l.whole] = id
	return id
}

func (x *explorer) internCommand(c kvfsm.Command) uint32 {
	encoded := string(append(c.Append(nil), byte(c.Kind())))
	if id, ok := x.commandIDs[encoded]; ok {
		return id
	}
	shard, ok := shardOf(c)
	if w, write := c.(*kvfsm.Write); write {
		shard, ok = int(shardcfg.ShardOf(w.Key, x.bound.Shards)), true
	}
	if !ok {
		shard = -1
	}
	id := uint32(len(x.commands))
	x.commands = append(x.commands, command{cmd: c, shard: shard, op: -1})
	x.commandIDs[encoded] = id
	return id
}

// adopt returns the command that adopts a config.
func (x *explorer) adopt(config uint32) uint32 {
	id, ok := x.adopts[config]
	if !ok {
		id = x.internCommand(&kvfsm.Adopt{Cluster: shardcfg.ClusterID{7}, Config: x.configs[config].config})
		x.adopts[config] = id
	}
	return id
}

// step returns what a command does to a local.
func (x *explorer) step(id, cmd uint32) step {
	ref := uint64(id)<<32 | uint64(cmd)
	if s, ok := x.steps[ref]; ok {
		return s
	}
	s := x.run(id, x.commands[cmd].cmd)
	x.steps[ref] = s
	return s
}

func (x *explorer) run(id uint32, c kvfsm.Command) step {
	l := x.locals[id]
	s := l.store.Clone()
	g := Planted{Self: l.inc.peer(), View: &l.view, Store: s,
		do: func(c kvfsm.Command) (any, error) { return x.apply(l.inc, s, c) }}
	apply := g.Do
	if p := x.opts.Plant; p != nil && p.Apply != nil {
		apply = func(c kvfsm.Command) (any, error) { return p.Apply(&g, c) }
	}
	result, err := apply(c)
	s = g.Store
	if err == nil {
		err = s.Sync()
	}
	if err != nil {
		return step{to: id, err: err.Error()}
	}
	out := step{to: id}
	switch r := result.(type) {
	case kvfsm.Outcome:
		out.outcome = r
	case kvfsm.Verdict:
		out.verdict = r
	}
	if s.Hash() != l.store.Hash() {
		out.to = x.internLocal(l.inc, s)
	}
	return out
}

// apply runs one command, as an entry of its own, on a machine that just started
// from the store.
func (x *explorer) apply(inc incID, s *store.Mem, c kvfsm.Command) (any, error) {
	p := inc.peer()
	m := kvfsm.New(kvfsm.Config{Group: p.Group, Incarnation: p.Incarnation, ShardCount: x.bound.Shards, SessionResultsMax: OpsMax})
	if err := m.Reset(s); err != nil {
		return nil, err
	}
	b, err := s.NewBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	e := entry.Entry{Index: 1, Term: 1, Clock: clockNow, Commands: []entry.Command{kvfsm.Encode(c)}}
	results, err := m.Apply(b, &e)
	if err != nil {
		return nil, err
	}
	return results[0], b.Commit()
}
