package explore

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// holderMoves are what a holder's leader would propose for a shard, by what it
// was told. Indexes of commands; lists because plants may add some.
type holderMoves struct {
	// ready: the receiver said that it would stage. Whether a receiver ever did is
	// not asked: then a shard may also start to leave towards a ghost, which only
	// adds states.
	ready []uint32
	// tail: the receiver showed the whole copy.
	tail []uint32
	// proof: anybody showed epoch e+1.
	proof []uint32
	// claimed: the controllers granted the claim.
	claimed []uint32
	// past: the source of the staging showed a greater mark, or somebody epoch e+1.
	past []uint32
	// offers: the source of the staging offered the shard as one that it serves, by any
	// config: also one that no state of it would offer it by. None, if offers prove
	// nothing.
	offers []uint32
	// asks says that it would ask for the claim.
	asks bool
}

// eager are parameters under which a Driver freezes at once: how long a tail may
// be is a matter of time, and any time may pass.
func eager() handoff.Params {
	p := handoff.DefaultParams()
	p.PauseBudget = 24 * time.Hour
	return p
}

// moves returns the holderMoves of a local for a shard.
func (x *explorer) moves(l *local, shard int) *holderMoves {
	if m := l.holder[shard]; m != nil {
		return m
	}
	m := &holderMoves{}
	l.holder[shard] = m
	rec := l.view.Record(shardcfg.ShardID(shard))
	next := rec.Epoch.Next()
	m.ready = x.asHolder(l, shard, func(inv handoff.Invitation) handoff.Standing {
		return handoff.Standing{Shard: inv.Shard, Ready: true}
	})
	m.tail = x.asHolder(l, shard, func(inv handoff.Invitation) handoff.Standing {
		return handoff.Standing{Shard: inv.Shard, Staging: &handoff.StagingState{
			Mark:   kvfsm.Mark{Epoch: inv.Epoch.Next(), Handoff: inv.Handoff},
			Cursor: kvfsm.Cursor{Tail: true, Revision: rec.Start}}}
	})
	m.proof = x.asDriver(l, shard, func(d *handoff.Driver) { d.Heard(rec.Shard, next, shardcfg.Incarnation{0xFF}) })
	m.asks = x.asksClaim(l, rec.Shard)
	m.claimed = x.asDriver(l, shard, func(d *handoff.Driver) { d.Claimed([]shardcfg.ShardID{rec.Shard}) })
	if st := rec.Staging; st != nil {
		m.past = x.asReceiver(l, shard, func(f handoff.Fetch) []kvfsm.Page {
			shown := st.Wanted()
			shown.Handoff++
			return []kvfsm.Page{{Shard: rec.Shard, NotYours: true, Mark: shown}}
		}, nil)
		offered := st.Wanted()
		offered.Handoff++
		m.offers = x.asReceiver(l, shard, nil, &handoff.Invite{From: incOf(st.From.Incarnation).identity(), To: l.inc.peer(),
			Shards: []handoff.Invitation{{Shard: rec.Shard, Mark: offered, Phase: kvfsm.PhaseServing}}})
	}
	return m
}

// asDriver returns what a new leader of l proposes for a shard after it was told
// something.
func (x *explorer) asDriver(l *local, shard int, tell func(d *handoff.Driver)) []uint32 {
	d := handoff.NewDriver(l.inc.identity(), eager())
	tell(d)
	return x.proposals(l, shard, d, 0)
}

// asksClaim reports whether a new leader of l asks for the claim to a shard.
func (x *explorer) asksClaim(l *local, s shardcfg.ShardID) bool {
	a, err := handoff.NewDriver(l.inc.identity(), eager()).Step(0, l.view)
	if err != nil {
		panic("explore: " + err.Error())
	}
	return slices.Contains(a.Claims, s)
}

// proposals runs Step and returns the shard's proposals.
func (x *explorer) proposals(l *local, shard int, d *handoff.Driver, now time.Duration) []uint32 {
	a, err := d.Step(now, l.view)
	if err != nil {
		panic("explore: " + err.Error())
	}
	return x.ofShard(shard, slices.Concat(a.Proposals, a.Copies))
}

func (x *explorer) ofShard(shard int, list []kvfsm.Command) (ids []uint32) {
	for _, c := range list {
		if s, ok := shardOf(c); ok && s == shard {
			ids = append(ids, x.internCommand(c))
		}
	}
	return ids
}

// asHolder returns what a leader of l proposes after its invitation was
// answered so.
func (x *explorer) asHolder(l *local, shard int, answer func(handoff.Invitation) handoff.Standing) (ids []uint32) {
	d := handoff.NewDriver(l.inc.identity(), eager())
	a, err := d.Step(0, l.view)
	if err != nil {
		panic("explore: " + err.Error())
	}
	for _, in := range a.Invites {
		reply := handoff.InviteReply{From: in.To.Incarnation, Adopted: in.Adopted}
		for _, inv := range in.Shards {
			reply.Shards = append(reply.Shards, answer(inv))
		}
		d.Answered(0, in, reply)
	}
	return x.proposals(l, shard, d, time.Millisecond)
}

// asReceiver returns what a leader of l proposes once its Fetch was answered
// with pages. invite may be nil.
func (x *explorer) asReceiver(l *local, shard int, pages func(handoff.Fetch) []kvfsm.Page, invite *handoff.Invite) (ids []uint32) {
	d := handoff.NewDriver(l.inc.identity(), eager())
	if invite != nil {
		d.Invited(0, *invite)
	}
	a, err := d.Step(0, l.view)
	if err != nil {
		panic("explore: " + err.Error())
	}
	if ids = x.ofShard(shard, slices.Concat(a.Proposals, a.Copies)); len(ids) > 0 || pages == nil {
		return ids
	}
	for _, f := range a.Fetches {
		for _, w := range f.Wants {
			if int(w.Shard) != shard {
				continue
			}
			f.Wants = []kvfsm.Want{w}
			d.Fetched(0, f, pages(f))
			return x.proposals(l, shard, d, time.Millisecond)
		}
	}
	return nil
}

// received returns what a leader of l proposes after a fact of a holder reached
// it: a Stage, or the page that an image answers.
func (x *explorer) received(id uint32, l *local, factID uint32) []uint32 {
	ref := uint64(id)<<32 | uint64(factID)
	if ids, ok := x.pages[ref]; ok {
		return ids
	}
	f := &x.facts[factID]
	invite := &handoff.Invite{From: f.from.identity(), To: f.to.peer(), Adopted: f.mark.Handoff,
		Shards: []handoff.Invitation{{Shard: shardcfg.ShardID(f.shard), Mark: f.mark, Phase: f.phase}}}
	var answer func(handoff.Fetch) []kvfsm.Page
	if f.kind == factImage {
		answer = func(fetch handoff.Fetch) []kvfsm.Page {
			if incOf(fetch.From.Incarnation) != f.from {
				return nil
			}
			pages, err := x.readPages(f.store, fetch.To, fetch.Wants, x.pageBytes)
			if err != nil {
				panic("explore: " + err.Error())
			}
			return pages
		}
	}
	ids := x.asReceiver(l, f.shard, answer, invite)
	if p := x.opts.Plant; p != nil && p.Invited != nil {
		ids = append(ids, x.ofShard(f.shard, p.Invited(l.inc.peer(), &l.view, *invite))...)
	}
	x.pages[ref] = ids
	return ids
}

// readPages is kvfsm.ReadPages, with what a plant makes of it.
func (x *explorer) readPages(r store.Reader, to shardcfg.Incarnation, wants []kvfsm.Want, bytesMax int) ([]kvfsm.Page, error) {
	pages, err := kvfsm.ReadPages(r, to, wants, bytesMax)
	if p := x.opts.Plant; p != nil && p.Page != nil {
		for i := range pages {
			if err := p.Page(r, &pages[i]); err != nil {
				return nil, err
			}
		}
	}
	return pages, err
}

// shardOf returns the shard of a command that a driver proposes.
func shardOf(c kvfsm.Command) (int, bool) {
	switch c := c.(type) {
	case *kvfsm.RaiseFloor:
		return int(c.Shard), true
	case *kvfsm.Prune:
		return int(c.Shard), true
	}
	s, ok := kvfsm.HandoffShard(c)
	return int(s), ok
}
