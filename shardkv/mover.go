package shardkv

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/failpoint"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A mover carries out what the handoff driver decides, while this replica
// leads: it sends its messages, proposes its commands and tells it how they
// ended. It holds no state that matters; a new leader begins with a new one.
//
// One goroutine runs run; each message to another group and each list of
// proposals has one of its own, which run waits for. The lock is held during
// calls of the driver only.
type mover struct {
	s       *Server
	n       *node
	started time.Time
	// wake makes it look again; buffered, one.
	wake chan struct{}
	// ask wakes the poller.
	ask     func()
	running sync.WaitGroup
	// records are those of the last pass; run's.
	records []kvfsm.Record
	moves   moveLog // run's

	mu struct {
		sync.Mutex
		driver *handoff.Driver
		// talk is with the controllers; the poller has it.
		talk   *handoff.Conversation
		frozen map[shardcfg.ShardID]time.Time
		rates  handoff.Rates // measured; zero fields: not yet
		// inviting counts the unanswered Invites to each group.
		inviting map[shardcfg.Incarnation]int
		// copyAfter is when the next copy may be fetched, at the rate of copying.
		copyAfter time.Time
	}
}

const (
	// invitingMax bounds an Invite and the wait for its answer.
	invitingMax = 6 * time.Second
	// proposingMax bounds a list of proposals; whatever happens to it, the state
	// shows. It is shorter than the driver waits for the word of its end.
	proposingMax = 10 * time.Second
	// invitesMax bounds the Invites to one group that are not answered: a silent
	// group must not collect goroutines. It is far above what a slow group leaves
	// open, because each may concern few shards: with few of them at a time a
	// thousand shards did not get their turn.
	invitesMax = 256
	// moverRest keeps a change that comes in many pieces from being looked at in
	// as many passes.
	moverRest = time.Millisecond
	// pagesAtHand is for how many pages of a kind there is room between fetching and
	// proposing, unless they are large.
	pagesAtHand = 8
	// idleWait is the interval between passes while no shard moves or should.
	idleWait = time.Second
)

func newMover(s *Server, n *node) *mover {
	m := &mover{s: s, n: n, started: time.Now(), wake: make(chan struct{}, 1), ask: func() {}}
	params := handoff.DefaultParams()
	params.PauseBudget, params.PageBytes = s.opts.Moving.PauseBudget, s.opts.Moving.PageBytes
	params.AtHandBytesMax = min(pagesAtHand*params.PageBytes, params.AtHandBytesMax)
	m.mu.driver = handoff.NewDriver(m.identity(), params)
	m.mu.talk = handoff.NewConversation(m.mu.driver)
	m.mu.frozen = map[shardcfg.ShardID]time.Time{}
	m.mu.inviting = map[shardcfg.Incarnation]int{}
	return m
}

// now is the driver's clock.
func (m *mover) now() time.Duration { return time.Since(m.started) }

func (m *mover) poke() { poke(m.wake) }

// run drives the handoffs until ctx ends, then waits for what it started.
func (m *mover) run(ctx context.Context) {
	defer m.running.Wait()
	defer func() { m.moves.write(m.n.log) }() // what another leader would not tell
	for ctx.Err() == nil {
		changed := m.n.machine.watch()
		actions, err := m.step()
		if err != nil {
			// The store can't be read. Apply will meet that too, and stop the replica.
			m.n.log.Error("handoff: the store can't be read", "error", err)
			actions.Wait = time.Second
		} else {
			m.carryOut(ctx, actions)
		}
		if actions.Idle() && !m.n.places.moving() {
			actions.Wait = idleWait
		}
		timer := time.NewTimer(actions.Wait)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-changed:
			m.n.pause(ctx, moverRest)
		case <-timer.C:
		}
		timer.Stop()
	}
}

// step asks the driver what to do, by the applied state.
func (m *mover) step() (a handoff.Actions, err error) {
	// What is published, because reading and decoding all records takes longer than
	// a pass may; then the snapshot, which is not older.
	now := m.n.places.now.Load()
	snapshot, err := m.n.replica.Store().NewSnapshot()
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	m.moves.look(m.n.log, now, m.n.places.moving(), time.Now())
	m.records = now.appendKnown(m.records[:0])
	v, err := handoff.NewView(now.adopted(), m.records, snapshot)
	if err != nil {
		return a, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.driver.SetReplicas(voters(m.n.replica.Status()))
	m.mu.driver.SetRates(m.mu.rates)
	m.mu.driver.Hold(m.s.held.Load())
	if a, err = m.mu.driver.Step(m.now(), v); err != nil {
		return a, err
	}
	if m.mu.talk.Passed(&a, v.Adopted()) {
		m.ask()
	}
	return a, nil
}

// carryOut starts everything that a pass decided.
func (m *mover) carryOut(ctx context.Context, a handoff.Actions) {
	m.setThrottles(a.Throttles)
	for i := range a.Invites {
		if to := a.Invites[i].To.Incarnation; m.enter(to) {
			m.running.Go(func() {
				defer m.leave(to)
				m.invite(ctx, a.Invites[i])
			})
		}
	}
	for i := range a.Fetches {
		m.running.Go(func() { m.fetch(ctx, a.Fetches[i]) })
	}
	if len(a.Proposals) > 0 {
		m.running.Go(func() {
			if took, err := m.propose(ctx, a.Proposals, m.n.replica.ProposeUrgent); err == nil {
				m.measure(&m.mu.rates.Commit, took)
			}
		})
	}
	if len(a.Copies) > 0 {
		// Their time says nothing: they yield to others.
		m.running.Go(func() { m.propose(ctx, a.Copies, m.n.replica.ProposeBackground) })
	}
}

// enter counts one more Invite to a group, unless there are too many.
func (m *mover) enter(to shardcfg.Incarnation) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.inviting[to] >= invitesMax {
		return false
	}
	m.mu.inviting[to]++
	return true
}

func (m *mover) leave(to shardcfg.Incarnation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.inviting[to]--; m.mu.inviting[to] == 0 {
		delete(m.mu.inviting, to)
	}
}

// setThrottles publishes which writes are slowed.
func (m *mover) setThrottles(list []handoff.Throttle) {
	if len(list) == 0 {
		m.n.throttles.Store(nil)
		return
	}
	t := make(map[shardcfg.ShardID]time.Duration, len(list))
	for _, slow := range list {
		t[slow.Shard] = slow.Delay
	}
	m.n.throttles.Store(&t)
}

// A proposer is a replica's ProposeUrgent or ProposeBackground.
type proposer func(ctx context.Context, commands []entry.Command) (results []any, err error)

// propose proposes a list and tells the driver how each command ended. It returns
// how long that took; an error says that not all is done.
func (m *mover) propose(ctx context.Context, list []kvfsm.Command, by proposer) (took time.Duration, err error) {
	defer m.poke()
	ctx, cancel := context.WithTimeout(ctx, proposingMax)
	defer cancel()
	commands := make([]entry.Command, len(list))
	for i, c := range list {
		commands[i] = kvfsm.Encode(c)
		m.s.metrics.handoffs.WithLabelValues(nameOf(c)).Inc()
	}
	if err = m.hit(list, "before"); err != nil {
		m.failed(list, err)
		return 0, err
	}
	begun := time.Now()
	results, err := by(ctx, commands)
	took = time.Since(begun)
	late := m.hit(list, "after")
	if results == nil || late != nil {
		err = cmp.Or(err, late)
		m.failed(list, err)
		return took, err
	}
	m.conclude(list, results)
	return took, err
}

// failed tells the driver that nothing of a list is known to be done.
func (m *mover) failed(list []kvfsm.Command, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range list {
		m.mu.driver.Proposed(m.now(), c, kvfsm.Verdict{}, err)
	}
}

// conclude takes in the results of a list of proposals.
func (m *mover) conclude(list []kvfsm.Command, results []any) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range list {
		verdict, ok := results[i].(kvfsm.Verdict)
		err := proposalError(results[i])
		if !ok && err == nil {
			err = errResult
		}
		m.mu.driver.Proposed(m.now(), c, verdict, err)
		if verdict.Why == kvfsm.ReasonDigest {
			m.s.metrics.alarms.Inc()
			m.n.log.Error("handoff: a fetched copy differs from its holder's; it is fetched again", "command", nameOf(c))
		}
		if !verdict.Done {
			continue
		}
		switch c := c.(type) {
		case *kvfsm.Freeze:
			m.mu.frozen[c.Shard] = now
		case *kvfsm.Drop:
			if since, ok := m.mu.frozen[c.Shard]; ok {
				m.s.metrics.pause.Observe(now.Sub(since).Seconds())
				delete(m.mu.frozen, c.Shard)
			}
		}
	}
}

var errResult = errors.New("the machine's result is not a verdict")

// proposalError is the failure of one command of a list, or nil.
func proposalError(result any) error {
	if failed, ok := result.(*raftgroup.ProposalError); ok {
		return failed
	}
	return nil
}

// measure takes a duration into a running mean, for the estimate of pauses.
func (m *mover) measure(mean *time.Duration, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	handoff.Smooth(mean, d)
}

// hit passes the failpoints around the durable steps of a list.
func (m *mover) hit(list []kvfsm.Command, when string) error {
	if !failpoint.Enabled {
		return nil
	}
	for _, c := range list {
		if err := failpoint.Hit("handoff/" + nameOf(c) + "/" + when); err != nil {
			return err
		}
	}
	return nil
}

// nameOf names a command of a handoff, for metrics and failpoints.
func nameOf(c kvfsm.Command) string {
	switch c.(type) {
	case *kvfsm.Create:
		return "create"
	case *kvfsm.Start:
		return "start"
	case *kvfsm.Stage:
		return "stage"
	case *kvfsm.Chunk:
		return "chunk"
	case *kvfsm.Install:
		return "install"
	case *kvfsm.Freeze:
		return "freeze"
	case *kvfsm.Drop:
		return "drop"
	case *kvfsm.Discard:
		return "discard"
	case *kvfsm.Thaw:
		return "thaw"
	}
	return "other"
}

// report is what the group says of itself.
func (m *mover) report(v *handoff.View) handoff.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.talk.Report(v)
}

// heard takes in the controllers' answer to a report, and reports whether its
// config is to be adopted.
func (m *mover) heard(v *handoff.View, r *handoff.PollReply) (adopt bool) {
	m.mu.Lock()
	adopt, news := m.mu.talk.Heard(v, r)
	m.mu.Unlock()
	if news {
		m.poke()
	}
	return adopt
}

// settled ends a poll, and returns the shards to claim.
func (m *mover) settled() (claim []shardcfg.ShardID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.talk.Settled()
}

// granted takes in which of the asked claims were granted.
func (m *mover) granted(v *handoff.View, asked, granted []shardcfg.ShardID) {
	m.mu.Lock()
	news := m.mu.talk.Granted(m.now(), v, asked, granted)
	m.mu.Unlock()
	if news {
		m.poke()
	}
}

// identity is how other groups know this one.
func (m *mover) identity() handoff.Identity {
	return handoff.Identity{Peer: m.n.self, Replicas: voters(m.n.replica.Status())}
}

// waitsForController reports whether the driver needs something of the
// controllers.
func (m *mover) waitsForController() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.talk.Waits(m.n.places.config().Num)
}
