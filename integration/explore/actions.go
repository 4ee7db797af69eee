package explore

import (
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

type actionKind uint8

const (
	actApply   actionKind = iota // a group's log gets a command
	actFault                     // a staging is damaged by a command that nobody proposed
	actConfig                    // the controllers make a config
	actClaim                     // they grant a claim
	actEmpty                     // a drained group is emptied, and joins again
	actDestroy                   // a group is destroyed, and retired by a config
	actAnswer                    // a group answers what it has
	actRepair                    // the controllers grant a repair
)

// An action is what leads from one state to the next.
type action struct {
	kind actionKind
	seat int
	arg  uint32 // a command, a config, or a shard
}

// expand calls emit with every action that changes a state and what comes of
// it. next is only valid during the call.
func (x *explorer) expand(st *state, emit func(a action, next *state, bad string)) {
	x.expandControllers(st, emit)
	x.expandDisasters(st, emit)
	for seat := range x.bound.Groups {
		for _, cmd := range x.proposable(st, seat) {
			x.expandCommand(st, action{actApply, seat, cmd}, emit)
		}
		if int(st.faults) < x.bound.Faults {
			for _, cmd := range x.damages(st, seat) {
				x.expandCommand(st, action{actFault, seat, cmd}, emit)
			}
		}
	}
}

// proposable returns every command that somebody who leads the group, or
// believes so, may have proposed, and every write that a client may have sent.
func (x *explorer) proposable(st *state, seat int) []uint32 {
	list := x.scratch.commands[:0]
	inc := st.inc(seat)
	views := []uint32{st.locals[seat]}
	if x.full {
		views = st.past[seat]
	}
	if x.named(st, inc) {
		for _, c := range st.configs[:st.configCount] {
			list = append(list, x.adopt(c))
		}
	}
	for _, id := range views {
		for s := range x.bound.Shards {
			list = x.handoffMoves(list, st, id, s)
		}
	}
	for op, cmd := range x.writes {
		if x.maySend(st, op) {
			list = append(list, cmd)
		}
	}
	list = append(list, x.floors...)
	x.scratch.commands = list
	slices.Sort(list)
	return slices.Compact(list)
}

// maySend reports whether a client may have sent an operation: whether those
// below its mark were executed.
func (x *explorer) maySend(st *state, op int) bool {
	for o := range int(x.bound.Ops[op].AckedBelow) - 1 {
		if !x.done(st, o) {
			return false
		}
	}
	return true
}

// named reports whether any config named the group an owner. Before that no
// group is told from another, so that what it adopts early it may as well adopt
// late.
func (x *explorer) named(st *state, inc incID) bool {
	for _, c := range st.configs[:st.configCount] {
		if slices.Contains(x.configs[c].owners[:x.bound.Shards], inc) {
			return true
		}
	}
	return false
}

// handoffMoves adds what a leader that stands in a local would propose for a
// shard.
func (x *explorer) handoffMoves(list []uint32, st *state, id uint32, s int) []uint32 {
	l := x.locals[id]
	sh, moves := &l.shards[s], x.moves(l, s)
	list = append(list, moves.ready...)
	if uint64(st.minted[s]) > sh.epoch {
		list = append(list, moves.proof...)
	}
	if st.claims[s] == l.inc {
		list = append(list, moves.claimed...)
	}
	list = x.granted(list, st, id, s)
	if sh.staging && x.isPast(st, l, s) {
		list = append(list, moves.past...)
	}
	list = append(list, moves.offers...)
	if plant := x.opts.Plant; plant != nil && plant.Propose != nil {
		list = append(list, x.ofShard(s, plant.Propose(l.inc.peer(), &l.view))...)
	}
	for _, fid := range st.facts {
		f := &x.facts[fid]
		switch {
		case f.shard != s:
		case f.kind == factTail:
			if f.from == l.inc && sh.phase == kvfsm.PhaseLeaving && sh.offered == f.mark && sh.to == f.to {
				list = append(list, moves.tail...)
			}
		case f.to == l.inc:
			if f.kind == factImage && !x.full && sh.staging && x.stale(st, l)&(1<<s) != 0 && sh.st.mark == staged(f.mark) {
				continue // what a stale staging holds does not matter
			}
			list = append(list, x.received(id, l, fid)...)
		}
	}
	return list
}

// staged is a staging's mark for a holder's.
func staged(m kvfsm.Mark) kvfsm.Mark {
	m.Epoch.Num++
	return m
}

// isPast reports whether there is proof that a local's staging can't be
// installed: its source stands further, or its epoch was minted.
func (x *explorer) isPast(st *state, l *local, s int) bool {
	stg := &l.shards[s].st
	if source := x.present(st, stg.from); source != nil && source.shards[s].offered.Compare(wanted(stg.mark)) > 0 {
		return true
	}
	if st.isRetired(stg.from) && st.shownAtEnd(stg.from, s).Compare(wanted(stg.mark)) > 0 {
		return true
	}
	return uint64(st.minted[s]) >= pack8(stg.mark.Epoch)
}

// damages returns commands that damage a staging as a fault would: it is lost,
// or lacks an item.
func (x *explorer) damages(st *state, seat int) (list []uint32) {
	id := st.locals[seat]
	l := x.locals[id]
	for s := range l.shards {
		sh := &l.shards[s]
		if !sh.staging {
			continue
		}
		list = append(list, x.internCommand(&kvfsm.Discard{Shard: shardcfg.ShardID(s), Epoch: sh.st.mark.Epoch, Handoff: sh.st.mark.Handoff}))
		for _, f := range st.facts {
			if x.facts[f].kind != factImage || x.facts[f].to != l.inc || x.facts[f].shard != s {
				continue
			}
			for _, cmd := range x.received(id, l, f) {
				list = x.appendDamaged(list, x.commands[cmd].cmd)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// appendDamaged adds a page without its first item.
func (x *explorer) appendDamaged(list []uint32, c kvfsm.Command) []uint32 {
	switch c := c.(type) {
	case *kvfsm.Chunk:
		if len(c.Items) > 0 {
			damaged := *c
			damaged.Items = c.Items[1:]
			list = append(list, x.internCommand(&damaged))
		}
	case *kvfsm.Install:
		if len(c.Items) > 0 {
			damaged := *c
			damaged.Items = c.Items[1:]
			list = append(list, x.internCommand(&damaged))
		}
	}
	return list
}

// expandCommand applies a command to a group's log.
func (x *explorer) expandCommand(st *state, a action, emit func(action, *state, string)) {
	id := st.locals[a.seat]
	out := x.step(id, a.arg)
	bad := x.checkStep(st, a, &out)
	if out.to == id && bad == "" {
		return
	}
	next := &x.scratch.next
	st.copyTo(next)
	next.locals[a.seat] = out.to
	if a.kind == actFault {
		next.faults++
		if _, whole := x.commands[a.arg].cmd.(*kvfsm.Discard); whole {
			next.lost = 1
		}
	}
	if op := x.commands[a.arg].op; op >= 0 && out.outcome.Code.Done() && !out.outcome.Repeat {
		s := x.bound.Ops[op].Shard
		if int(next.executed[s]) < OpsMax {
			next.order[s][next.executed[s]] = uint8(op)
			next.executed[s]++
		}
		next.versions[op] = packVersion(out.outcome.Version)
		if x.bound.Destroyed > 0 {
			next.at[op] = uint8(x.locals[out.to].shards[s].epoch)
			next.ever |= 1 << op
		}
	}
	l := x.locals[out.to]
	for s := range l.shards {
		if sh := &l.shards[s]; sh.phase.Serves() && uint8(sh.epoch) > next.minted[s] {
			next.minted[s] = uint8(sh.epoch)
			if x.bound.Destroyed > 0 {
				next.mintedBy[s] = l.inc
				x.remade(next, x.commands[a.arg].cmd, &x.locals[id].shards[s], s)
			}
		}
		if st.claims[s] == noInc && x.moves(l, s).asks {
			next.asked[s] |= 1 << a.seat
		}
	}
	for _, f := range l.facts {
		next.facts = addFact(next.facts, f)
	}
	if x.full {
		next.past[a.seat] = addFact(next.past[a.seat], out.to)
	}
	x.finish(a, next, bad, emit)
}

// finish prunes a new state, checks it and hands it on.
func (x *explorer) finish(a action, next *state, bad string, emit func(action, *state, string)) {
	if !x.full {
		x.prune(next)
	}
	if bad == "" {
		bad = x.checkState(next)
	}
	emit(a, next, bad)
}

// expandControllers: a config with any owners, a claim, an emptied group.
func (x *explorer) expandControllers(st *state, emit func(action, *state, string)) {
	next := &x.scratch.next
	if int(st.configCount) < x.bound.Configs {
		x.ownerMaps(st, func(owners []int) {
			c := x.makeConfig(st, owners)
			st.copyTo(next)
			x.publish(next, c)
			x.finish(action{actConfig, 0, c}, next, "", emit)
		})
	}
	newest := x.newest(st)
	if newest == nil {
		return
	}
	for s := range x.bound.Shards {
		owner := newest.owners[s]
		if st.claims[s] == noInc && x.present(st, owner) != nil && st.asked[s]&(1<<owner.seat()) != 0 {
			st.copyTo(next)
			next.claims[s], next.asked[s] = owner, 0
			x.finish(action{actClaim, owner.seat(), uint32(s)}, next, "", emit)
		}
	}
	if int(st.emptied) >= x.bound.Emptied || x.bound.Destroyed > 0 && int(st.configCount) >= x.bound.Configs {
		return
	}
	for seat := range x.bound.Groups {
		if x.mayEmpty(st, seat) {
			st.copyTo(next)
			next.emptied++
			if p := x.opts.Plant; p == nil || !p.SameIncarnation {
				next.lives[seat]++
			}
			for s := range x.bound.Shards {
				next.asked[s] &^= 1 << seat
			}
			x.found(next, seat)
			if x.bound.Destroyed > 0 {
				x.unlist(next)
			}
			x.finish(action{actEmpty, seat, 0}, next, "", emit)
		}
	}
}

// ownerMaps calls f with every choice of owners, by shard, up to the names of
// groups that no config has named yet: those are alike.
func (x *explorer) ownerMaps(st *state, f func(owners []int)) {
	known := 0
	for _, c := range st.configs[:st.configCount] {
		for _, o := range x.configs[c].owners[:x.bound.Shards] {
			known = max(known, o.seat()+1)
		}
	}
	owners := make([]int, x.bound.Shards)
	var choose func(s, known int)
	choose = func(s, known int) {
		if s == len(owners) {
			f(owners)
			return
		}
		for seat := range min(known+1, x.bound.Groups) {
			owners[s] = seat
			choose(s+1, max(known, seat+1))
		}
	}
	choose(0, known)
}

// mayEmpty reports whether a group may be switched off: it reports itself
// drained, and no config from the one it adopted on names it. Once a fault made
// a staging vanish with its record, no report can be trusted.
func (x *explorer) mayEmpty(st *state, seat int) bool {
	l := x.locals[st.locals[seat]]
	if !l.drained || st.lost != 0 || len(l.view.Records) == 0 || l.inc.life()+1 >= livesMax {
		return false
	}
	for _, c := range st.configs[l.view.Config.Num-1 : st.configCount] {
		if slices.Contains(x.configs[c].owners[:x.bound.Shards], l.inc) {
			return false
		}
	}
	for s := range x.bound.Shards {
		if st.claims[s] == l.inc && l.shards[s].epoch == 0 {
			return false
		}
	}
	return !x.openGrant(st, l)
}
