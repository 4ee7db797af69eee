package sim

import (
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// states are the newest states of all groups that exist.
func (w *World) states() []handoff.GroupState {
	var states []handoff.GroupState
	for _, l := range w.lives {
		if !l.over {
			states = append(states, handoff.GroupState{Self: l.self, View: l.newest()})
		}
	}
	return states
}

// observe checks the invariants of records, after every entry that changed some.
func (w *World) observe() {
	if found := w.monitor.Observe(w.states()); len(found) > 0 {
		w.fail(found[0].Invariant, "%v", found)
	}
	for _, l := range w.lives {
		if !l.over && l.drained != 0 {
			w.checkDrained(l)
		}
	}
}

// checkDrained: a group that the controllers let go holds nothing, and takes
// nothing on until it is named again (INV-8).
func (w *World) checkDrained(l *life) {
	v := l.newest()
	for i := range v.Records {
		r := &v.Records[i]
		if r.Phase.Serves() || r.Phase == kvfsm.PhaseFrozen || r.Staging != nil {
			w.fail("INV-8", "%s was let go at config %d and is %v of shard %d (staging %v)", l.g.name, l.drained, r.Phase, r.Shard, r.Staging != nil)
		}
	}
	claims, err := w.controllers.view.ClaimsOf(l.self.Incarnation)
	w.check(err, "read the claims")
	for _, s := range claims {
		if rec := v.Record(s); rec.Epoch.IsZero() {
			w.fail("INV-8", "%s was let go at config %d and has a claim to shard %d that it has not created", l.g.name, l.drained, s)
		}
	}
}

// configChanged watches who is let go, and who is named again.
func (w *World) configChanged(was, is *shardcfg.Config) {
	for _, l := range w.lives {
		_, before := was.GroupOf(l.self.Incarnation)
		_, after := is.GroupOf(l.self.Incarnation)
		switch {
		case after:
			l.drained, l.bound = 0, true
		case before && !l.over:
			l.drained = is.Num
			w.stats.Drained++
			w.trace.note(traceDrained, int(l.self.Group), uint64(is.Num), 0)
			w.checkDrained(l)
		}
	}
}

// commanded checks the verdict of a command of a handoff.
func (w *World) commanded(l *life, st *state, c kvfsm.Command, v kvfsm.Verdict) {
	w.trace.note(traceCommand, int(c.Kind()), uint64(v.Why), uint64(l.self.Group))
	shard, _ := kvfsm.HandoffShard(c)
	switch {
	case w.garbled[shard]:
	case v.Why == kvfsm.ReasonDigest:
		w.fail("INV-6", "%s: the staged copy differs from the holder's: %+v", l.g.name, c)
	case v.Why == kvfsm.ReasonItems:
		w.fail("INV-6", "%s: malformed items: %+v", l.g.name, c)
	}
	if !v.Done {
		return
	}
	switch c := c.(type) {
	case *kvfsm.Create:
		if c.Gen > 0 {
			w.model.repaired(w, l, st, c.Shard, shardcfg.Epoch{})
		}
	case *kvfsm.Thaw:
		w.model.repaired(w, l, st, c.Shard, c.Epoch)
	case *kvfsm.Install:
		w.stats.Installs++
	case *kvfsm.Drop:
		w.stats.Handoffs++
	case *kvfsm.Discard:
		w.stats.Discards++
	case *kvfsm.RaiseFloor:
		w.stats.happened(KindExpiry)
		w.model.floor[c.Shard] = max(w.model.floor[c.Shard], c.Floor)
	}
}

// rested reports whether everything is where it should be; if not, why.
func (w *World) rested() (why string) {
	latest := w.controllers.latest
	for _, gid := range latest.GroupIDs() {
		if latest.Groups[gid].State == shardcfg.GroupLeaving {
			return "a group is still leaving"
		}
	}
	for _, l := range w.lives {
		if _, listed := latest.GroupOf(l.self.Incarnation); listed && !l.over && l.newest().Adopted() < latest.Num {
			return l.g.name + " has not adopted the latest config"
		}
	}
	for _, gid := range latest.GroupIDs() {
		if latest.Groups[gid].Incarnation.IsZero() {
			return "a group is not bound yet"
		}
	}
	if found := handoff.CheckRest(w.states(), latest); len(found) > 0 {
		return found[0].String()
	}
	return ""
}

// even reports whether all replicas of all groups have applied everything.
func (w *World) even() bool {
	return !slices.ContainsFunc(w.groups(), func(g *raftGroup) bool {
		return slices.ContainsFunc(g.replicas, func(r *replica) bool {
			return r.machine.index() != g.newest.index || r.last() != g.newest.index
		})
	})
}

// groups are all that exist, the controllers among them.
func (w *World) groups() []*raftGroup {
	list := []*raftGroup{w.controllers.g}
	for _, l := range w.lives {
		if !l.over {
			list = append(list, l.g)
		}
	}
	return list
}

// checkContents: replicas are equal, each copy is what its digest says (INV-6), and
// nothing is stored beside the copies.
func (w *World) checkContents() {
	for i, g := range w.groups() {
		for _, r := range g.replicas {
			if r.machine.at.mem.Hash() != g.newest.mem.Hash() {
				w.fail("divergence", "%s: %s differs from the others at %d", g.name, r.n.addr, g.newest.index)
			}
		}
		w.trace.note(traceState, i, g.newest.mem.Hash().High, g.newest.mem.Hash().Low)
	}
	for _, l := range w.lives {
		if l.over {
			continue
		}
		for s := range shardcfg.ShardID(w.p.Shards) {
			if err := kvfsm.CheckContent(l.g.newest.mem, s); err != nil {
				w.fail("INV-6", "%s: %v", l.g.name, err)
			}
			if err := kvfsm.CheckLeftovers(l.g.newest.mem, s); err != nil {
				w.fail("leftovers", "%s: %v", l.g.name, err)
			}
		}
	}
}
