package sim

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A blunder is a command that the controllers must refuse whenever it arrives,
// for one of some reasons, and leave everything as it was.
type blunder struct {
	command func(id ctrlfsm.RequestID) ctrlfsm.Command
	reasons []ctrlfsm.Reason
}

// blunder asks for something that must be refused, twice: a refusal is kept like
// any other answer.
func (o *operator) blunder() {
	w := o.w
	list := o.blunders()
	b := list[o.rng.IntN(len(list))]
	id := o.request()
	c := b.command(id)
	w.stats.happened(KindNonsense)
	o.insist(c, func(first ctlReply) {
		o.insist(c, func(second ctlReply) {
			for _, a := range []ctlReply{first, second} {
				if a.refusal == nil || !slices.Contains(append(b.reasons, ctrlfsm.RequestExpired), a.refusal.Reason) {
					w.fail("nonsense", "%T %+v is answered by config %d, refusal %v; must be refused for one of %v", c, c, a.num, a.refusal, b.reasons)
				}
			}
			wait := time.Duration(0)
			if _, bind := c.(ctrlfsm.Bind); bind {
				// It has no request that would be known again: a late copy must not meet
				// a gid that is free for anybody.
				wait = w.p.SlowMax + 2*w.p.FaultLast
			}
			o.n.after(wait, o.later)
		})
	})
}

// leaveAgain asks once more to let a group leave that is gone, as who never got the
// answer does: that is done already.
func (o *operator) leaveAgain(gid shardcfg.GroupID) {
	c := ctrlfsm.Leave{Request: o.request(), Groups: []shardcfg.GroupID{gid}}
	o.insist(c, func(a ctlReply) {
		bound := slices.ContainsFunc(o.w.lives, func(l *life) bool { return l.self.Group == gid && l.bound })
		if bound && a.refusal != nil && a.refusal.Reason != ctrlfsm.RequestExpired {
			o.w.fail("nonsense", "%+v, of a group that left, is refused: %v", c, a.refusal)
		}
		o.later()
	})
}

// insist asks until there is an answer.
func (o *operator) insist(c ctrlfsm.Command, then func(ctlReply)) {
	o.w.controllers.ask(o.n, &o.asker, pollTimeout, func(t *controller, reply func(ctlReply)) { t.change(c, reply) }, func(a ctlReply, ok bool) {
		if !ok {
			o.n.after(askAgain, func() { o.insist(c, then) })
			return
		}
		then(a)
	})
}

// joins are joins of one group.
func joins(g ctrlfsm.JoinGroup) func(ctrlfsm.RequestID) ctrlfsm.Command {
	return func(id ctrlfsm.RequestID) ctrlfsm.Command {
		return ctrlfsm.Join{Request: id, Groups: []ctrlfsm.JoinGroup{g}}
	}
}

// stranger is an incarnation that no group ever had.
var stranger = shardcfg.Incarnation{0xFF, 1}

// blunders are those that are wrong now and will be when they arrive.
func (o *operator) blunders() []blunder {
	bad := []ctrlfsm.Reason{ctrlfsm.BadRequest}
	fine := []string{"somewhere:1"}
	list := []blunder{
		{joins(ctrlfsm.JoinGroup{Replicas: fine}), bad},
		{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: fine, Weight: shardcfg.WeightMax + 1}), bad},
		{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: fine, Identity: ctrlfsm.IdentityFormed}), bad},
		{joins(ctrlfsm.JoinGroup{ID: 70}), bad},
		{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: []string{""}}), bad},
		{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: []string{"a b:1"}}), bad},
		{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: []string{"a:1", "a:1"}}), bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Join{Request: id} }, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			g := ctrlfsm.JoinGroup{ID: 70, Replicas: fine}
			return ctrlfsm.Join{Request: id, Groups: []ctrlfsm.JoinGroup{g, g}}
		}, bad},
		{func(ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Unpin{} }, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			id.BirthMS += ctrlfsm.RequestAheadMS + 1<<40
			return ctrlfsm.Unpin{Request: id}
		}, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			id.BirthMS = 1
			return ctrlfsm.Unpin{Request: id}
		}, nil},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Leave{Request: id} }, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Leave{Request: id, Groups: []shardcfg.GroupID{66}}
		}, []ctrlfsm.Reason{ctrlfsm.UnknownGroup}},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Move{Request: id, Shard: shardcfg.ShardID(o.w.p.Shards), Group: 1}
		}, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Move{Request: id, Group: 1, MaxPauseMS: shardcfg.PauseMSMax + 1}
		}, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Move{Request: id, Group: 66} }, []ctrlfsm.Reason{ctrlfsm.UnknownGroup}},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Unpin{Request: id, Shard: shardcfg.ShardID(o.w.p.Shards)}
		}, bad},
		{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Retire{Request: id, Incarnation: stranger}
		}, []ctrlfsm.Reason{ctrlfsm.UnknownGroup}},
		{func(ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Bind{Group: 1, Replicas: fine} }, bad},
		{func(ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Bind{Group: 66, Incarnation: stranger, Replicas: fine}
		}, []ctrlfsm.Reason{ctrlfsm.UnknownGroup}},
		{func(ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Drained{Incarnation: stranger} }, []ctrlfsm.Reason{ctrlfsm.UnknownGroup}},
		{func(ctrlfsm.RequestID) ctrlfsm.Command { return ctrlfsm.Claim{} }, bad},
		{func(ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Claim{Incarnation: stranger, Shards: []shardcfg.ShardID{shardcfg.ShardID(o.w.p.Shards)}}
		}, bad},
	}
	return append(list, o.blundersOfMembers()...)
}

// blundersOfMembers name groups that are members, which they stay unless the
// operator says otherwise.
func (o *operator) blundersOfMembers() (list []blunder) {
	latest := o.w.controllers.latest
	bound := []ctrlfsm.Reason{ctrlfsm.IncarnationBound}
	for _, l := range o.w.lives {
		if gid, listed := latest.GroupOf(l.self.Incarnation); listed {
			// Whoever was bound once stays so, listed or not.
			list = append(list,
				blunder{joins(ctrlfsm.JoinGroup{ID: gid + 50, Replicas: []string{"somewhere:1"}, Identity: ctrlfsm.IdentityFormed, Incarnation: l.self.Incarnation}), bound})
		}
	}
	in, _ := o.members()
	for _, gid := range in {
		g := latest.Groups[gid]
		many := make([]string, shardcfg.ReplicasMax+1)
		for i := range many {
			many[i] = fmt.Sprintf("many%d:1", i)
		}
		list = append(list,
			blunder{joins(ctrlfsm.JoinGroup{ID: gid, Replicas: []string{"elsewhere:1"}}), []ctrlfsm.Reason{ctrlfsm.GroupExists}},
			blunder{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: g.Replicas}), []ctrlfsm.Reason{ctrlfsm.AddressInUse}},
			blunder{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: many}), []ctrlfsm.Reason{ctrlfsm.BadRequest}},
			blunder{joins(ctrlfsm.JoinGroup{ID: 70, Replicas: []string{strings.Repeat("x", shardcfg.AddressBytesMax) + ":1"}}), []ctrlfsm.Reason{ctrlfsm.BadRequest}})
		if g.Incarnation.IsZero() {
			continue
		}
		list = append(list,
			blunder{joins(ctrlfsm.JoinGroup{ID: gid, Replicas: g.Replicas, Identity: ctrlfsm.IdentityEmpty}), bound},
			blunder{joins(ctrlfsm.JoinGroup{ID: gid, Replicas: g.Replicas, Identity: ctrlfsm.IdentityFormed, Incarnation: stranger}), bound},
			blunder{func(ctrlfsm.RequestID) ctrlfsm.Command {
				return ctrlfsm.Bind{Group: gid, Incarnation: stranger, Replicas: g.Replicas}
			}, bound},
			blunder{func(ctrlfsm.RequestID) ctrlfsm.Command {
				return ctrlfsm.Bind{Group: gid, Incarnation: g.Incarnation}
			}, []ctrlfsm.Reason{ctrlfsm.BadRequest}},
			blunder{func(ctrlfsm.RequestID) ctrlfsm.Command {
				return ctrlfsm.Drained{Incarnation: g.Incarnation, Adopted: latest.Num}
			}, []ctrlfsm.Reason{ctrlfsm.NotLeaving}})
	}
	claims, err := o.w.controllers.view.Claims()
	o.w.check(err, "read the claims")
	if all := latest.GroupIDs(); len(claims) > 0 && len(all) > 0 {
		list = append(list, blunder{func(id ctrlfsm.RequestID) ctrlfsm.Command {
			return ctrlfsm.Leave{Request: id, Groups: all}
		}, []ctrlfsm.Reason{ctrlfsm.LastGroup, ctrlfsm.UnknownGroup}})
	}
	return list
}

// spoils make a write one that no group may execute.
var spoils = []func(*kvfsm.Write){
	func(c *kvfsm.Write) { c.Key = nil },
	func(c *kvfsm.Write) { c.Key = bytes.Repeat([]byte("k"), shardcfg.KeyBytesMax+1) },
	func(c *kvfsm.Write) { c.Op = 0 },
	func(c *kvfsm.Write) { c.Op, c.Value = kvfsm.OpDelete, []byte("why") },
	func(c *kvfsm.Write) { c.Op, c.Value = kvfsm.OpPut, huge[:shardcfg.ValueBytesMax+1] },
	func(c *kvfsm.Write) { c.Stamp.Key.ID = shardcfg.SessionID{} },
}

// huge is as much of a value as anybody needs.
var huge = make([]byte, shardcfg.ValueBytesMax+1)

// nonsense makes a write that must be refused.
func (l *lane) nonsense() {
	c := l.c
	o := &op{l: l, spoil: spoils[c.rng.IntN(len(spoils))]}
	if c.rng.IntN(20) > 0 {
		o.spoil = spoils[c.rng.IntN(4)] // the others are long
	}
	c.w.stats.happened(KindNonsense)
	o.h = history.Operation{Client: l.number, Kind: history.Put, Key: keyName(1), Value: "nonsense"}
	o.start(c.w.now + c.w.p.Deadline)
}

// big writes, appends or reads megabytes.
func (l *lane) big() {
	c := l.c
	o := &op{l: l, big: true}
	o.h = history.Operation{Client: l.number, Key: bigKey}
	switch c.rng.IntN(3) {
	case 0:
		o.h.Kind, o.read = history.Get, true
	case 1:
		o.h.Kind, o.h.Value = history.Append, string(huge[:len(huge)/2])
	default:
		o.h.Kind, o.h.Value = history.Put, string(huge[:len(huge)*3/4])
	}
	o.start(c.w.now + c.w.p.Deadline)
}

// bigKey is for values of megabytes.
const bigKey = "kbig"
