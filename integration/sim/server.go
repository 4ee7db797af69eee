package sim

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
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
	claims  []shardcfg.ShardID // to be asked for
	want    shardcfg.ConfigNum // a config of at least this is needed
	known   bool               // the controllers have answered once: it is known what was claimed earlier
	polling bool
	asker   caller
	due     time.Duration // of the next pass
	passing bool
	slowed  map[shardcfg.ShardID]time.Duration
	leaving bool // some shard is Leaving

	parked []*request
	// Heard of other groups; see place.
	invitations map[shardcfg.ShardID]invitation
	hints       map[shardcfg.ShardID]holding
	addresses   map[shardcfg.Incarnation][]string
	preferred   map[shardcfg.Incarnation]int // which replica of a group to ask first
}

func newServer(l *life, r *replica) *server {
	s := &server{w: l.w, l: l, r: r}
	s.died()
	return s
}

func (s *server) died() {
	s.leads++
	s.driver, s.claims, s.want, s.parked = nil, nil, 0, nil
	s.polling, s.passing = false, false
	s.invitations = map[shardcfg.ShardID]invitation{}
	s.hints = map[shardcfg.ShardID]holding{}
	s.addresses = map[shardcfg.Incarnation][]string{}
	s.preferred = map[shardcfg.Incarnation]int{}
}

func (s *server) view() *handoff.View { return s.l.view(s.r.machine.at) }

// record is the applied record of a shard.
func (s *server) record(shard shardcfg.ShardID) kvfsm.Record {
	rec, err := kvfsm.ReadRecord(s.r.machine.at.mem, shard)
	s.w.check(err, "read a record")
	return rec
}

func (s *server) adopted() shardcfg.ConfigNum {
	if c := s.l.config(s.r.machine.at); c != nil {
		return c.Num
	}
	return 0
}

func (s *server) led() {
	s.leads++
	p := handoff.DefaultParams()
	p.PauseBudget, p.InviteEvery, p.TailPoll = s.w.p.PauseBudget, s.w.p.InviteEvery, s.w.p.TailPoll
	p.FetchTimeout, p.ProposeTimeout = 500*time.Millisecond, 500*time.Millisecond
	p.ThrottleRounds, p.FetchShardsMax = 5, 4
	s.driver = handoff.NewDriver(handoff.Identity{Peer: s.l.self, Replicas: s.l.addrs}, p)
	s.claims, s.want, s.known, s.polling, s.passing, s.slowed = nil, 0, false, false, false, nil
	s.passSoon(0)
	s.poll()
	s.expireLater()
	s.wake()
}

func (s *server) lost() {
	s.leads++
	s.driver = nil
	s.wake()
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
	if st.handoff || st.p == nil {
		s.wake()
		s.leaving = slices.ContainsFunc(s.view().Records, func(r kvfsm.Record) bool { return r.Phase == kvfsm.PhaseLeaving })
	}
	if s.driver != nil && (st.handoff || s.leaving) {
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
	a, err := s.driver.Step(s.w.now, *v)
	s.w.check(err, "step of a handoff")
	s.plant(v, &a)
	s.claims = append(s.claims, a.Claims...)
	s.want = a.AdoptAtLeast
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
	if len(s.claims) > 0 || s.want > v.Adopted() {
		s.poll()
	}
	busy := len(a.Invites)+len(a.Fetches)+len(a.Proposals)+len(a.Claims)+len(a.Throttles) > 0 || a.AdoptAtLeast > 0
	if wait := a.Wait; busy || wait < s.w.p.InviteEvery {
		s.passSoon(wait)
	} else {
		s.passSoon(idleWait)
	}
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

// poll is one round of shardkv's poller; it keeps itself going.
func (s *server) poll() {
	if s.driver == nil || s.polling {
		return
	}
	s.polling = true
	v := s.view()
	q := pollRequest{self: s.l.self, replicas: s.l.addrs, adopted: v.Adopted()}
	for i := range v.Records {
		rec := &v.Records[i]
		if rec.Phase.Serves() || rec.Phase == kvfsm.PhaseFrozen {
			q.holdings = append(q.holdings, holding{shard: rec.Shard, epoch: rec.Epoch, serving: rec.Phase.Serves(), by: s.l.self})
		}
	}
	if s.known {
		q.drained, _ = handoff.Drained(handoff.Identity{Peer: s.l.self}, v, s.driver.Uncreated())
	}
	q.drained = q.drained || s.w.bugs.DrainedEarly
	s.w.trace.note(tracePoll, s.r.n.id, uint64(q.adopted), uint64(len(q.holdings)))
	if s.w.trace.on() {
		_, why := handoff.Drained(handoff.Identity{Peer: s.l.self}, v, s.driver.Uncreated())
		s.w.trace.text("%s polls at config %d; drained %v (%s), known %v", s.l.g.name, q.adopted, q.drained, why, s.known)
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
	retryEvery  = 150 * time.Millisecond
	pollMoving  = 200 * time.Millisecond
	pollIdle    = time.Second
)

// polled ends a poll; the next comes after wait.
func (s *server) polled(wait time.Duration) {
	s.polling = false
	s.r.n.after(wait, s.mine(func() { s.poll() }))
}

// take acts on the answer to a poll, in the order in which the poller does.
func (s *server) take(a ctlReply) {
	s.hints = map[shardcfg.ShardID]holding{}
	for _, h := range a.hints {
		if h.by.Incarnation == s.l.self.Incarnation {
			continue
		}
		s.hints[h.shard] = h
		s.hear(h.by.Incarnation, h.replicas)
		s.driver.Heard(h.shard, h.epoch, h.by.Incarnation)
	}
	// Claims before the config: see shardkv's poll.
	s.granted(a.claimed)
	v := s.view()
	if a.config == nil || a.config.Num <= v.Adopted() {
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

// claim asks for the first tokens that the driver wants.
func (s *server) claim() {
	s.known = true
	asked := s.claims
	s.claims = nil
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
			if ok {
				s.granted(a.claimed)
				s.driver.ClaimRefused(s.w.now, slices.DeleteFunc(asked, func(x shardcfg.ShardID) bool { return slices.Contains(a.claimed, x) }))
			}
			s.polled(s.interval())
		})
}

func (s *server) granted(list []shardcfg.ShardID) {
	v := s.view()
	var fresh []shardcfg.ShardID
	for _, shard := range list {
		if rec := v.Record(shard); rec.Epoch.IsZero() {
			fresh = append(fresh, shard)
		}
	}
	if len(fresh) > 0 {
		s.driver.Claimed(fresh)
		s.passSoon(0)
	}
}

// interval is short while shards move, or the group waits to be let go.
func (s *server) interval() time.Duration {
	v := s.view()
	if v.Config == nil || v.Config.Groups[s.l.self.Group].State == shardcfg.GroupLeaving || len(s.claims) > 0 || s.want > v.Adopted() {
		return pollMoving
	}
	for i := range v.Config.Shards {
		rec := v.Record(shardcfg.ShardID(i))
		if (v.Config.Shards[i] == s.l.self.Group) != (rec.Phase == kvfsm.PhaseServing) || rec.Staging != nil {
			return pollMoving
		}
	}
	return pollIdle
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
	v := s.view()
	target := s.r.n.clock() - age
	var list []entry.Command
	for i := range v.Records {
		rec := &v.Records[i]
		if !rec.Phase.Serves() {
			continue
		}
		floor, err := kvfsm.ReadFloor(v.Reader, rec)
		s.w.check(err, "read a floor")
		old, err := kvfsm.HasSessionsBefore(v.Reader, rec, target)
		s.w.check(err, "look for sessions")
		if old && target >= floor+age/4 {
			list = append(list, kvfsm.Encode(&kvfsm.RaiseFloor{Shard: rec.Shard, Floor: target}))
		}
		if below, err := kvfsm.HasSessionsBefore(v.Reader, rec, floor); below && err == nil || len(list) > 0 {
			list = append(list, kvfsm.Encode(&kvfsm.Prune{Shard: rec.Shard, Max: 2}))
		}
	}
	if len(list) > 0 {
		s.w.stats.happened(KindExpiry)
		s.r.propose(list, func([]any, fate) {})
	}
}

type fateError struct{}

func (fateError) Error() string { return "the proposal's outcome is unknown, or it was not made" }

var errFate error = fateError{}
