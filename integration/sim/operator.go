package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// An operator changes the configuration: groups join, leave, come back, get
// other weights; shards are pinned and let go. It asks for one change at a time
// and repeats it, as the same request, until it is answered.
type operator struct {
	w        *World
	n        *node
	rng      *rand.Rand
	asker    caller
	machines map[shardcfg.GroupID][]*node
	gids     []shardcfg.GroupID
	ghosts   []shardcfg.GroupID
	requests uint64
	born     uint64           // the last request, in ms since 1970
	have     *shardcfg.Config // as watched; nil: none
	left     int
	// asking: a change is under way. repairing: a group was destroyed, and shards may
	// wait for it.
	asking, repairing bool
	// ownerless: a shard can't be repaired before the config changes.
	ownerless bool
	// pushes are changes in a row, since there were so many handoffs, that were made
	// only to have shards moved: each leaves more time.
	pushes, pushedAt int
	done             bool
}

func newOperator(w *World) *operator {
	o := &operator{w: w, n: w.addNode("operator"), rng: w.rng.operator, machines: map[shardcfg.GroupID][]*node{}, left: w.p.Changes}
	for i := range w.p.Groups + w.p.Spare {
		gid := shardcfg.GroupID(i + 1)
		var nodes []*node
		for r := range w.p.Replicas {
			nodes = append(nodes, w.addNode(fmt.Sprintf("g%dr%d:1", gid, r+1)))
		}
		o.gids = append(o.gids, gid)
		o.machines[gid] = nodes
		w.newLife(gid, nodes)
	}
	return o
}

// begin joins the first groups, then changes things from time to time.
func (o *operator) begin() {
	n := 1 + o.rng.IntN(o.w.p.Groups)
	var join ctrlfsm.Join
	for _, gid := range o.gids[:n] {
		join.Groups = append(join.Groups, o.joining(gid))
	}
	join.Request = o.request()
	o.ask(join)
}

func (o *operator) request() ctrlfsm.RequestID {
	o.requests++
	var id ctrlfsm.RequestID
	binary.BigEndian.PutUint64(id.ID[:], o.requests)
	// By the cluster's clock: an operator whose own clock is off is refused, which
	// is right and of no interest here.
	if id.BirthMS = o.w.controllers.g.newest.clock; id.BirthMS == 0 {
		id.BirthMS = epochMS
	}
	// Later than the one before even while that clock stands still: few results
	// are kept, and what is as old as a forgotten one is refused.
	if id.BirthMS <= o.born && o.born-id.BirthMS < ctrlfsm.RequestAheadMS/2 {
		id.BirthMS = o.born + 1
	}
	o.born = id.BirthMS
	return id
}

// current is the life that has a gid's machines now.
func (o *operator) current(gid shardcfg.GroupID) *life {
	for _, l := range slices.Backward(o.w.lives) {
		if l.self.Group == gid {
			return l
		}
	}
	return nil
}

// joining describes a group: as its replicas say, or unseen (a forced join).
func (o *operator) joining(gid shardcfg.GroupID) ctrlfsm.JoinGroup {
	g := ctrlfsm.JoinGroup{ID: gid, Weight: uint32(o.rng.IntN(4))}
	l := o.current(gid)
	if l == nil {
		g.Replicas = []string{fmt.Sprintf("ghost%d:1", gid)}
		return g
	}
	g.Replicas = l.addrs
	switch n := o.rng.IntN(6); {
	case n == 0:
	case n == 1 && !l.bound:
		g.Replicas = l.addrs[:1] // the group itself will say where the others are
	default:
		g.Identity, g.Incarnation = ctrlfsm.IdentityFormed, l.self.Incarnation
	}
	return g
}

// ask makes a change, however often it must be sent.
func (o *operator) ask(c ctrlfsm.Command) {
	o.asking = true
	w := o.w
	w.trace.text("operator: %T %+v", c, c)
	w.controllers.ask(o.n, &o.asker, pollTimeout, func(t *controller, reply func(ctlReply)) { t.change(c, reply) },
		func(a ctlReply, ok bool) {
			if !ok {
				o.n.after(askAgain, func() { o.ask(c) })
				return
			}
			o.asking = false
			if a.refusal != nil {
				w.trace.text("operator: refused: %v", a.refusal)
			} else {
				o.made(c)
			}
			if len(w.controllers.latest.Groups) == 0 {
				o.n.after(askAgain, o.begin)
				return
			}
			o.later()
		})
}

// made counts a change that took effect.
func (o *operator) made(c ctrlfsm.Command) {
	switch c := c.(type) {
	case ctrlfsm.Join:
		o.w.stats.Joins += len(c.Groups)
		if o.current(c.Groups[0].ID) == nil {
			o.w.stats.happened(KindGhost)
		}
	case ctrlfsm.Leave:
		o.w.stats.happened(KindLeave)
	case ctrlfsm.Move, ctrlfsm.Unpin:
		o.w.stats.Pins++
		o.w.stats.happened(KindMove)
	}
}

// askAgain is when the operator asks again what got no answer.
const askAgain = 100 * time.Millisecond

func (o *operator) later() {
	rest := min(time.Duration(o.pushes)*o.w.p.ChangeEvery/4, pushRestMax)
	o.n.after(rest+between(o.rng, o.w.p.ChangeEvery/2, 3*o.w.p.ChangeEvery/2), o.act)
}

// pushRestMax is the longest time that a shard gets to move before it is sent
// somewhere else.
const pushRestMax = 5 * time.Second

// act makes the next change. Once all are made, and enough shards moved, it only
// takes the ghosts away.
func (o *operator) act() {
	w := o.w
	if o.rng.IntN(4) == 0 {
		o.look()
	}
	if o.rng.IntN(8) == 0 {
		o.hold()
	}
	if o.rng.IntN(4) == 0 {
		o.inspect()
	}
	if o.repairing && !o.ownerless {
		if c := o.mourn(); c != nil {
			o.ask(c)
		} else {
			o.repair()
		}
		return
	}
	if !w.calm && chance(o.rng, w.p.Nonsense) {
		o.blunder()
		return
	}
	if _, out := o.members(); !w.calm && w.p.Leave && len(out) > 0 && o.rng.IntN(16) == 0 {
		o.leaveAgain(out[o.rng.IntN(len(out))])
		return
	}
	var c ctrlfsm.Command
	switch short := w.stats.Handoffs < w.p.Handoffs && !w.calm; {
	case o.ownerless:
		o.ownerless = false
		if c = o.settle(); c == nil {
			c = o.push()
		}
	case o.left > 0 && !(short && w.resting):
		o.left--
		c = o.draw()
	case short:
		if c = o.settle(); c == nil {
			c = o.push()
		}
	default:
		if c = o.settle(); c == nil {
			o.done = true
			return
		}
	}
	if c != nil {
		o.ask(c)
	} else {
		o.later()
	}
}

// settle removes what could never settle, and joins again, asking them who they
// are, groups that are known from earlier and were joined unseen; nil: there is
// nothing of the kind.
func (o *operator) settle() ctrlfsm.Command {
	for _, gid := range o.gids {
		if g, listed := o.w.controllers.latest.Groups[gid]; listed && g.Incarnation.IsZero() {
			l := o.current(gid)
			if l.over {
				// Nobody lives there: somebody shall, or the gid goes.
				if c := o.join(gid); c != nil {
					return c
				}
				return ctrlfsm.Leave{Request: o.request(), Groups: []shardcfg.GroupID{gid}}
			}
			return ctrlfsm.Join{Request: o.request(), Groups: []ctrlfsm.JoinGroup{{
				ID: gid, Replicas: l.addrs, Identity: ctrlfsm.IdentityFormed, Incarnation: l.self.Incarnation}}}
		}
	}
	for _, gid := range o.ghosts {
		if g, listed := o.w.controllers.latest.Groups[gid]; listed && g.State == shardcfg.GroupMember {
			return ctrlfsm.Leave{Request: o.request(), Groups: []shardcfg.GroupID{gid}}
		}
	}
	return nil
}

// push draws a change that makes a shard move, whatever the profile says; nil:
// there is none yet.
func (o *operator) push() ctrlfsm.Command {
	if o.pushes++; o.w.stats.Handoffs > o.pushedAt {
		o.pushes, o.pushedAt = 1, o.w.stats.Handoffs
	}
	in, out := o.members()
	if len(in) < 2 {
		if len(out) == 0 {
			return nil
		}
		return o.join(out[o.rng.IntN(len(out))])
	}
	shard := shardcfg.ShardID(o.rng.IntN(o.w.p.Shards))
	owner := o.w.controllers.latest.Shards[shard]
	in = slices.DeleteFunc(in, func(gid shardcfg.GroupID) bool { return gid == owner })
	return ctrlfsm.Move{Request: o.request(), Shard: shard, Group: in[o.rng.IntN(len(in))]}
}

// members are the groups that are in, and those that are not listed.
func (o *operator) members() (in, out []shardcfg.GroupID) {
	for _, gid := range o.gids {
		if g, listed := o.w.controllers.latest.Groups[gid]; !listed {
			out = append(out, gid)
		} else if g.State == shardcfg.GroupMember {
			in = append(in, gid)
		}
	}
	return in, out
}

// draw draws a change; nil: none that makes sense.
func (o *operator) draw() ctrlfsm.Command {
	p := &o.w.p
	in, out := o.members()
	shard := shardcfg.ShardID(o.rng.IntN(p.Shards))
	if p.Destroy && o.rng.IntN(4) == 0 {
		if c := o.disaster(); c != nil {
			return c
		}
	}
	switch n := o.rng.IntN(100); {
	case n < 40 && len(out) > 0:
		return o.join(out[o.rng.IntN(len(out))])
	case n < 70 && p.Leave && len(in) > 1:
		gid := in[o.rng.IntN(len(in))]
		if o.rng.IntN(4) == 0 {
			return ctrlfsm.Leave{Request: o.request(), Groups: []shardcfg.GroupID{gid, gid}}
		}
		return ctrlfsm.Leave{Request: o.request(), Groups: []shardcfg.GroupID{gid}}
	case n < 84 && p.Move && len(in) > 0:
		return ctrlfsm.Move{Request: o.request(), Shard: shard, Group: in[o.rng.IntN(len(in))], MaxPauseMS: uint32(100 * o.rng.IntN(3))}
	case n < 88 && p.Move:
		return ctrlfsm.Unpin{Request: o.request(), Shard: shard}
	case n < 94 && p.Ghost && len(o.ghosts) < 2:
		gid := shardcfg.GroupID(90 + len(o.ghosts))
		o.ghosts = append(o.ghosts, gid)
		ghost := o.w.addNode(fmt.Sprintf("ghost%d:1", gid))
		ghost.up, ghost.alien = o.w.p.Aliens, o.w.p.Aliens
		return ctrlfsm.Join{Request: o.request(), Groups: []ctrlfsm.JoinGroup{o.joining(gid)}}
	case len(in) > 0:
		return ctrlfsm.Join{Request: o.request(), Groups: []ctrlfsm.JoinGroup{o.joining(in[o.rng.IntN(len(in))])}}
	}
	return nil
}

// join lets a group in. One that was drained may have been wiped meanwhile: it
// comes back as another incarnation.
func (o *operator) join(gid shardcfg.GroupID) ctrlfsm.Command {
	w := o.w
	l := o.current(gid)
	switch again := len(w.lives) < livesMax; {
	case l.over && !again:
		return nil
	case l.over, l.drained != 0 && w.p.Rejoin && again && o.rng.IntN(4) > 0:
		l.end()
		for _, n := range o.machines[gid] {
			n.up = true
		}
		w.newLife(gid, o.machines[gid])
		w.stats.Reborn++
		w.stats.happened(KindRejoin)
		w.trace.text("group %d is wiped and comes back as %v", gid, o.current(gid).self.Incarnation)
	}
	return ctrlfsm.Join{Request: o.request(), Groups: []ctrlfsm.JoinGroup{o.joining(gid)}}
}

// livesMax bounds the incarnations of a run.
const livesMax = 12

// hold lets a group begin no handoff for a while.
func (o *operator) hold() {
	l := o.w.lives[o.rng.IntN(len(o.w.lives))]
	l.held = true
	o.w.later(between(o.rng, 0, 2*time.Second), func() { l.held = false })
}
