package sim

import (
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// peerTimeout is how long a call to another group may take.
const peerTimeout = 500 * time.Millisecond

// inviteAnswer is an answer with what the replica says of itself.
type inviteAnswer struct {
	handoff.InviteReply
	wrong bool // another incarnation lives there
	leads
}

// leads is what an answer says of who leads.
type leads struct {
	leading bool
	leader  string // empty: not known, or it is the one that answers
}

func (s *server) leading() leads { return leads{leading: s.driver != nil, leader: s.r.leaderAddr()} }

// followed goes on from a replica that was of no help.
func (s *server) followed(inc shardcfg.Incarnation, replicas []string, asked *node, l leads) {
	if !l.leading {
		s.peers.Follow(inc, replicas, asked.addr, l.leader)
	}
}

// invite sends an Invite and passes the answer on; what gets no answer, the
// driver repeats.
func (s *server) invite(in handoff.Invite) {
	to := s.target(in.To.Incarnation, in.Replicas)
	if to == nil {
		return
	}
	s.l.checkSaid(&in)
	leads, begun := s.leads, s.w.now
	if s.w.trace.on() {
		s.w.trace.text("%s invites %v at %s: %+v", s.l.g.name, in.To, to.addr, in.Shards)
	}
	call(s.r.n, to, peerTimeout, s.w.p.Dup, func(reply func(inviteAnswer)) {
		if t := serverOf(to, &in.To.Incarnation, s.w.bugs.Unfenced); t != nil {
			t.invited(in, reply)
		} else {
			reply(inviteAnswer{wrong: true})
		}
	}, func(a inviteAnswer, how ending, _ bool) {
		s.followed(in.To.Incarnation, in.Replicas, to, a.leads)
		if s.w.trace.on() {
			s.w.trace.text("%s: invitation at %s answered %v: %+v", s.l.g.name, to.addr, how == answered, a)
		}
		if how != answered || a.wrong || s.leads != leads || s.driver == nil {
			return
		}
		handoff.Smooth(&s.rates.RoundTrip, s.w.now-begun)
		s.driver.Answered(s.w.now, in, a.InviteReply)
		s.passSoon(0)
	})
}

// target is the replica of a group to ask now.
func (s *server) target(inc shardcfg.Incarnation, replicas []string) *node {
	if len(replicas) == 0 {
		return nil
	}
	return s.w.address[s.peers.Order(inc, replicas)[0]]
}

// serverOf returns the server of an incarnation at a node; nil: another one
// lives there. Unfenced, whoever lives there is taken for it.
func serverOf(n *node, inc *shardcfg.Incarnation, unfenced bool) *server {
	if n.host == nil {
		return nil
	}
	s, ok := n.host.top.(*server)
	if !ok || s.l.self.Incarnation != *inc && !unfenced {
		return nil
	}
	return s
}

// invited answers an Invite from applied state; a leader acts on it.
func (s *server) invited(in handoff.Invite, reply func(inviteAnswer)) {
	asked := in.To.Incarnation
	in.To.Incarnation = s.l.self.Incarnation // differs only where it is not fenced
	s.heard.Hear(in.From.Peer.Incarnation, in.From.Replicas)
	var told []shardcfg.ShardID
	for _, v := range in.Shards {
		if s.heard.Invited(v.Shard, v.By(in.From.Peer)) {
			told = append(told, v.Shard)
		}
	}
	s.lot.Wake(told, s.wake)
	if s.driver != nil {
		s.driver.Invited(s.w.now, in)
		s.passSoon(0)
	}
	v, err := handoff.ReadShards(s.r.reader(), &handoff.View{Config: s.config()}, in.Shards)
	if s.r.failed(err, "read shards") {
		return
	}
	a := inviteAnswer{InviteReply: handoff.Answer(handoff.Identity{Peer: s.l.self}, &v, in), leads: s.leading()}
	a.From = asked
	reply(a)
}

// pagesAnswer is an answer to a Fetch.
type pagesAnswer struct {
	pages []kvfsm.Page
	wrong bool
	leads
}

// fetch sends a Fetch and passes the pages on.
func (s *server) fetch(f handoff.Fetch) {
	replicas := f.Replicas
	if len(replicas) == 0 {
		replicas = s.heard.Addresses(s.config(), f.From)
	}
	to := s.target(f.From.Incarnation, replicas)
	leads := s.leads
	if to == nil {
		s.driver.FetchFailed(s.w.now, f)
		return
	}
	// A receiver reads a hint from any replica: now and then ask another one.
	if chance(s.w.rng.serve, 0.2) {
		to = s.w.address[replicas[s.w.rng.serve.IntN(len(replicas))]]
	}
	if s.w.trace.on() {
		s.w.trace.text("%s fetches from %v at %s: %+v", s.l.g.name, f.From, to.addr, f.Wants)
	}
	call(s.r.n, to, peerTimeout, s.w.p.Dup, func(reply func(pagesAnswer)) {
		if t := serverOf(to, &f.From.Incarnation, false); t != nil {
			t.wanted(f, reply)
		} else {
			reply(pagesAnswer{wrong: true})
		}
	}, func(a pagesAnswer, how ending, _ bool) {
		s.followed(f.From.Incarnation, replicas, to, a.leads)
		if s.leads != leads || s.driver == nil {
			return
		}
		if how != answered || a.wrong {
			s.driver.FetchFailed(s.w.now, f)
		} else {
			s.driver.Fetched(s.w.now, f, s.w.garble(a.pages))
		}
		s.passSoon(0)
	})
}

// wanted answers a Fetch from applied state, of any replica.
func (s *server) wanted(f handoff.Fetch, reply func(pagesAnswer)) {
	if s.driver != nil {
		s.driver.Wanted(f.To, f.Wants)
		s.passSoon(time.Millisecond)
	}
	to := f.To
	if s.w.bugs.Unfenced {
		to = s.unfencedReceiver(&f)
	}
	pages, err := kvfsm.ReadPages(s.r.reader(), to, f.Wants, s.w.p.PageBytes)
	if s.r.failed(err, "read pages") {
		return
	}
	if s.w.bugs.TailSkipped {
		for i := range pages {
			if pages[i].Next.Tail && f.Wants[i].Cursor.Tail {
				pages[i].Items = nil
			}
		}
	}
	reply(pagesAnswer{pages: pages, leads: s.leading()})
}
