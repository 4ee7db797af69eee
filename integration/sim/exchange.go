package sim

import (
	"slices"
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

// invite follows shardkv's mover.invite: it sends an Invite and passes the answer on;
// what gets no answer, the driver repeats.
func (s *server) invite(in handoff.Invite) {
	s.l.checkSaid(&in)
	if in.Hold {
		s.inviteFrozen(in, s.w.now+s.w.p.InviteEvery)
		return
	}
	begun := s.w.now
	s.inviteOnce(in, 0, func(handoff.InviteReply) { handoff.Smooth(&s.rates.RoundTrip, s.w.now-begun) })
}

// inviteFrozen asks for frozen shards until all were installed, for as long as one
// answer may be held back.
func (s *server) inviteFrozen(in handoff.Invite, until time.Duration) {
	wait := until - s.w.now
	s.inviteOnce(in, max(wait, 0), func(a handoff.InviteReply) {
		var rest []handoff.Invitation
		for i, v := range in.Shards {
			if !v.Epoch.Less(a.Shards[i].Epoch) {
				rest = append(rest, v)
			}
		}
		if in.Shards = rest; len(rest) > 0 && wait > 0 {
			s.inviteFrozen(in, until)
		}
	})
}

// inviteOnce sends one Invite; then is told of its answer.
func (s *server) inviteOnce(in handoff.Invite, wait time.Duration, then func(handoff.InviteReply)) {
	to := s.target(in.To.Incarnation, in.Replicas)
	if to == nil {
		return
	}
	leads := s.leads
	if s.w.trace.on() {
		s.w.trace.text("%s invites %v at %s: %+v", s.l.g.name, in.To, to.addr, in.Shards)
	}
	call(s.r.n, to, peerTimeout, s.w.p.Dup, func(reply func(inviteAnswer)) {
		if t := serverOf(to, &in.To.Incarnation, s.w.bugs.Unfenced); t != nil {
			t.invited(in, wait, reply)
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
		for _, v := range in.Shards {
			s.words[v.Shard] = s.w.now
		}
		s.driver.Answered(s.w.now, in, a.InviteReply)
		s.passSoon(0)
		then(a.InviteReply)
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
func (s *server) invited(in handoff.Invite, wait time.Duration, reply func(inviteAnswer)) {
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
	var a inviteAnswer
	s.hold(wait, func() (done bool) {
		v, err := handoff.ReadShards(s.r.reader(), &handoff.View{Config: s.config()}, in.Shards)
		if s.r.failed(err, "read shards") {
			return true
		}
		a = inviteAnswer{InviteReply: handoff.Answer(handoff.Identity{Peer: s.l.self}, &v, in)}
		a.From = asked
		return slices.ContainsFunc(a.Shards, func(st handoff.Standing) bool {
			return slices.ContainsFunc(in.Shards, func(v handoff.Invitation) bool { return v.Shard == st.Shard && v.Epoch.Less(st.Epoch) })
		})
	}, func() {
		a.leads = s.leading()
		reply(a)
	})
}

// pagesAnswer is an answer to a Fetch.
type pagesAnswer struct {
	pages []kvfsm.Page
	wrong bool
	leads
}

// fetch sends a Fetch and passes the pages on.
func (s *server) fetch(f handoff.Fetch) {
	f, early := s.inTime(f)
	if early > copyWaitMax {
		s.driver.FetchFailed(s.w.now, f)
		return
	}
	if early > 0 {
		s.r.n.after(early, s.mine(func() { s.fetchNow(f) }))
		return
	}
	s.fetchNow(f)
}

// copyWaitMax is for how long a Fetch waits for the rate of copying.
const copyWaitMax = peerTimeout / 4

// inTime follows shardkv's mover.inTime: while copying is ahead of its rate, tails are
// asked for alone, and copies wait.
func (s *server) inTime(f handoff.Fetch) (now handoff.Fetch, wait time.Duration) {
	if wait = s.copyAfter - s.w.now; wait <= 0 {
		return f, 0
	}
	tails := f
	tails.Wants = nil
	for _, w := range f.Wants {
		if w.Cursor.Tail {
			tails.Wants = append(tails.Wants, w)
		}
	}
	if len(tails.Wants) > 0 {
		return tails, 0
	}
	return f, wait
}

// chargeCopy follows shardkv's mover.chargeCopy.
func (s *server) chargeCopy(f *handoff.Fetch, pages []kvfsm.Page) {
	if s.w.p.CopyRate == 0 {
		return
	}
	bytes := 0
	for i := range pages[:min(len(pages), len(f.Wants))] {
		if !f.Wants[i].Cursor.Tail {
			bytes += pages[i].Bytes()
		}
	}
	s.copyAfter = max(s.copyAfter, s.w.now) + time.Duration(uint64(bytes)*uint64(time.Second)/s.w.p.CopyRate)
}

func (s *server) fetchNow(f handoff.Fetch) {
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
	if s.w.bugs.Impatient {
		f.BytesMax, f.Patience = s.w.p.PageBytes, peerTimeout
	}
	// A receiver reads a hint from any replica: now and then ask another one.
	if chance(s.w.rng.serve, 0.2) {
		to = s.w.address[replicas[s.w.rng.serve.IntN(len(replicas))]]
	}
	if s.w.trace.on() {
		s.w.trace.text("%s fetches from %v at %s: %+v", s.l.g.name, f.From, to.addr, f.Wants)
	}
	call(s.r.n, to, f.Patience, s.w.p.Dup, func(reply func(pagesAnswer)) {
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
			s.chargeCopy(&f, a.pages)
			s.driver.Fetched(s.w.now, f, s.w.garble(a.pages))
		}
		s.passSoon(0)
	})
}

// wanted answers a Fetch from applied state, of any replica.
func (s *server) wanted(f handoff.Fetch, reply func(pagesAnswer)) {
	if s.driver != nil {
		for _, w := range f.Wants {
			s.words[w.Shard] = s.w.now
		}
		s.driver.Wanted(s.w.now, f.To, f.Wants)
		s.passSoon(time.Millisecond)
	}
	to := f.To
	if s.w.bugs.Unfenced {
		to = s.unfencedReceiver(&f)
	}
	var pages []kvfsm.Page
	s.hold(2*s.w.p.TailPoll, func() (done bool) {
		var err error
		pages, err = kvfsm.ReadPages(s.r.reader(), to, f.Wants, f.BytesMax)
		if s.r.failed(err, "read pages") {
			return true
		}
		return tells(f.Wants, pages)
	}, func() {
		if s.w.bugs.TailSkipped {
			for i := range pages {
				if pages[i].Next.Tail && f.Wants[i].Cursor.Tail {
					pages[i].Items = nil
				}
			}
		}
		a := pagesAnswer{pages: pages, leads: s.leading()}
		s.r.n.after(s.w.transfer(pages), func() { reply(a) })
	})
}

// tells reports whether pages say anything that the receiver does not know.
func tells(wants []kvfsm.Want, pages []kvfsm.Page) bool {
	for i := range pages {
		p := &pages[i]
		if p.NotYours || p.Last || len(p.Items) > 0 || !p.Next.Equal(wants[i].Cursor) {
			return true
		}
	}
	return len(pages) < len(wants)
}

// transfer is how long pages take over the links between groups.
func (w *World) transfer(pages []kvfsm.Page) time.Duration {
	if w.p.Bandwidth == 0 {
		return 0
	}
	w.stats.happened(KindNarrow)
	bytes := 0
	for i := range pages {
		bytes += pages[i].Bytes()
	}
	return time.Duration(uint64(bytes) * uint64(time.Second) / w.p.Bandwidth)
}

// A held answer waits for news.
type held struct {
	look func() (done bool)
	end  func()
	over bool
}

// hold follows shardkv's node.hold: end runs once look has something to say, or after
// wait.
func (s *server) hold(wait time.Duration, look func() (done bool), end func()) {
	if look() || wait == 0 {
		if !s.r.stopping {
			end()
		}
		return
	}
	h := &held{look: look, end: end}
	s.holds = append(s.holds, h)
	s.r.n.after(wait, func() { s.release(h) })
}

func (s *server) release(h *held) {
	if h.over || s.r.stopping {
		return
	}
	h.over = true
	s.holds = slices.DeleteFunc(s.holds, func(o *held) bool { return o == h })
	h.end()
}

// lookAtHeld looks at the answers that are held back, once records have changed.
func (s *server) lookAtHeld() {
	for _, h := range slices.Clone(s.holds) {
		if !h.over && h.look() {
			s.release(h)
		}
	}
}
