package explore

import (
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Disasters: a group is destroyed and retired, the others answer for the shards,
// each at a moment of its own, and the controllers judge and grant repairs.

// gensMax bounds the repairs of a search, destroyedMax the groups.
const (
	gensMax      = 3
	destroyedMax = 2
)

// A grant is a repair that was granted.
type grant struct {
	shard  uint8
	group  incID
	frozen uint8 // packed epoch; 0: create
}

func (g grant) word() uint32 { return uint32(g.shard)<<16 | uint32(g.group)<<8 | uint32(g.frozen) }

func grantOf(w uint32) grant { return grant{uint8(w >> 16), incID(w >> 8), uint8(w)} }

// An end is how a group stood when it was destroyed, by shard: the epoch, packed,
// and the handoff that it would have shown.
type end struct {
	group  incID
	epochs [ShardsMax]uint8
	h      [ShardsMax]uint8
}

// disasters is the part of a state that only a bound with Destroyed has.
type disasters struct {
	// retired are incarnations, as bits.
	retired   uint32
	destroyed uint8
	// ends are the last marks of the groups that were destroyed, which some message
	// may have shown.
	ends   [destroyedMax]end
	grants [gensMax]grant
	gens   uint8
	// answers are what the present groups said of the shards since they adopted
	// the newest config; see answerWord.
	answers [seatsMax][ShardsMax]uint32
	// mintedBy is who made the newest token, by shard.
	mintedBy [ShardsMax]incID
	// at is the packed epoch at which each operation was executed.
	at [OpsMax]uint8
	// ever are the operations that were ever executed, as bits, by number: also those
	// that are lost.
	ever uint8
}

// epochBits are those of the number in a packed epoch; the generation is above.
const epochBits = 5

func pack8(e shardcfg.Epoch) uint64 { return uint64(e.Gen)<<epochBits | e.Num }

func unpack8(p uint8) shardcfg.Epoch {
	return shardcfg.Epoch{Gen: uint32(p >> epochBits), Num: uint64(p & (1<<epochBits - 1))}
}

// packVersion makes a version small; the machine begins each generation's at
// 2^40 times it.
func packVersion(v shardcfg.Revision) uint8 {
	const low = 3
	if v>>40 == 0 {
		return uint8(v)
	}
	return uint8(v>>40)<<low | uint8(v&(1<<low-1))
}

// An answer's word is: answered, holding, packed epoch, who comes next.
const answered = 1 << 31

func answerWord(sh *shardState) uint32 {
	holding := ctrlfsm.HoldsNothing
	switch {
	case sh.phase.Serves():
		holding = ctrlfsm.HoldsToken
	case sh.phase == kvfsm.PhaseFrozen:
		holding = ctrlfsm.HoldsFrozen
	}
	return answered | uint32(holding)<<16 | uint32(sh.epoch)<<8 | uint32(sh.to)
}

func answerOf(group incID, w uint32) ctrlfsm.Answer {
	a := ctrlfsm.Answer{Group: group.peer().Incarnation, Epoch: unpack8(uint8(w >> 8)), Holding: ctrlfsm.Holding(w >> 16 & 3)}
	if to := incID(w); to != noInc {
		a.To = to.peer().Incarnation
	}
	return a
}

// isRetired reports whether an incarnation was destroyed.
func (st *state) isRetired(id incID) bool { return id != noInc && st.retired>>id&1 == 1 }

// shownAtEnd returns the greatest mark that a destroyed group has shown of a shard.
func (st *state) shownAtEnd(id incID, s int) kvfsm.Mark {
	for _, e := range st.ends[:st.destroyed] {
		if e.group == id {
			return kvfsm.Mark{Epoch: unpack8(e.epochs[s]), Handoff: shardcfg.ConfigNum(e.h[s])}
		}
	}
	return kvfsm.Mark{}
}

// appendDisasters encodes the part of a state that only such bounds have.
func (st *state) appendDisasters(dst []uint32, b *Bound) []uint32 {
	if b.Destroyed == 0 {
		return dst
	}
	dst = append(dst, st.retired, uint32(st.destroyed)|uint32(st.gens)<<8)
	for _, g := range st.grants {
		dst = append(dst, g.word())
	}
	for _, e := range st.ends {
		dst = append(dst, uint32(e.group), uint32(e.epochs[0])|uint32(e.epochs[1])<<8|uint32(e.h[0])<<16|uint32(e.h[1])<<24)
	}
	for seat := range b.Groups {
		dst = append(dst, st.answers[seat][:b.Shards]...)
	}
	for s := range b.Shards {
		dst = append(dst, uint32(st.mintedBy[s]))
	}
	var at [2]uint32
	for op, epoch := range st.at {
		at[op/4] |= uint32(epoch) << (8 * (op % 4))
	}
	at[1] |= uint32(st.ever) << 16 // at holds no more than OpsMax
	return append(dst, at[:]...)
}

// readDisasters reads what appendDisasters wrote and returns the rest.
func (st *state) readDisasters(w []uint32, b *Bound) []uint32 {
	st.disasters = disasters{}
	if b.Destroyed == 0 {
		return w
	}
	st.retired, st.destroyed, st.gens = w[0], uint8(w[1]), uint8(w[1]>>8)
	w = w[2:]
	for i := range st.grants {
		st.grants[i] = grantOf(w[i])
	}
	w = w[len(st.grants):]
	for i := range st.ends {
		v := w[1]
		st.ends[i] = end{incID(w[0]), [ShardsMax]uint8{uint8(v), uint8(v >> 8)}, [ShardsMax]uint8{uint8(v >> 16), uint8(v >> 24)}}
		w = w[2:]
	}
	for seat := range b.Groups {
		w = w[copy(st.answers[seat][:b.Shards], w):]
	}
	for s := range b.Shards {
		st.mintedBy[s] = incID(w[s])
	}
	w = w[b.Shards:]
	for op := range st.at {
		st.at[op] = uint8(w[op/4] >> (8 * (op % 4)))
	}
	st.ever = uint8(w[1] >> 16)
	return w[2:]
}

// expandDisasters: a group is destroyed, and the config that retires it gives its
// shards to anybody; a group answers; a repair is judged.
func (x *explorer) expandDisasters(st *state, emit func(action, *state, string)) {
	if x.bound.Destroyed == 0 || st.configCount == 0 {
		return
	}
	next := &x.scratch.next
	if int(st.destroyed) < x.bound.Destroyed && int(st.configCount) < x.bound.Configs {
		for seat := range x.bound.Groups {
			if !x.named(st, st.inc(seat)) || int(st.lives[seat])+1 >= livesMax {
				continue // nothing of it is anywhere
			}
			x.destroy(st, seat, emit)
		}
	}
	if st.retired == 0 {
		return
	}
	for seat := range x.bound.Groups {
		if x.mayAnswer(st, seat) && !x.hasAnswered(st, seat) {
			st.copyTo(next)
			x.answer(next, seat)
			x.finish(action{actAnswer, seat, 0}, next, "", emit)
		}
	}
	for s := range x.bound.Shards {
		if g, ok := x.judge(st, s); ok {
			st.copyTo(next)
			next.grant(g)
			x.finish(action{actRepair, g.group.seat(), g.word()}, next, "", emit)
		}
	}
}

// destroy takes a seat's group away; a new one takes its place, with an empty disk,
// or with one that is left of the destroyed group.
func (x *explorer) destroy(st *state, seat int, emit func(action, *state, string)) {
	next := &x.scratch.next
	gone := *st
	gone.retired |= 1 << st.inc(seat)
	gone.lives[seat]++
	last := end{group: st.inc(seat)}
	for s, sh := range x.locals[st.locals[seat]].shards {
		last.epochs[s], last.h[s] = uint8(pack8(sh.offered.Epoch)), uint8(sh.offered.Handoff)
	}
	gone.ends[gone.destroyed] = last
	x.ownerMaps(st, func(owners []int) {
		for left := range x.disksLeft(st, seat) {
			st.copyTo(next)
			next.retired, next.lives, next.ends = gone.retired, gone.lives, gone.ends
			next.destroyed++
			for s := range x.bound.Shards {
				next.asked[s] &^= 1 << seat
			}
			x.succeed(next, seat, st.inc(seat), left)
			c := x.makeConfig(next, owners)
			x.publish(next, c)
			x.finish(action{actDestroy, seat, c | uint32(left)<<leftShift}, next, "", emit)
		}
	})
}

// leftShift is where the action of a destruction says which disk was left.
const leftShift = 16

// publish makes a config the newest one. Answers are of use for one config only.
func (x *explorer) publish(st *state, c uint32) {
	st.configs[st.configCount] = c
	st.configCount++
	st.answers = disasters{}.answers
}

// unlist makes the config in which a drained group is not listed any more. Without
// disasters nothing depends on that, and the number is saved.
func (x *explorer) unlist(st *state) {
	var owners []int
	for _, o := range x.newest(st).owners[:x.bound.Shards] {
		owners = append(owners, o.seat())
	}
	x.publish(st, x.makeConfig(st, owners))
}

// mayAnswer reports whether a group has adopted the newest config.
func (x *explorer) mayAnswer(st *state, seat int) bool {
	return x.opts.Plant != nil && x.opts.Plant.AnswerEarly || x.locals[st.locals[seat]].config == st.configs[st.configCount-1]
}

func (x *explorer) hasAnswered(st *state, seat int) bool {
	for s, sh := range x.locals[st.locals[seat]].shards {
		if st.answers[seat][s] != answerWord(&sh) {
			return false
		}
	}
	return true
}

func (x *explorer) answer(st *state, seat int) {
	for s, sh := range x.locals[st.locals[seat]].shards {
		st.answers[seat][s] = answerWord(&sh)
	}
}

// lastRepair returns the last repair of a shard.
func (st *state) lastRepair(s int) (last ctrlfsm.Repair) {
	for _, g := range st.grants[:st.gens] {
		if int(g.shard) == s {
			last = ctrlfsm.Repair{Group: g.group.peer().Incarnation, Gen: last.Gen + 1}
			if g.frozen != 0 {
				last.Frozen = unpack8(g.frozen)
			}
		}
	}
	return last
}

// judge returns the repair that the product grants by the answers at hand.
func (x *explorer) judge(st *state, s int) (grant, bool) {
	k := ctrlfsm.Case{Shard: shardcfg.ShardID(s), Last: st.lastRepair(s)}
	if st.claims[s] != noInc {
		k.Claimer = st.claims[s].peer().Incarnation
	}
	for seat := range x.bound.Groups {
		w := st.answers[seat][s]
		if w == 0 && x.opts.Plant != nil && x.opts.Plant.SilentIgnored {
			continue
		}
		if w == 0 {
			return grant{}, false // every group must answer
		}
		k.Answers = append(k.Answers, answerOf(st.inc(seat), w))
	}
	decide := ctrlfsm.Judge
	if p := x.opts.Plant; p != nil && p.Judge != nil {
		decide = p.Judge
	}
	fate, group := decide(x.newest(st).config, k)
	if !fate.Repairable(true) || int(st.gens) >= gensMax {
		return grant{}, false
	}
	g := grant{shard: uint8(s), group: incOf(group)}
	if fate == ctrlfsm.FateThawed {
		for _, a := range k.Answers {
			if a.Group == group {
				g.frozen = uint8(pack8(a.Epoch))
			}
		}
	}
	return g, true
}

// grant notes a repair. Answers from before it don't count for its shard any
// more.
func (st *state) grant(g grant) {
	st.grants[st.gens] = g
	st.gens++
	for seat := range st.answers {
		st.answers[seat][g.shard] = 0
	}
}

// granted adds what a leader would propose that heard of any repair that its group
// was ever granted.
func (x *explorer) granted(list []uint32, st *state, id uint32, s int) []uint32 {
	l := x.locals[id]
	for i, g := range st.grants[:st.gens] {
		if int(g.shard) != s || g.group != l.inc {
			continue
		}
		gen := st.genOf(i)
		ref := uint64(id)<<32 | uint64(gen)<<24 | uint64(g.word())
		moves, ok := x.grantMoves[ref]
		if !ok {
			moves = x.asDriver(l, s, func(d *handoff.Driver) { d.Granted([]handoff.Grant{x.message(g, gen)}) })
			x.grantMoves[ref] = moves
		}
		list = append(list, moves...)
	}
	return list
}

// genOf returns the generation of the i-th grant: they count by shard.
func (st *state) genOf(i int) (gen int) {
	for _, g := range st.grants[:i+1] {
		if g.shard == st.grants[i].shard {
			gen++
		}
	}
	return gen
}

// message is how a group is told of a repair.
func (x *explorer) message(g grant, gen int) handoff.Grant {
	m := handoff.Grant{Shard: shardcfg.ShardID(g.shard), Gen: uint32(gen)}
	if g.frozen != 0 {
		m.Frozen = unpack8(g.frozen)
	}
	if p := x.opts.Plant; p != nil && p.OwnGeneration {
		m.Gen = m.Frozen.Gen + 1
	}
	return m
}

// openGrant reports whether a group has still to create a shard that it was
// granted.
func (x *explorer) openGrant(st *state, l *local) bool {
	for i, g := range st.grants[:st.gens] {
		if g.group == l.inc && g.frozen == 0 && l.shards[g.shard].epoch < pack8(shardcfg.Epoch{Gen: uint32(st.genOf(i)), Num: 1}) {
			return true
		}
	}
	return false
}

// remade takes a token of a new generation into account: what was executed behind
// the copy that serves again is lost, and may be executed again; of a shard that
// begins anew that is everything.
func (x *explorer) remade(st *state, c kvfsm.Command, was *shardState, s int) {
	kept := uint64(0)
	switch c.(type) {
	case *kvfsm.Thaw:
		kept = was.epoch
	case *kvfsm.Create:
	default:
		return
	}
	n := uint8(0)
	for _, op := range st.order[s][:st.executed[s]] {
		if uint64(st.at[op]) > kept || x.bound.Reformed && !has(was.served, op) {
			st.at[op], st.versions[op] = 0, 0
			continue
		}
		st.order[s][n] = op
		n++
	}
	clear(st.order[s][n:])
	st.executed[s] = n
}

// describeDisaster says an action of a disaster in words.
func (x *explorer) describeDisaster(a action, st *state) string {
	switch a.kind {
	case actDestroy:
		c, left := x.configs[a.arg&(1<<leftShift-1)], ""
		if n := a.arg >> leftShift; n > 0 {
			left = fmt.Sprintf(", and what takes its seat is reformed from disk %d of it", n)
		}
		return fmt.Sprintf("%v is destroyed; config %d retires it, owners %v%s", st.inc(a.seat), c.config.Num, c.owners[:x.bound.Shards], left)
	case actAnswer:
		return fmt.Sprintf("%v answers", st.inc(a.seat))
	}
	g := grantOf(a.arg)
	if g.frozen == 0 {
		return fmt.Sprintf("controllers: %v is granted to create shard %d anew", g.group, g.shard)
	}
	return fmt.Sprintf("controllers: %v is granted to thaw shard %d at %v", g.group, g.shard, unpack8(g.frozen))
}

// repair is what an operator does in a fair run: ask all, judge, grant.
func (r *fairRun) repair() {
	x, st := r.x, &r.st
	if x.bound.Destroyed == 0 || st.retired == 0 || r.dead >= 0 {
		return // or somebody is silent
	}
	for seat := range x.bound.Groups {
		if !x.mayAnswer(st, seat) {
			return
		}
		x.answer(st, seat)
	}
	for s := range x.bound.Shards {
		if g, ok := x.judge(st, s); ok {
			st.grant(g)
		}
	}
}

// tell passes the grants on that a group was ever given.
func (r *fairRun) tell(seat int) {
	for i, g := range r.st.grants[:r.st.gens] {
		if g.group == r.st.inc(seat) {
			r.drivers[seat].Granted([]handoff.Grant{r.x.message(g, r.st.genOf(i))})
		}
	}
}

// awaitsRepair reports whether a shard can't be where it should, because the
// group that had it, or that it was frozen for, or that was to create it, was
// destroyed, and a repair is impossible: somebody is silent, or there were as many
// as the bound allows.
func (r *fairRun) awaitsRepair(s int) bool {
	x, st := r.x, &r.st
	if x.bound.Destroyed == 0 || st.retired == 0 || r.dead < 0 && int(st.gens) < gensMax {
		return false
	}
	for seat := range x.bound.Groups {
		sh := &r.local(seat).shards[s]
		if sh.phase.Serves() {
			return false
		}
		if sh.phase == kvfsm.PhaseFrozen && uint64(st.minted[s]) == sh.epoch && !st.isRetired(sh.to) {
			return false
		}
	}
	return true
}
