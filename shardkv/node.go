package shardkv

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A replica is what the server needs of raftgroup.Replica.
type replica interface {
	Submit(commands []entry.Command) (submission, error)
	ProposeAll(ctx context.Context, commands []entry.Command) ([]any, error)
	ProposeUrgent(ctx context.Context, commands []entry.Command) ([]any, error)
	ProposeBackground(ctx context.Context, commands []entry.Command) ([]any, error)
	ReadBarrier(ctx context.Context) error
	Store() store.Store
	Leader() (address string, self bool)
	Status() raftgroup.Status
	Clock() uint64
	Now() uint64
}

// live is the replica of a group.
type live struct{ *raftgroup.Replica }

// Submit starts what ProposeAll waits for.
func (l live) Submit(commands []entry.Command) (submission, error) {
	s, err := l.Replica.Submit(commands)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// A node is an open replica with everything that depends on who it is. It is
// made once the identity is known, and lives as long as the replica.
type node struct {
	identity formation.Identity
	self     kvfsm.Peer
	replica  replica
	machine  *watched
	places   *places
	parking  *parking
	metrics  *metrics
	log      hclog.Logger
	closed   chan struct{}

	// mover drives the handoffs while this replica leads; nil while it does not.
	mover atomic.Pointer[mover]
	// throttles are the shards whose writes are slowed, and by how much; nil: none.
	throttles atomic.Pointer[map[shardcfg.ShardID]time.Duration]
	// lagging is set while the machine is too far behind its log.
	lagging atomic.Bool
	// flights are the writes under way.
	flights *flights
}

// leading reports whether this replica leads, as far as it knows.
func (n *node) leading() bool {
	_, self := n.replica.Leader()
	return self
}

// throttle is by how much a write to a shard should be held back.
func (n *node) throttle(s shardcfg.ShardID) time.Duration {
	if t := n.throttles.Load(); t != nil {
		return (*t)[s]
	}
	return 0
}

// notLeader says who leads. The response carries the address.
func (n *node) notLeader() fault {
	leader, _ := n.replica.Leader()
	if leader == "" {
		return fault{kvpb.Code_UNAVAILABLE, "the group has no leader at present, as far as this replica knows"}
	}
	return fault{kvpb.Code_NOT_LEADER, "this replica does not lead; the leader is " + leader}
}

// redirect answers an operation whose shard is elsewhere.
func redirect(o *kvpb.Outcome, r *kvpb.Redirect) {
	o.Code, o.Redirect = kvpb.Code_WRONG_GROUP, r
	if len(r.GetIncarnation()) == 0 && r.GetGid() == 0 {
		o.Message = "this group does not hold the shard, and knows no group that does"
	} else {
		o.Message = "this group does not hold the shard"
	}
}

// redirectBytes is what a redirect takes in a response at most.
func redirectBytes(r *kvpb.Redirect) int {
	n := 80
	for _, a := range r.GetReplicas() {
		n += len(a) + 3
	}
	return n
}

// faultOf puts an error of the replica into its family and code.
func (n *node) faultOf(err error) fault {
	var notLeader *raftgroup.NotLeaderError
	switch {
	case errors.Is(err, raftgroup.ErrOutcomeUnknown):
		return fault{kvpb.Code_OUTCOME_UNKNOWN, err.Error()}
	case errors.As(err, &notLeader):
		if notLeader.Leader == "" {
			return fault{kvpb.Code_UNAVAILABLE, err.Error()}
		}
		return fault{kvpb.Code_NOT_LEADER, err.Error()}
	case errors.Is(err, raftgroup.ErrTooLarge):
		return fault{kvpb.Code_INVALID, err.Error()}
	case errors.Is(err, raftgroup.ErrBusy):
		return fault{kvpb.Code_BUSY, err.Error()}
	case errors.Is(err, raftgroup.ErrNotDone):
		return fault{kvpb.Code_UNAVAILABLE, err.Error()}
	}
	// Whatever names no family may have happened.
	return fault{kvpb.Code_OUTCOME_UNKNOWN, err.Error()}
}

func newNode(s *Server, id formation.Identity) *node {
	self := kvfsm.Peer{Group: id.Group, Incarnation: id.Incarnation}
	p := newPlaces(self, id.ShardCount)
	return &node{identity: id, self: self, places: p, flights: newFlights(), parking: s.parking, metrics: s.metrics, log: s.log,
		closed: make(chan struct{}),
		machine: newWatched(kvfsm.New(kvfsm.Config{Group: id.Group, Incarnation: id.Incarnation,
			ShardCount: id.ShardCount}), p, s.parking)}
}

// lead is the work of a leader, until ctx ends. Each part has a goroutine of its
// own, which this waits for.
func (n *node) lead(ctx context.Context, s *Server) {
	m := newMover(s, n)
	p := &poller{s: s, n: n, m: m, wake: make(chan struct{}, 1)}
	m.ask = func() { poke(p.wake) }
	e := &expirer{n: n, age: s.opts.SessionAge}
	n.mover.Store(m)
	var parts sync.WaitGroup
	parts.Go(func() { m.run(ctx) })
	parts.Go(func() { p.run(ctx) })
	parts.Go(func() { p.watch(ctx) })
	parts.Go(func() { e.run(ctx) })
	parts.Go(func() { n.watchLag(ctx, s.limits.ApplyLag) })
	// What waited for a leader, or for this one to know its place.
	n.parking.wakeAll()
	<-ctx.Done()
	n.mover.Store(nil)
	parts.Wait()
	n.throttles.Store(nil)
	n.lagging.Store(false)
	n.parking.wakeAll()
}

// lagEvery is the interval between looks at how far the machine is behind.
const lagEvery = 50 * time.Millisecond

// watchLag refuses new writes while the machine is too far behind its log: they
// would only make what is queued longer.
func (n *node) watchLag(ctx context.Context, lagMax uint64) {
	for n.pause(ctx, lagEvery) {
		st := n.replica.Status()
		n.lagging.Store(st.LastIndex > st.AppliedIndex+lagMax)
	}
}
