package sim

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
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
	rates   handoff.Rates // measured
	// copyAfter is when the next copy may be fetched, at the rate of copying.
	copyAfter time.Duration
	// words is when the receiver of each shard was heard last.
	words map[shardcfg.ShardID]time.Duration

	// shown is the state that was published, as shardkv's places has it: config and
	// records of one moment, which is behind the applied one.
	shown handoff.View
	lot   *placement.Lot[*request]
	holds []*held
	heard *placement.Memory
	peers placement.Preference // which replica of a group to ask first
}

func newServer(l *life, r *replica) *server {
	s := &server{w: l.w, l: l, r: r}
	s.died()
	return s
}

func (s *server) died() {
	s.leads++
	s.driver, s.talk = nil, nil
	s.polling, s.passing, s.holds = false, false, nil
	s.shown = *s.l.view(s.r.machine.at)
	s.lot = placement.NewLot[*request](s.w.p.Parked, parkedBytesMax)
	s.heard = placement.NewMemory()
	s.peers = placement.Preference{}
}

// record is the published record of a shard.
func (s *server) record(shard shardcfg.ShardID) kvfsm.Record { return s.shown.Record(shard) }

// config is the published one; number 0 stands for none.
func (s *server) config() *shardcfg.Config {
	if s.shown.Config != nil {
		return s.shown.Config
	}
	return &shardcfg.Config{}
}

func (s *server) led() {
	s.leads++
	p := handoff.DefaultParams()
	p.PauseBudget, p.InviteEvery, p.TailPoll = s.w.p.PauseBudget, s.w.p.InviteEvery, s.w.p.TailPoll
	p.FetchTimeout, p.ProposeTimeout, p.WordAge = peerTimeout, 2*proposingMax, s.w.p.WordAge
	p.ThrottleRounds, p.FetchShardsMax, p.ProposalsMax = 5, 4, s.w.p.ProposalsMax
	p.PageBytes, p.AtHandBytesMax = s.w.p.PageBytes, s.w.p.PagesAtHand*s.w.p.PageBytes
	if s.w.bugs.WordsForever {
		p.WordAge = time.Hour
	}
	s.words, s.copyAfter = map[shardcfg.ShardID]time.Duration{}, 0
	s.driver = handoff.NewDriver(handoff.Identity{Peer: s.l.self, Replicas: s.l.addrs}, p)
	s.rates = handoff.Rates{BytesPerSecond: s.w.p.Rates.BytesPerSecond, ChangesPerSecond: s.w.p.Rates.ChangesPerSecond}
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

// applied publishes what an entry changed, in a moment, as shardkv's table does.
func (s *server) applied(st *state) {
	if st.unnoted || st.changes.Any() {
		d := between(s.w.rng.serve, 0, s.w.p.ApplyDelay)
		if !s.w.quiet() && chance(s.w.rng.serve, s.w.p.ApplySlow) {
			d += between(s.w.rng.serve, 0, 2*s.w.p.Election)
		}
		s.r.n.after(d, func() { s.publish(st) })
	}
}

// received publishes everything.
func (s *server) received() {
	s.shown = *s.l.view(s.r.machine.at)
	s.lot.WakeAll(s.wake)
}

// publish shows the state as it is by now, and wakes who waits for it.
func (s *server) publish(st *state) {
	s.show()
	s.lookAtHeld()
	if s.driver != nil {
		s.passSoon(time.Millisecond)
	}
	if st.unnoted || st.changes.Adopted {
		s.lot.WakeAll(s.wake)
	} else {
		s.lot.Wake(st.changes.Shards, s.wake)
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
	v, err := handoff.NewView(s.shown.Config, slices.Clone(s.shown.Records), s.r.reader())
	if s.r.failed(err, "read the records") {
		return
	}
	s.driver.SetReplicas(s.l.addrs)
	s.driver.SetRates(s.rates)
	s.driver.Hold(s.l.held)
	a, err := s.driver.Step(s.w.now, v)
	if s.r.failed(err, "step of a handoff") {
		return
	}
	s.plant(&v, &a)
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
	s.checkWords(&v, &a)
	if len(a.Proposals) > 0 {
		s.carryOut(a.Proposals, urgent)
	}
	if len(a.Copies) > 0 {
		s.carryOut(a.Copies, background)
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
	for i := range s.w.p.Shards {
		rec := s.record(shardcfg.ShardID(i))
		if placement.Moves(s.l.self.Group, s.config(), rec.Shard, &rec) {
			return true
		}
	}
	return false
}

// proposingMax bounds a list of proposals.
const proposingMax = 500 * time.Millisecond

// carryOut follows shardkv's mover.propose: it proposes commands of a pass and tells
// the driver how they ended, after proposingMax at the latest.
func (s *server) carryOut(list []kvfsm.Command, class class) {
	commands := make([]entry.Command, len(list))
	for i, c := range list {
		commands[i] = kvfsm.Encode(c)
	}
	leads, begun, over := s.leads, s.w.now, false
	end := func(results []any, how fate) {
		if over || s.leads != leads || s.driver == nil {
			return
		}
		over = true
		if how == fateDone && class == urgent {
			handoff.Smooth(&s.rates.Commit, s.w.now-begun)
		}
		for i, c := range list {
			if how != fateDone {
				s.driver.Proposed(s.w.now, c, kvfsm.Verdict{}, errFate)
				continue
			}
			s.driver.Proposed(s.w.now, c, results[i].(kvfsm.Verdict), nil)
		}
		s.passSoon(0)
	}
	p := s.r.propose(commands, class, end)
	s.r.n.after(proposingMax, func() {
		if !over && p != nil {
			s.r.pack.withdraw(p)
		}
		end(nil, fateUnknown)
	})
}

// checkWords: nothing is frozen, and no write slowed, for a receiver that has been
// silent for longer than its word counts.
func (s *server) checkWords(v *handoff.View, a *handoff.Actions) {
	check := func(shard shardcfg.ShardID, what string) {
		if age := s.w.now - s.words[shard]; age > s.w.p.WordAge {
			rec := v.Record(shard)
			s.w.fail("INV-5", "%s: shard %d is %s for group %d, last heard %v ago", s.l.g.name, shard, what, rec.To.Group, age)
		}
	}
	for _, t := range a.Throttles {
		check(t.Shard, "slowed")
	}
	for _, c := range a.Proposals {
		if f, ok := c.(*kvfsm.Freeze); ok && !s.w.bugs.FreezeEarly {
			check(f.Shard, "frozen")
		}
	}
}

// expireLater follows shardkv's expirer.
func (s *server) expireLater() {
	age := s.w.p.SessionAge
	if age == 0 {
		age = time.Hour
	}
	every := min(time.Minute, max(age/8, 50*time.Millisecond))
	s.r.n.after(every, s.mine(func() {
		s.expire(uint64(age.Milliseconds()), 0)
		s.expireLater()
	}))
}

// expire follows shardkv's expirer, from a shard on.
func (s *server) expire(age uint64, from shardcfg.ShardID) {
	now := max(s.r.n.clock(), s.r.machine.at.clock)
	due, next, err := kvfsm.Expiry{TargetMS: now - age, StepMS: age / 4, SessionsMax: 2, CommandsMax: 8}.Due(s.r.reader(), from)
	if s.r.failed(err, "look for old sessions") || len(due) == 0 {
		return
	}
	list := make([]entry.Command, len(due))
	for i, c := range due {
		list[i] = kvfsm.Encode(c)
	}
	again := s.mine(func() { s.expire(age, next) })
	s.r.propose(list, background, func(_ []any, how fate) {
		if how == fateDone {
			s.r.n.after(pruneRest, again)
		}
	})
}

type fateError struct{}

func (fateError) Error() string { return "the proposal's outcome is unknown, or it was not made" }

var errFate error = fateError{}
