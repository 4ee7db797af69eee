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

// A server is what shardkv runs on one replica of a group. While the replica
// leads, it drives the handoffs (shardkv's mover), talks to the controllers (its
// poller) and expires sessions (its expirer). Everything here is memory that a
// crash loses.
type server struct {
	w *World
	l *life
	r *replica

	// Of a leader.
	leads   int // counts leaderships, so that a late answer to an earlier one is void
	driver  *handoff.Driver
	talk    *handoff.Conversation
	polling bool
	pollDue time.Duration // of the next poll
	asker   caller
	due     time.Duration // of the next pass
	passing bool
	slowed  map[shardcfg.ShardID]time.Duration
	leaving bool // some shard is Leaving

	lot       *placement.Lot[*request]
	heard     *placement.Memory
	preferred map[shardcfg.Incarnation]int // which replica of a group to ask first
}

func newServer(l *life, r *replica) *server {
	s := &server{w: l.w, l: l, r: r}
	s.died()
	return s
}

func (s *server) died() {
	s.leads++
	s.driver, s.talk = nil, nil
	s.polling, s.passing = false, false
	s.lot = placement.NewLot[*request](s.w.p.Parked, parkedBytesMax)
	s.heard = placement.NewMemory()
	s.preferred = map[shardcfg.Incarnation]int{}
}

func (s *server) view() *handoff.View { return s.l.view(s.r.machine.at) }

// record is the applied record of a shard.
func (s *server) record(shard shardcfg.ShardID) kvfsm.Record {
	rec, err := kvfsm.ReadRecord(s.r.machine.at.mem, shard)
	s.w.check(err, "read a record")
	return rec
}

// config is the adopted one; number 0 stands for none.
func (s *server) config() *shardcfg.Config {
	if c := s.l.config(s.r.machine.at); c != nil {
		return c
	}
	return &shardcfg.Config{}
}

func (s *server) led() {
	s.leads++
	p := handoff.DefaultParams()
	p.PauseBudget, p.InviteEvery, p.TailPoll = s.w.p.PauseBudget, s.w.p.InviteEvery, s.w.p.TailPoll
	p.FetchTimeout, p.ProposeTimeout = 500*time.Millisecond, 500*time.Millisecond
	p.ThrottleRounds, p.FetchShardsMax = 5, 4
	s.driver = handoff.NewDriver(handoff.Identity{Peer: s.l.self, Replicas: s.l.addrs}, p)
	s.talk = handoff.NewConversation(s.driver)
	s.polling, s.passing, s.slowed = false, false, nil
	s.pollDue = -1
	s.passSoon(0)
	s.pollIn(0)
	s.expireLater()
	s.lot.WakeAll(s.wake)
}

func (s *server) lost() {
	s.leads++
	s.driver = nil
	s.lot.WakeAll(s.wake)
}

// mine wraps what belongs to the present leadership.
func (s *server) mine(f func()) func() {
	leads := s.leads
	return func() {
		if s.leads == leads && s.driver != nil {
			f()
		}
	}
}

func (s *server) applied(st *state) {
	switch {
	case st.unnoted || st.changes.Adopted:
		s.lot.WakeAll(s.wake)
	default:
		s.lot.Wake(st.changes.Shards, s.wake)
	}
	changed := st.unnoted || st.changes.Any()
	if changed {
		s.leaving = slices.ContainsFunc(s.view().Records, func(r kvfsm.Record) bool { return r.Phase == kvfsm.PhaseLeaving })
	}
	if s.driver != nil && (changed || s.leaving) {
		s.passSoon(time.Millisecond)
	}
}

// passSoon makes the driver look again within d.
func (s *server) passSoon(d time.Duration) {
	at := s.w.now + d
	if s.driver == nil || s.passing && s.due <= at {
		return
	}
	s.passing, s.due = true, at
	s.r.n.after(d, s.mine(func() {
		if s.passing && s.due == at {
			s.passing = false
			s.pass()
		}
	}))
}

// idleWait is the interval between passes while nothing moves.
const idleWait = time.Second

// pass is one pass of shardkv's mover.
func (s *server) pass() {
	v := s.view()
	if s.r.disk != nil {
		fresh, err := handoff.ReadView(s.r.reader(), nil)
		if s.r.failed(err, "read the records") {
			return
		}
		v = &fresh
	}
	a, err := s.driver.Step(s.w.now, *v)
	if s.r.failed(err, "step of a handoff") {
		return
	}
	s.plant(v, &a)
	ask := s.talk.Passed(&a, v.Adopted())
	s.slowed = map[shardcfg.ShardID]time.Duration{}
	for _, t := range a.Throttles {
		s.slowed[t.Shard] = t.Delay
	}
	for i := range a.Invites {
		s.invite(a.Invites[i])
	}
	for i := range a.Fetches {
		s.fetch(a.Fetches[i])
	}
	if len(a.Proposals) > 0 {
		s.carryOut(a.Proposals)
	}
	if ask {
		s.pollIn(0)
	}
	if a.Idle() && !s.moving() {
		a.Wait = idleWait
	}
	s.passSoon(a.Wait)
}

// moving follows shardkv's places.moving.
func (s *server) moving() bool {
	v := s.view()
	for i := range s.w.p.Shards {
		rec := v.Record(shardcfg.ShardID(i))
		if placement.Moves(s.l.self.Group, s.config(), rec.Shard, &rec) {
			return true
		}
	}
	return false
}

// carryOut proposes the commands of a pass and tells the driver how they ended.
func (s *server) carryOut(list []kvfsm.Command) {
	commands := make([]entry.Command, len(list))
	for i, c := range list {
		commands[i] = kvfsm.Encode(c)
	}
	leads := s.leads
	s.r.propose(commands, func(results []any, how fate) {
		if s.leads != leads || s.driver == nil {
			return
		}
		for i, c := range list {
			if how != fateDone {
				s.driver.Proposed(s.w.now, c, kvfsm.Verdict{}, errFate)
				continue
			}
			s.driver.Proposed(s.w.now, c, results[i].(kvfsm.Verdict), nil)
		}
		s.passSoon(0)
	})
}

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
	v := s.view()
	q := s.report(s.talk.Report(v))
	s.w.trace.note(tracePoll, s.r.n.id, uint64(q.Adopted), uint64(len(q.Holdings)))
	if s.w.trace.on() {
		_, why := handoff.Drained(handoff.Identity{Peer: s.l.self}, v, s.driver.Uncreated())
		s.w.trace.text("%s polls at config %d; drained %v (%s)", s.l.g.name, q.Adopted, q.Drained, why)
	}
	leads := s.leads
	serve := func(c *controller, reply func(ctlReply)) { c.poll(q, reply) }
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

// take acts on the answer to a poll, as the poller does.
func (s *server) take(a ctlReply) {
	reply := handoff.PollReply{Claimed: a.claimed}
	if a.config != nil {
		reply.Num = a.config.Num
	}
	for _, h := range a.hints {
		reply.Hints = append(reply.Hints, placement.Hint{Shard: h.Shard, Epoch: h.Epoch, Replicas: h.Replicas,
			Holder: kvfsm.Peer{Group: h.Group, Incarnation: h.Incarnation}})
	}
	adopt, news := s.talk.Heard(s.view(), &reply)
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
	s.r.propose([]entry.Command{cmd}, func(_ []any, how fate) {
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
			if ok && s.talk.Granted(s.w.now, s.view(), asked, a.claimed) {
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

// expireLater follows shardkv's expirer.
func (s *server) expireLater() {
	age := s.w.p.SessionAge
	if age == 0 {
		age = time.Hour
	}
	every := min(time.Minute, max(age/8, 50*time.Millisecond))
	s.r.n.after(every, s.mine(func() {
		s.expire(uint64(age.Milliseconds()))
		s.expireLater()
	}))
}

func (s *server) expire(age uint64) {
	due, err := kvfsm.Expiry{TargetMS: s.r.n.clock() - age, StepMS: age / 4, SessionsMax: 2, CommandsMax: 8}.Due(s.r.reader())
	if s.r.failed(err, "look for old sessions") || len(due) == 0 {
		return
	}
	list := make([]entry.Command, len(due))
	for i, c := range due {
		list[i] = kvfsm.Encode(c)
	}
	again := s.mine(func() { s.expire(age) })
	s.r.propose(list, func(_ []any, how fate) {
		if how == fateDone {
			s.r.n.after(pruneRest, again)
		}
	})
}

type fateError struct{}

func (fateError) Error() string { return "the proposal's outcome is unknown, or it was not made" }

var errFate error = fateError{}
