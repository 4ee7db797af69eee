package explore

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A fair run is the real drivers at work from some state, with no adversary, all
// groups alive but one or none: everything must come to rest where INV-5 and
// INV-9 say.
type fairRun struct {
	x       *explorer
	st      state
	dead    int // a seat; -1: none
	now     time.Duration
	drivers [seatsMax]*handoff.Driver
	// loose are the shards whose fate hangs on the dead group: they may stay.
	loose [ShardsMax]bool
}

const (
	fairRounds = 300
	fairTick   = 50 * time.Millisecond
)

// checkLive runs every choice of one dead group and of none. It returns what
// does not come to rest; empty: nothing.
func (x *explorer) checkLive(st *state) string {
	if st.configCount == 0 {
		return ""
	}
	for dead := -1; dead < x.bound.Groups; dead++ {
		ref := x.fairRef(st, dead)
		bad, ok := x.alive[ref]
		if !ok {
			bad = x.runFair(st, dead)
			x.alive[ref] = bad
		}
		if bad != "" {
			return bad
		}
	}
	return ""
}

// fairRef identifies what a fair run depends on.
func (x *explorer) fairRef(st *state, dead int) uint64 {
	h := mix(hashSeed, uint64(dead+1))
	for seat := range x.bound.Groups {
		h = mix(h, uint64(st.locals[seat])+1)
	}
	for s := range x.bound.Shards {
		h = mix(h, uint64(st.claims[s])<<8|uint64(st.minted[s]))
	}
	for _, w := range st.appendDisasters(nil, &x.bound) {
		h = mix(h, uint64(w))
	}
	return mix(h, uint64(st.configs[st.configCount-1]))
}

func (x *explorer) runFair(st *state, dead int) string {
	r := &fairRun{x: x, dead: dead}
	st.copyTo(&r.st)
	for seat := range x.bound.Groups {
		r.drivers[seat] = handoff.NewDriver(st.inc(seat).identity(), handoff.DefaultParams())
	}
	for s := range x.bound.Shards {
		r.loose[s] = r.isLoose(s)
	}
	bad := ""
	for range fairRounds {
		if bad = r.unrest(); bad == "" {
			return ""
		}
		r.now += fairTick
		r.repair()
		for seat := range x.bound.Groups {
			if seat != dead {
				if why := r.round(seat); why != "" {
					return why
				}
			}
		}
	}
	who := "no group"
	if dead >= 0 {
		who = fmt.Sprint(st.inc(dead))
	}
	return fmt.Sprintf("%s (from here on a fair schedule, with %s dead)", bad, who)
}

// isLoose reports whether a shard may stay where it is: it is at the dead group,
// or frozen towards it, or claimed by it and not created.
func (r *fairRun) isLoose(s int) bool {
	if r.dead < 0 {
		return false
	}
	gone := r.st.inc(r.dead)
	if r.st.minted[s] == 0 {
		return r.st.claims[s] == gone
	}
	for seat := range r.x.bound.Groups {
		l := r.local(seat)
		sh := &l.shards[s]
		if (sh.phase.Serves() || sh.phase == kvfsm.PhaseFrozen) && sh.epoch == uint64(r.st.minted[s]) {
			return l.inc == gone || sh.phase == kvfsm.PhaseFrozen && sh.to == gone
		}
	}
	return false
}

func (r *fairRun) local(seat int) *local { return r.x.locals[r.st.locals[seat]] }

// unrest says what is not where it should be.
func (r *fairRun) unrest() string {
	newest := r.x.newest(&r.st)
	for s := range r.x.bound.Shards {
		if r.loose[s] || r.awaitsRepair(s) {
			continue
		}
		owner := newest.owners[s]
		ownerDead := r.x.present(&r.st, owner) == nil || owner.seat() == r.dead
		if ownerDead && r.st.minted[s] == 0 {
			continue // nobody may claim
		}
		if bad := r.unrestOf(s, owner, ownerDead); bad != "" {
			return bad
		}
	}
	return ""
}

func (r *fairRun) unrestOf(s int, owner incID, ownerDead bool) string {
	served := false
	for seat := range r.x.bound.Groups {
		if seat == r.dead {
			continue
		}
		l := r.local(seat)
		sh := &l.shards[s]
		served = served || sh.phase.Serves() && ownerDead || sh.phase == kvfsm.PhaseServing && l.inc == owner
		if sh.phase == kvfsm.PhaseFrozen {
			return fmt.Sprintf("INV-5 Live: %v is frozen of shard %d", l.inc, s)
		}
		if sh.staging && sh.st.from.seat() != r.dead && !ownerDead {
			return fmt.Sprintf("INV-9 NoLeak: %v still stages shard %d", l.inc, s)
		}
	}
	if !served {
		return fmt.Sprintf("INV-5 Live: shard %d is not served by its owner %v (dead: %v), or by whoever holds it", s, owner, ownerDead)
	}
	return ""
}

// round lets one group hear the controllers, act, and hear the answers.
func (r *fairRun) round(seat int) string {
	r.poll(seat)
	for range 2 {
		a, err := r.drivers[seat].Step(r.now, r.local(seat).view)
		if err != nil {
			return "the driver stops: " + err.Error()
		}
		for _, in := range a.Invites {
			r.invite(seat, in)
		}
		for _, f := range a.Fetches {
			r.fetch(seat, f)
		}
		for _, s := range a.Claims {
			r.claim(seat, int(s))
		}
		for _, c := range slices.Concat(a.Proposals, a.Copies) {
			if bad := r.propose(seat, c); bad != "" {
				return bad
			}
		}
		r.now += time.Millisecond
	}
	return ""
}

func (r *fairRun) poll(seat int) {
	st, l := &r.st, r.local(seat)
	if newest := st.configs[st.configCount-1]; l.view.Adopted() < r.x.configs[newest].config.Num {
		st.locals[seat] = r.x.step(st.locals[seat], r.x.adopt(newest)).to
	}
	for s := range r.x.bound.Shards {
		if st.claims[s] == l.inc && !r.forgets() {
			r.drivers[seat].Claimed([]shardcfg.ShardID{shardcfg.ShardID(s)})
		}
		r.tell(seat)
		for other := range r.x.bound.Groups {
			if other == r.dead || other == seat {
				continue
			}
			if sh := &r.local(other).shards[s]; sh.phase.Serves() || sh.phase == kvfsm.PhaseFrozen {
				r.drivers[seat].Heard(shardcfg.ShardID(s), sh.own.Epoch, st.inc(other).peer().Incarnation)
			}
		}
	}
}

func (r *fairRun) forgets() bool { return r.x.opts.Plant != nil && r.x.opts.Plant.ForgetClaims }

func (r *fairRun) claim(seat, s int) {
	if r.st.claims[s] == noInc && r.x.newest(&r.st).owners[s] == r.st.inc(seat) {
		r.st.claims[s] = r.st.inc(seat)
	}
}

// reach returns the seat of a living group; -1 if it can't be reached.
func (r *fairRun) reach(id shardcfg.Incarnation) int {
	if inc := incOf(id); r.x.present(&r.st, inc) != nil && inc.seat() != r.dead {
		return inc.seat()
	}
	return -1
}

func (r *fairRun) invite(from int, in handoff.Invite) {
	to := r.reach(in.To.Incarnation)
	if to < 0 {
		return
	}
	r.drivers[to].Invited(r.now, in)
	reply := handoff.Answer(r.st.inc(to).identity(), &r.local(to).view, in)
	r.drivers[from].Answered(r.now, in, reply)
}

func (r *fairRun) fetch(by int, f handoff.Fetch) {
	at := r.reach(f.From.Incarnation)
	if at < 0 {
		r.drivers[by].FetchFailed(r.now, f)
		return
	}
	r.drivers[at].Wanted(r.now, f.To, f.Wants)
	pages, err := r.x.readPages(r.local(at).store, f.To, f.Wants, 1<<20)
	if err != nil {
		r.drivers[by].FetchFailed(r.now, f)
		return
	}
	r.drivers[by].Fetched(r.now, f, pages)
}

func (r *fairRun) propose(seat int, c kvfsm.Command) string {
	out := r.x.step(r.st.locals[seat], r.x.internCommand(c))
	if out.err != "" {
		return "the machine stops: " + out.err
	}
	r.st.locals[seat] = out.to
	l := r.x.locals[out.to]
	for s := range l.shards {
		if sh := &l.shards[s]; sh.phase.Serves() && uint8(sh.epoch) > r.st.minted[s] {
			r.st.minted[s], r.st.mintedBy[s] = uint8(sh.epoch), l.inc
		}
	}
	r.drivers[seat].Proposed(r.now, c, out.verdict, nil)
	return ""
}
