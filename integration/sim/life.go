package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A life is one incarnation of a group: from its formation until its machines
// are wiped.
type life struct {
	w     *World
	self  kvfsm.Peer
	addrs []string
	g     *raftGroup
	// over: its machines were wiped, after it was drained.
	over bool
	// destroyed: nobody will ever hear of it again.
	destroyed bool
	// drained is the config without it, once the controllers let it go; 0: not
	// yet. It must take nothing on until a config names it again.
	drained shardcfg.ConfigNum
	// bound: some config had it.
	bound bool
	// held: an operator lets it begin no handoff.
	held bool

	configs map[shardcfg.ConfigNum]*shardcfg.Config // decoded
	echoes  map[shardcfg.ShardID]*strays            // what took effect
	said    map[handoff.Invitation]bool             // what it may say of its shards
}

// newLife forms a group on nodes that have none.
func (w *World) newLife(gid shardcfg.GroupID, nodes []*node) *life {
	var inc shardcfg.Incarnation
	binary.BigEndian.PutUint64(inc[:], uint64(gid))
	binary.BigEndian.PutUint64(inc[8:], uint64(len(w.lives)+1))
	l := &life{w: w, self: kvfsm.Peer{Incarnation: inc, Group: gid}, configs: map[shardcfg.ConfigNum]*shardcfg.Config{},
		echoes: map[shardcfg.ShardID]*strays{}, said: map[handoff.Invitation]bool{}}
	for _, n := range nodes {
		l.addrs = append(l.addrs, n.addr)
	}
	w.lives = append(w.lives, l)
	l.g = newRaftGroup(w, fmt.Sprintf("group %d/%d", gid, len(w.lives)), nodes, func() machine {
		return kvfsm.New(kvfsm.Config{Group: gid, Incarnation: inc, ShardCount: w.p.Shards,
			SessionAheadMax: w.p.SessionAhead, SessionResultsMax: w.p.SessionResults})
	}, func(r *replica) resident { return newServer(l, r) })
	l.g.seen = l.seen
	return l
}

// end wipes the machines: the incarnation never speaks again, but what it has
// sent is still under way.
func (l *life) end() {
	l.over = true
	for _, r := range l.g.replicas {
		r.n.boot++
		r.n.held = nil
		r.n.host = nil
	}
}

// seen checks every entry as it is first applied.
func (l *life) seen(st *state, e *entry.Entry) {
	w := l.w
	defer l.maySay(st)
	for i, c := range e.Commands {
		st.changes.Note(c, st.results[i])
		if c.Kind < entry.KindMachineMin {
			continue
		}
		cmd, err := kvfsm.Decode(c)
		w.check(err, "decode a command")
		if w.trace.on() {
			w.trace.text("%s %d: %T %+v -> %+v", l.g.name, st.index, cmd, cmd, st.results[i])
		}
		if wr, ok := cmd.(*kvfsm.Write); ok {
			w.model.wrote(w, l, st, wr, st.results[i].(kvfsm.Outcome))
			continue
		}
		w.changed = true
		w.strays.keep(c)
		verdict := st.results[i].(kvfsm.Verdict)
		w.commanded(l, st, cmd, verdict)
		if shard, ok := kvfsm.HandoffShard(cmd); ok && verdict.Done {
			l.echo(shard, cmd, c)
		}
	}
}

// maySay notes what a holder may say of its shards in a state: its mark, or, while
// it serves, from which config on it would hand over.
func (l *life) maySay(st *state) {
	if !st.changes.Any() {
		return
	}
	v := l.view(st)
	for i := range v.Records {
		inv := handoff.Invitation{Shard: v.Records[i].Shard, Mark: v.Records[i].Mark(), Phase: v.Records[i].Phase}
		if inv.Phase == kvfsm.PhaseServing {
			inv.Handoff = v.Adopted()
		}
		l.said[inv] = true
	}
}

// checkSaid: a holder shows no mark that it never had (INV-4).
func (l *life) checkSaid(in *handoff.Invite) {
	for _, inv := range in.Shards {
		if !l.said[inv] {
			l.w.fail("INV-4", "%s invites group %d as no state of it allows: %+v", l.g.name, in.To.Group, inv)
		}
	}
}

// view returns what a state says of shards and config.
func (l *life) view(st *state) *handoff.View {
	if st.view == nil || st.view.Reader != st.mem {
		v, err := handoff.ReadView(st.mem, &handoff.View{Config: l.config(st)})
		l.w.check(err, "read the records")
		st.view = &v
	}
	return st.view
}

// config is the one that a state has adopted; nil: none.
func (l *life) config(st *state) *shardcfg.Config {
	num, err := kvfsm.ReadAdoptedNum(st.mem)
	l.w.check(err, "read the adopted number")
	if num == 0 {
		return nil
	}
	c, ok := l.configs[num]
	if !ok {
		a, err := kvfsm.ReadAdopted(st.mem)
		l.w.check(err, "read the adopted config")
		c = a.Config
		l.configs[num] = c
	}
	return c
}

// newest is the view of the newest state.
func (l *life) newest() *handoff.View { return l.view(l.g.newest) }
