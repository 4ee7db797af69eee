package handoff_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A world is a few groups around the real machines and drivers, in one thread,
// with an adversary as the network and as the clock: it delays, reorders,
// repeats and loses messages and proposals, lets replicas that lag answer, and
// changes leaders.
type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	now    time.Duration
	shards int
	groups []*group

	configs []*shardcfg.Config // by number
	claims  map[shardcfg.ShardID]shardcfg.Incarnation

	mail    []mail
	monitor *handoff.Monitor
	calm    bool // no adversary: deliver everything, at once
	trace   bytes.Buffer
	model   model
	moves   int // shards installed
	repeats int
	// pageBytes bounds the pages; 0: a small random number.
	pageBytes int
}

// group is one group: one log, one machine, one leader at a time.
type group struct {
	id      handoff.Identity
	machine *kvfsm.Machine
	store   *store.Mem
	past    []*store.Mem // earlier states: replicas that lag
	driver  *handoff.Driver
	log     []entry.Entry
	queue   []kvfsm.Command // proposed, not committed
	ever    []kvfsm.Command // every proposal: any may come, or come again, ever later
	view    handoff.View
}

// mail is a message under way.
type mail struct {
	to      shardcfg.Incarnation
	deliver func(g *group)
}

var cluster = shardcfg.ClusterID{7}

// tightParams make pages and limits small, so that every path is taken.
func tightParams() handoff.Params {
	p := handoff.DefaultParams()
	p.FetchShardsMax = 2
	p.ThrottleRounds = 3
	p.FetchTimeout = 150 * time.Millisecond
	p.AtHandBytesMax = 2 * p.PageBytes
	p.ProposeTimeout = 300 * time.Millisecond
	return p
}

func newWorld(t *testing.T, seed uint64, groups, shards int) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), shards: shards,
		claims: map[shardcfg.ShardID]shardcfg.Incarnation{}, monitor: handoff.NewMonitor(),
		model: newModel(),
	}
	w.configs = []*shardcfg.Config{{Shards: make([]shardcfg.GroupID, shards)}}
	for i := range groups {
		gid := shardcfg.GroupID(i + 1)
		g := &group{store: store.NewMem(), id: handoff.Identity{
			Peer:     kvfsm.Peer{Incarnation: shardcfg.Incarnation{byte(gid)}, Group: gid},
			Replicas: []string{fmt.Sprintf("g%d:1", gid)},
		}}
		g.machine = newMachine(t, g.id.Peer, shards, g.store)
		w.groups = append(w.groups, g)
		w.elect(g)
		w.look(g)
	}
	return w
}

func newMachine(t *testing.T, p kvfsm.Peer, shards int, s store.Reader) *kvfsm.Machine {
	m := kvfsm.New(kvfsm.Config{Group: p.Group, Incarnation: p.Incarnation, ShardCount: shards, SessionResultsMax: 8})
	if err := m.Reset(s); err != nil {
		t.Fatal(err)
	}
	return m
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

// elect gives the group a new leader, who remembers nothing.
func (w *world) elect(g *group) { g.driver = handoff.NewDriver(g.id, tightParams()) }

func (w *world) look(g *group) {
	v, err := handoff.ReadView(g.store, &g.view)
	if err != nil {
		w.fatalf("view: %v", err)
	}
	g.view = v
}

// changeConfig makes the next config: each shard moves with some probability.
func (w *world) changeConfig() {
	c := w.configs[len(w.configs)-1].Clone()
	c.Num++
	for _, g := range w.groups {
		c.Groups[g.id.Peer.Group] = shardcfg.Group{Incarnation: g.id.Peer.Incarnation,
			Replicas: g.id.Replicas, Weight: 1, State: shardcfg.GroupMember}
	}
	for s := range c.Shards {
		if c.Shards[s] == 0 || w.rng.IntN(2) == 0 {
			c.Shards[s] = w.groups[w.rng.IntN(len(w.groups))].id.Peer.Group
		}
	}
	w.configs = append(w.configs, c)
}

func (w *world) latest() *shardcfg.Config { return w.configs[len(w.configs)-1] }

// commit applies some of a group's queue as one entry.
func (w *world) commit(g *group) {
	if len(g.queue) == 0 {
		return
	}
	if !w.calm {
		w.rng.Shuffle(len(g.queue), func(i, j int) { g.queue[i], g.queue[j] = g.queue[j], g.queue[i] })
	}
	n := 1 + w.rng.IntN(len(g.queue))
	if w.calm {
		n = len(g.queue)
	}
	cmds := slices.Clone(g.queue[:n])
	g.queue = slices.Clone(g.queue[n:])
	if !w.calm && w.rng.IntN(4) == 0 {
		// A proposal whose proposer lost track of it comes again, later.
		g.queue = append(g.queue, cmds[w.rng.IntN(n)])
	}
	if !w.calm && len(g.ever) > 0 && w.rng.IntN(4) == 0 {
		cmds = append(cmds, g.ever[w.rng.IntN(len(g.ever))])
	}
	e := entry.Entry{Index: uint64(len(g.log) + 1), Term: 1, Clock: 1e9 + uint64(w.now/time.Millisecond)}
	for _, c := range cmds {
		e.Commands = append(e.Commands, kvfsm.Encode(c))
	}
	encoded := e.Append(nil)
	decoded, err := entry.Decode(encoded)
	if err != nil {
		w.fatalf("entry: %v", err)
	}
	decoded.Index = e.Index
	g.log = append(g.log, e)
	results := applyEntry(w.t, g.machine, g.store, &decoded)
	clear(encoded) // the machine may not keep what commands alias
	w.look(g)
	for i, c := range cmds {
		w.result(g, c, results[i])
	}
	if w.rng.IntN(3) == 0 {
		g.past = append(g.past, g.store.Clone())
		if len(g.past) > 12 {
			g.past = slices.Delete(g.past, 0, 1+w.rng.IntN(3))
		}
	}
	w.check()
}

func applyEntry(t *testing.T, m *kvfsm.Machine, s *store.Mem, e *entry.Entry) []any {
	t.Helper()
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	results, err := m.Apply(b, e)
	if err != nil {
		t.Fatalf("entry %d: %v", e.Index, err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return results
}

// result takes in what a command did.
func (w *world) result(g *group, c kvfsm.Command, res any) {
	fmt.Fprintf(&w.trace, "%d g%d %T %+v\n", w.now, g.id.Peer.Group, c, res)
	if wr, ok := c.(*kvfsm.Write); ok {
		out := res.(kvfsm.Outcome)
		if out.Repeat {
			w.repeats++
		}
		if err := w.model.wrote(wr, out, w.shards); err != nil {
			w.fatalf("%v", err)
		}
		return
	}
	v := res.(kvfsm.Verdict)
	if v.Why == kvfsm.ReasonDigest {
		w.fatalf("INV-6: group %d: digest differs for %+v", g.id.Peer.Group, c)
	}
	if v.Why == kvfsm.ReasonItems {
		w.fatalf("malformed items in %+v", c)
	}
	if _, ok := c.(*kvfsm.Install); ok && v.Done {
		w.moves++
	}
	if r, ok := c.(*kvfsm.RaiseFloor); ok && v.Done {
		w.model.floor[r.Shard] = r.Floor
	}
	if !w.calm && w.rng.IntN(8) == 0 {
		return // the proposer never learns
	}
	g.driver.Proposed(w.now, c, v, nil)
}

// check asserts the invariants over all groups.
func (w *world) check() {
	if v := w.monitor.Observe(w.states()); len(v) > 0 {
		w.fatalf("%v\n%s", v, w.trace.String())
	}
}

func (w *world) states() (states []handoff.GroupState) {
	for _, g := range w.groups {
		states = append(states, handoff.GroupState{Self: g.id.Peer, View: &g.view})
	}
	return states
}

// replica returns the state of some replica of g, which may lag.
func (w *world) replica(g *group) *store.Mem {
	if w.calm || len(g.past) == 0 || w.rng.IntN(2) == 0 {
		return g.store
	}
	return g.past[w.rng.IntN(len(g.past))]
}

// step runs a group's driver and carries out what it says.
func (w *world) step(g *group) {
	v := g.view
	if !w.calm && w.rng.IntN(6) == 0 {
		// A leader whose applied state lags.
		old, err := handoff.ReadView(w.replica(g), nil)
		if err != nil {
			w.fatalf("view: %v", err)
		}
		v = old
	}
	a, err := g.driver.Step(w.now, v)
	if err != nil {
		w.fatalf("step: %v", err)
	}
	g.queue = append(g.queue, proposals(a)...)
	g.ever = append(g.ever, proposals(a)...)
	for _, s := range a.Claims {
		owner := w.latest().Shards[s]
		if _, taken := w.claims[s]; !taken && owner == g.id.Peer.Group {
			w.claims[s] = g.id.Peer.Incarnation
		}
	}
	if a.AdoptAtLeast > g.view.Adopted() {
		w.adopt(g, a.AdoptAtLeast)
	}
	for _, in := range a.Invites {
		w.send(in.To.Incarnation, func(to *group) { w.invited(to, g, in) })
	}
	for _, f := range a.Fetches {
		w.send(f.From.Incarnation, func(from *group) { w.wanted(from, g, f) })
	}
}

// proposals are all of them.
func proposals(a handoff.Actions) []kvfsm.Command { return slices.Concat(a.Proposals, a.Copies) }

// act is one step of the adversary.
func (w *world) act() {
	w.now += time.Duration(w.rng.IntN(10)) * time.Millisecond
	g := w.groups[w.rng.IntN(len(w.groups))]
	switch n := w.rng.IntN(100); {
	case n < 22:
		w.step(g)
	case n < 50:
		w.deliver()
	case n < 70:
		w.commit(g)
	case n < 86:
		w.write(g)
	case n < 90:
		w.read(g)
	case n < 94:
		w.poll(g)
	case n < 95:
		w.elect(g)
	case n < 96:
		if w.rng.IntN(3) == 0 {
			w.changeConfig()
		}
	case n < 97:
		// A replica restarts: the machine is a function of its store.
		g.machine = newMachine(w.t, g.id.Peer, w.shards, g.store)
	case n < 99:
		s := shardcfg.ShardID(w.rng.IntN(w.shards))
		g.queue = append(g.queue, &kvfsm.Prune{Shard: s, Max: uint32(1 + w.rng.IntN(3))})
	default:
		s := shardcfg.ShardID(w.rng.IntN(w.shards))
		clock := 1e9 + uint64(w.now/time.Millisecond)
		g.queue = append(g.queue, &kvfsm.RaiseFloor{Shard: s, Floor: clock - uint64(w.rng.IntN(4000))})
	}
}

// settle lets everything come to rest, without an adversary.
func (w *world) settle() {
	w.calm = true
	w.mail = nil
	for _, g := range w.groups {
		g.queue = nil
	}
	for round := 0; round < 400; round++ {
		w.now += 25 * time.Millisecond
		for _, g := range w.groups {
			w.poll(g)
			w.step(g)
			for len(w.mail) > 0 {
				w.deliver()
			}
			w.step(g)
			w.commit(g)
		}
		if len(handoff.CheckRest(w.states(), w.latest())) == 0 && round > 4 {
			return
		}
	}
	for _, g := range w.groups {
		w.t.Logf("group %d: %+v", g.id.Peer.Group, g.driver.Progress(w.now))
		for _, r := range g.view.Records {
			w.t.Logf("  %+v staging %+v", r, r.Staging)
		}
	}
	w.fatalf("does not settle: %v", handoff.CheckRest(w.states(), w.latest()))
}

// write proposes a write of one of a few clients, a new one or a repeat.
func (w *world) write(g *group) {
	g.queue = append(g.queue, w.model.next(w.rng, 1e9+uint64(w.now/time.Millisecond)))
}

// read asserts that whoever serves a key serves its newest value (INV-3).
func (w *world) read(g *group) {
	for i := range keyCount {
		key := keyName(i)
		got, err := kvfsm.Get(g.store, w.shards, key)
		if err != nil {
			w.fatalf("get: %v", err)
		}
		want, ok := w.model.value[string(key)]
		switch got.Code {
		case kvfsm.CodeOK:
			if !ok || want != string(got.Value) {
				w.fatalf("INV-3: group %d serves %q of %q, want %q (present %v)", g.id.Peer.Group, got.Value, key, want, ok)
			}
		case kvfsm.CodeNotFound:
			if ok {
				w.fatalf("INV-3: group %d serves nothing of %q, want %q", g.id.Peer.Group, key, want)
			}
		}
	}
}

var seeds = flag.Int("seeds", 30, "worlds to run")
var firstSeed = flag.Uint64("seed", 1, "the first world's seed")

// Under an adversary that delays, reorders, repeats and loses everything, no
// acknowledged write is lost or executed twice, no state breaks an invariant,
// and once the adversary rests every shard ends at its owner with the digest
// that its items have. Replaying a group's log gives the same store.
func TestHandoffWorld(t *testing.T) {
	var moves, repeats, discarded int
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds); seed++ {
		w := newWorld(t, seed, 2+int(seed%2), 1<<(seed%3))
		w.changeConfig()
		for range 6000 {
			w.act()
		}
		w.settle()
		w.calm = true
		for _, g := range w.groups {
			w.read(g)
			for _, r := range g.view.Records {
				if err := kvfsm.CheckContent(g.store, r.Shard); err != nil {
					w.fatalf("INV-6: group %d: %v", g.id.Peer.Group, err)
				}
				if err := kvfsm.CheckLeftovers(g.store, r.Shard); err != nil {
					w.fatalf("group %d: %v", g.id.Peer.Group, err)
				}
			}
			w.replay(g)
		}
		moves += w.moves
		repeats += w.repeats
		discarded += bytes.Count(w.trace.Bytes(), []byte("*kvfsm.Discard {Done:true"))
	}
	t.Logf("%d worlds: %d handoffs, %d repeats answered, %d stagings discarded", *seeds, moves, repeats, discarded)
	if moves < 4**seeds || repeats == 0 || discarded == 0 {
		t.Errorf("the adversary hardly let anything happen")
	}
}

// replay applies the log to two empty stores, one entry per batch and many, and
// compares hashes.
func (w *world) replay(g *group) {
	s := store.NewMem()
	m := newMachine(w.t, g.id.Peer, w.shards, s)
	for i := range g.log {
		applyEntry(w.t, m, s, &g.log[i])
	}
	packed := store.NewMem()
	m = newMachine(w.t, g.id.Peer, w.shards, packed)
	for first := 0; first < len(g.log); {
		b, err := packed.NewBatch()
		if err != nil {
			w.fatalf("%v", err)
		}
		end := min(len(g.log), first+1+w.rng.IntN(6))
		for ; first < end; first++ {
			if _, err := m.Apply(b, &g.log[first]); err != nil {
				w.fatalf("replay: %v", err)
			}
		}
		if err := b.Commit(); err != nil {
			w.fatalf("%v", err)
		}
	}
	if s.Hash() != g.store.Hash() || packed.Hash() != g.store.Hash() {
		w.fatalf("group %d: a replay of the log gives another store", g.id.Peer.Group)
	}
}
