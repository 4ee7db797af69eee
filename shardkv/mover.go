package shardkv

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/failpoint"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
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

	mu struct {
		sync.Mutex
		driver *handoff.Driver
		claims []shardcfg.ShardID // to be claimed
		want   shardcfg.ConfigNum // a config of at least this is needed
		frozen map[shardcfg.ShardID]time.Time
		rates  handoff.Rates // measured; zero fields: not yet
		// inviting counts the unanswered Invites to each group.
		inviting map[shardcfg.Incarnation]int
		// copyAfter is when the next copy may be fetched, at the rate of copying.
		copyAfter time.Time
	}
}

const (
	// sendingMax bounds one message to another group and the wait for its answer.
	sendingMax = 6 * time.Second
	// proposingMax bounds a list of proposals; whatever happens to it, the state
	// shows.
	proposingMax = 10 * time.Second
	// proposingRest is the pause after a list that failed.
	proposingRest = 20 * time.Millisecond
	// invitesMax bounds the Invites to one group that are not answered: a silent
	// group must not collect goroutines. It is far above what a slow group leaves
	// open, because each may concern few shards: with few of them at a time a
	// thousand shards did not get their turn.
	invitesMax = 256
	// moverRest keeps a change that comes in many pieces from being looked at in
	// as many passes.
	moverRest = time.Millisecond
	// idleWait is the interval between passes while no shard moves or should.
	idleWait = time.Second
)

func newMover(s *Server, n *node) *mover {
	m := &mover{s: s, n: n, started: time.Now(), wake: make(chan struct{}, 1), ask: func() {}}
	params := handoff.DefaultParams()
	params.PauseBudget = s.opts.Moving.PauseBudget
	m.mu.driver = handoff.NewDriver(m.identity(), params)
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
	var last *handoff.View
	for ctx.Err() == nil {
		changed := m.n.machine.watch()
		actions, view, err := m.step(last)
		if err != nil {
			// The store can't be read. Apply will meet that too, and stop the replica.
			m.n.log.Error("handoff: the store can't be read", "error", err)
			actions.Wait = time.Second
		} else {
			last = view
			m.carryOut(ctx, actions)
		}
		if idle(&actions) && !m.n.places.moving() {
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

// idle reports whether a pass decided nothing.
func idle(a *handoff.Actions) bool {
	return len(a.Invites)+len(a.Fetches)+len(a.Proposals)+len(a.Claims)+len(a.Throttles) == 0 && a.AdoptAtLeast == 0
}

// step asks the driver what to do, by the applied state.
func (m *mover) step(last *handoff.View) (a handoff.Actions, view *handoff.View, err error) {
	snapshot, err := m.n.replica.Store().NewSnapshot()
	if err != nil {
		return a, nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	v, err := handoff.ReadView(snapshot, last)
	if err != nil {
		return a, nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.driver.SetReplicas(voters(m.n.replica.Status()))
	m.mu.driver.SetRates(m.mu.rates)
	m.mu.driver.Hold(m.s.held.Load())
	if a, err = m.mu.driver.Step(m.now(), v); err != nil {
		return a, nil, err
	}
	m.claimLocked(a.Claims)
	m.mu.want = a.AdoptAtLeast
	if len(m.mu.claims) > 0 || m.mu.want > v.Adopted() {
		m.ask()
	}
	// The snapshot is closed when this returns; only the config is used again.
	return a, &handoff.View{Config: v.Config}, nil
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
	// Pages of a copy are many and large, and nobody waits for one of them; behind
	// the other proposals somebody may be waiting for a frozen shard.
	urgent, copying := partition(a.Proposals)
	if len(urgent) > 0 {
		m.running.Go(func() { m.propose(ctx, urgent, m.n.replica.ProposeAll) })
	}
	if len(copying) > 0 {
		m.running.Go(func() { m.propose(ctx, copying, m.n.replica.ProposeBackground) })
	}
}

// partition tells pages of a copy from everything else.
func partition(list []kvfsm.Command) (urgent, copying []kvfsm.Command) {
	for _, c := range list {
		if page, ok := c.(*kvfsm.Chunk); ok && !page.From.Tail {
			copying = append(copying, c)
		} else {
			urgent = append(urgent, c)
		}
	}
	return urgent, copying
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

// A proposer is a replica's ProposeAll or ProposeBackground.
type proposer func(ctx context.Context, commands []entry.Command) (results []any, err error)

// propose proposes a list and tells the driver how each command ended.
func (m *mover) propose(ctx context.Context, list []kvfsm.Command, by proposer) {
	defer m.poke()
	ctx, cancel := context.WithTimeout(ctx, proposingMax)
	defer cancel()
	commands := make([]entry.Command, len(list))
	for i, c := range list {
		commands[i] = kvfsm.Encode(c)
		m.s.metrics.handoffs.WithLabelValues(nameOf(c)).Inc()
	}
	var results []any
	err := m.hit(list, "before")
	begun := time.Now()
	if err == nil {
		results, err = by(ctx, commands)
	}
	if results != nil {
		if _, page := list[0].(*kvfsm.Chunk); !page { // pages yield to others
			m.measure(&m.mu.rates.Commit, time.Since(begun))
		}
		if err = m.hit(list, "after"); err == nil {
			m.conclude(list, results)
			return
		}
	}
	// The driver proposes again at once. A replica that refuses because it has too
	// much to do must not get that as fast as it can refuse.
	m.n.pause(ctx, proposingRest)
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
	if *mean == 0 {
		*mean = d
	}
	*mean += (d - *mean) / 8
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

// claimed tells the driver which first tokens are this group's to create.
func (m *mover) claimed(granted []uint32, shardCount int) {
	list := make([]shardcfg.ShardID, 0, len(granted))
	for _, s := range granted {
		if s < uint32(shardCount) && m.n.places.record(shardcfg.ShardID(s)).Epoch.IsZero() {
			list = append(list, shardcfg.ShardID(s))
		}
	}
	if len(list) == 0 {
		return
	}
	m.mu.Lock()
	m.mu.driver.Claimed(list)
	m.mu.Unlock()
	m.poke()
}

// granted tells the driver which repairs are this group's to carry out.
func (m *mover) granted(list []*ctrlpb.RepairGrant, shardCount int) {
	var grants []handoff.Grant
	for _, g := range list {
		if g.GetShard() < uint32(shardCount) && m.n.places.record(shardcfg.ShardID(g.GetShard())).Epoch.Gen < g.GetGen() {
			grants = append(grants, handoff.Grant{Shard: shardcfg.ShardID(g.GetShard()),
				Frozen: shardcfg.Epoch{Gen: g.GetFrozenGen(), Num: g.GetFrozenNum()}, Gen: g.GetGen()})
		}
	}
	if len(grants) == 0 {
		return
	}
	m.mu.Lock()
	m.mu.driver.Granted(grants)
	m.mu.Unlock()
	m.poke()
}

// refused tells the driver which of the shards it asked for are another group's
// to create.
func (m *mover) refused(asked []shardcfg.ShardID, granted []uint32) {
	got := make(map[shardcfg.ShardID]bool, len(granted))
	for _, s := range granted {
		got[shardcfg.ShardID(s)] = true
	}
	rest := slices.DeleteFunc(slices.Clone(asked), func(s shardcfg.ShardID) bool { return got[s] })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.driver.ClaimRefused(m.now(), rest)
}

// drained reports whether the group holds nothing and should hold nothing.
func (m *mover) drained(v *handoff.View) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	drained, _ := handoff.Drained(m.identity(), v, m.mu.driver.Uncreated())
	return drained
}

// identity is how other groups know this one.
func (m *mover) identity() handoff.Identity {
	return handoff.Identity{Peer: m.n.self, Replicas: voters(m.n.replica.Status())}
}

// claimLocked adds shards to those that are to be claimed. They are asked for
// again and again while no controller answers.
func (m *mover) claimLocked(shards []shardcfg.ShardID) {
	m.mu.claims = append(m.mu.claims, shards...)
	slices.Sort(m.mu.claims)
	m.mu.claims = slices.Compact(m.mu.claims)
}

// takeClaims returns the shards to claim.
func (m *mover) takeClaims() []shardcfg.ShardID {
	m.mu.Lock()
	defer m.mu.Unlock()
	shards := m.mu.claims
	m.mu.claims = nil
	return shards
}

// waitsForController reports whether the driver needs something of the
// controllers.
func (m *mover) waitsForController() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mu.claims) > 0 || m.mu.want > m.n.places.config.Load().Num
}

// heard passes on what the controllers heard of a shard.
func (m *mover) heard(s shardcfg.ShardID, e shardcfg.Epoch, holder shardcfg.Incarnation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.driver.Heard(s, e, holder)
}
