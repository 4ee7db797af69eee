package explore

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A walk is a world of drivers that live long and remember much, above a state
// of a full search.
type walk struct {
	t       *testing.T
	x       *explorer
	rng     *rand.Rand
	st      state
	now     time.Duration
	drivers []*handoff.Driver
	mail    []func()
	queue   [][]uint32
	checked int
	kinds   [kindsMax]bool
}

// Claim: whatever a driver proposes that lives long and hears old, repeated and
// reordered messages, the search lets happen too: it loses nothing by asking
// only new drivers who heard one thing.
func TestDriversProposeNothingElse(t *testing.T) {
	checked := 0
	var kinds [kindsMax]bool
	for seed := range uint64(150) {
		b := Bound{Name: "walk", Groups: 2 + int(seed%2), Shards: 1 + int(seed/2%2), Keys: 1, Configs: configsMax, Ops: ops("a0 a0 a0"), Destroyed: int(seed / 4 % 3)}
		x := newExplorer(b, Options{Full: true})
		w := &walk{t: t, x: x, rng: rand.New(rand.NewPCG(seed, 7)), queue: make([][]uint32, b.Groups)}
		x.first().copyTo(&w.st)
		for seat := range b.Groups {
			w.drivers = append(w.drivers, handoff.NewDriver(w.st.inc(seat).identity(), handoff.DefaultParams()))
		}
		for range 4000 {
			w.act()
		}
		checked += w.checked
		for i, seen := range w.kinds {
			kinds[i] = kinds[i] || seen
		}
	}
	if t.Logf("%d proposals", checked); checked < 2000 {
		t.Errorf("the walks hardly led anywhere")
	}
	for _, c := range []kvfsm.Command{&kvfsm.Create{}, &kvfsm.Start{}, &kvfsm.Stage{}, &kvfsm.Chunk{}, &kvfsm.Install{}, &kvfsm.Freeze{}, &kvfsm.Drop{}, &kvfsm.Discard{}, &kvfsm.Thaw{}} {
		if i := int(c.Kind() - kvfsm.KindWrite); !kinds[i] {
			t.Errorf("no %s was proposed", kindNames[i])
		}
	}
}

func (w *walk) act() {
	w.now += time.Duration(w.rng.IntN(20)) * time.Millisecond
	seat := w.rng.IntN(w.x.bound.Groups)
	switch n := w.rng.IntN(100); {
	case n < 30:
		w.step(seat)
	case n < 60 && len(w.mail) > 0:
		w.mail[max(0, len(w.mail)-1-w.rng.IntN(12))]()
		if len(w.mail) > 60 {
			w.mail = w.mail[20:]
		}
	case n < 80:
		w.commit(seat)
	case n < 83:
		w.controllers()
	case n < 90:
		if n := int(w.st.configCount); n > 0 {
			w.apply(seat, w.x.adopt(w.st.configs[w.rng.IntN(n)]))
		}
	case n < 91:
		w.apply(seat, w.x.writes[w.rng.IntN(len(w.x.writes))])
	case n < 92:
		w.drivers[seat] = handoff.NewDriver(w.st.inc(seat).identity(), handoff.DefaultParams())
	default:
		w.hear(seat)
	}
}

// take is how a step of the search becomes the walk's.
func (w *walk) take(_ action, next *state, bad string) {
	if bad != "" {
		w.t.Fatal(bad)
	}
	next.copyTo(&w.st)
}

func (w *walk) apply(seat int, cmd uint32) {
	w.x.expandCommand(&w.st, action{actApply, seat, cmd}, w.take)
}

// controllers takes one of the controllers' steps, configs rarely.
func (w *walk) controllers() {
	var choice []state
	consider := func(a action, next *state, _ string) {
		rare := 25
		switch {
		case a.kind == actDestroy && w.frozenFor(a.seat):
			rare = 2
		case a.kind == actDestroy:
			rare = 400
		case a.kind == actConfig && int(w.st.configCount) >= configsMax-w.x.bound.Destroyed:
			return // the others are for groups that are destroyed
		}
		if (a.kind == actConfig || a.kind == actDestroy) && w.rng.IntN(rare) > 0 {
			return
		}
		var c state
		next.copyTo(&c)
		choice = append(choice, c)
	}
	w.x.expandControllers(&w.st, consider)
	w.x.expandDisasters(&w.st, consider)
	if len(choice) == 0 {
		return
	}
	before := w.st.lives
	w.st = choice[w.rng.IntN(len(choice))]
	for seat, life := range before {
		if w.st.lives[seat] != life { // another group is there now
			w.drivers[seat], w.queue[seat] = handoff.NewDriver(w.st.inc(seat).identity(), handoff.DefaultParams()), nil
		}
	}
}

// frozenFor reports whether a shard waits for a seat's group.
func (w *walk) frozenFor(seat int) bool {
	for other := range w.x.bound.Groups {
		for _, sh := range w.x.locals[w.st.locals[other]].shards {
			if sh.phase == kvfsm.PhaseFrozen && sh.to == w.st.inc(seat) {
				return true
			}
		}
	}
	return false
}

// view returns a present or a past state of a group.
func (w *walk) view(seat int) *local {
	past := w.st.past[seat]
	if w.rng.IntN(4) == 0 {
		return w.x.locals[past[w.rng.IntN(len(past))]]
	}
	return w.x.locals[w.st.locals[seat]]
}

func (w *walk) step(seat int) {
	a, err := w.drivers[seat].Step(w.now, w.view(seat).view)
	if err != nil {
		w.t.Fatal(err)
	}
	may := slices.Clone(w.x.proposable(&w.st, seat))
	for _, c := range slices.Concat(a.Proposals, a.Copies) {
		id := w.x.internCommand(c)
		if !slices.Contains(may, id) {
			w.t.Fatalf("%v proposes what the search does not: %s\n%s", w.st.inc(seat), describeCommand(c), w.x.describeState(&w.st))
		}
		w.queue[seat] = append(w.queue[seat], id)
		w.checked++
		w.kinds[c.Kind()-kvfsm.KindWrite] = true
	}
	for _, in := range a.Invites {
		to := incOf(in.To.Incarnation).seat()
		w.mail = append(w.mail, func() { w.invited(seat, to, in) })
	}
	for _, f := range a.Fetches {
		at := incOf(f.From.Incarnation).seat()
		w.mail = append(w.mail, func() { w.fetched(seat, at, f) })
	}
}

func (w *walk) invited(from, to int, in handoff.Invite) {
	w.drivers[to].Invited(w.now, in)
	reply := handoff.Answer(w.st.inc(to).identity(), &w.view(to).view, in)
	w.mail = append(w.mail, func() { w.drivers[from].Answered(w.now, in, reply) })
}

func (w *walk) fetched(by, at int, f handoff.Fetch) {
	pages, err := w.x.readPages(w.view(at).store, f.To, f.Wants, w.x.pageBytes)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.rng.IntN(2) == 0 {
		w.drivers[at].Wanted(w.now, f.To, f.Wants)
	}
	w.mail = append(w.mail, func() { w.drivers[by].Fetched(w.now, f, pages) })
}

func (w *walk) commit(seat int) {
	if len(w.queue[seat]) == 0 {
		return
	}
	i := w.rng.IntN(len(w.queue[seat]))
	w.apply(seat, w.queue[seat][i])
	if w.rng.IntN(3) > 0 {
		w.queue[seat] = slices.Delete(w.queue[seat], i, i+1)
	}
}

// hear lets a driver poll the controllers: claims, and reports of others.
func (w *walk) hear(seat int) {
	inc := w.st.inc(seat)
	for i, g := range w.st.grants[:w.st.gens] {
		if g.group == inc {
			w.drivers[seat].Granted([]handoff.Grant{w.x.message(g, w.st.genOf(i))})
		}
	}
	for s := range w.x.bound.Shards {
		if w.st.claims[s] == inc {
			w.drivers[seat].Claimed([]shardcfg.ShardID{shardcfg.ShardID(s)})
		}
		other := w.rng.IntN(w.x.bound.Groups)
		if sh := &w.view(other).shards[s]; other != seat && (sh.phase.Serves() || sh.phase == kvfsm.PhaseFrozen) {
			w.drivers[seat].Heard(shardcfg.ShardID(s), sh.own.Epoch, w.st.inc(other).peer().Incarnation)
		}
	}
}
