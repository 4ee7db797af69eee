package sim

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/report"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// pollIn lets the poller poll within d; while it does, once more after that.
func (s *server) pollIn(d time.Duration) {
	at := s.w.now + d
	if s.driver == nil || s.pollDue >= 0 && s.pollDue <= at {
		return
	}
	s.pollDue = at
	s.r.n.after(d, s.mine(func() {
		if s.pollDue == at && !s.polling {
			s.poll()
		}
	}))
}

// told wakes the poller for a config that a controller's stream told of. A lost
// stream costs a poll interval at most.
func (s *server) told(num shardcfg.ConfigNum) {
	if s.driver != nil && num > s.config().Num {
		s.pollIn(0)
	}
}

// poll is one round of shardkv's poller.
func (s *server) poll() {
	s.polling, s.pollDue = true, -1
	q := s.report(s.talk.Report(&s.shown))
	s.w.trace.note(tracePoll, s.r.n.id, uint64(q.Adopted), uint64(len(q.Holdings)))
	if s.w.trace.on() {
		s.w.trace.text("%s polls at config %d; drained %v", s.l.g.name, q.Adopted, q.Drained)
	}
	leads := s.leads
	serve := func(c *controller, reply func(ctlReply)) { c.poll(s.sent(q), reply) }
	s.w.controllers.ask(s.r.n, &s.asker, pollTimeout, serve,
		func(a ctlReply, ok bool) {
			if s.leads != leads || s.driver == nil {
				return
			}
			if !ok || a.refusal != nil {
				s.w.trace.text("%s: poll failed: answered %v, refused %v", s.r.n.addr, ok, a.refusal)
				s.polled(retryEvery)
				return
			}
			s.take(a)
		})
}

const (
	pollTimeout = 500 * time.Millisecond
	pruneRest   = 20 * time.Millisecond
	retryEvery  = 150 * time.Millisecond
	pollMoving  = 200 * time.Millisecond
	pollIdle    = time.Second
)

// polled ends a poll; the next comes after wait.
func (s *server) polled(wait time.Duration) {
	s.polling = false
	if due := s.pollDue; due >= 0 {
		// Something asked for it meanwhile.
		s.pollDue = -1
		wait = min(wait, max(due-s.w.now, 0))
	}
	s.pollIn(wait)
}

// sent is a report as it arrives: its holdings in any order.
func (s *server) sent(q *report.Report) *report.Report {
	one := *q
	one.Holdings = slices.Clone(q.Holdings)
	s.w.rng.order.Shuffle(len(one.Holdings), func(i, k int) { one.Holdings[i], one.Holdings[k] = one.Holdings[k], one.Holdings[i] })
	return &one
}

// take acts on the answer to a poll, as the poller does.
func (s *server) take(a ctlReply) {
	reply := handoff.PollReply{Claimed: a.claimed}
	if a.config != nil {
		reply.Num = a.config.Num
	}
	for _, g := range a.repairs {
		reply.Repairs = append(reply.Repairs, handoff.Grant{Shard: g.Shard, Frozen: g.Frozen, Gen: g.Gen})
	}
	for _, h := range a.hints {
		reply.Hints = append(reply.Hints, placement.Hint{Shard: h.Shard, Epoch: h.Epoch, Replicas: h.Replicas,
			Holder: kvfsm.Peer{Group: h.Group, Incarnation: h.Incarnation}})
	}
	adopt, news := s.talk.Heard(&s.shown, &reply)
	s.heard.Hinted(reply.Hints)
	if news {
		s.passSoon(0)
	}
	if !adopt {
		s.claim()
		return
	}
	cmd := kvfsm.Encode(&kvfsm.Adopt{Cluster: s.w.cluster, Config: a.config})
	leads := s.leads
	s.r.propose([]entry.Command{cmd}, urgent, func(_ []any, how fate) {
		if s.leads != leads || s.driver == nil {
			return
		}
		if how != fateDone {
			s.polled(retryEvery)
			return
		}
		s.passSoon(0)
		s.claim()
	})
}

// claim ends a poll: it asks for the first tokens that the driver wants.
func (s *server) claim() {
	asked := s.talk.Settled()
	if len(asked) == 0 {
		s.polled(s.interval())
		return
	}
	inc := s.l.self.Incarnation
	leads := s.leads
	s.w.controllers.ask(s.r.n, &s.asker, pollTimeout, func(c *controller, reply func(ctlReply)) { c.claim(inc, asked, reply) },
		func(a ctlReply, ok bool) {
			if s.leads != leads || s.driver == nil {
				return
			}
			if ok && s.talk.Granted(s.w.now, &s.shown, asked, a.claimed) {
				s.passSoon(0)
			}
			s.polled(s.interval())
		})
}

// interval is short while shards move, or the group waits to be let go.
func (s *server) interval() time.Duration {
	c := s.config()
	if c.Groups[s.l.self.Group].State == shardcfg.GroupLeaving || s.moving() || s.talk.Waits(c.Num) {
		return pollMoving
	}
	return pollIdle
}

// report is what the group tells the controllers.
func (s *server) report(r handoff.Report) *report.Report {
	q := &report.Report{Group: s.l.self.Group, Incarnation: s.l.self.Incarnation, Leader: s.r.n.addr,
		Replicas: s.l.addrs, Adopted: r.Adopted, Drained: r.Drained || s.w.bugs.DrainedEarly}
	for _, h := range r.Holdings {
		q.Holdings = append(q.Holdings, report.Holding{Shard: h.Shard, Epoch: h.Epoch, Serving: h.Serving,
			Keys: h.Content.Keys, Bytes: h.Content.Bytes})
	}
	return q
}
