package shardkv

import (
	"cmp"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A fakeReplica applies what is proposed at once, to the real machine.
type fakeReplica struct {
	mu       sync.Mutex
	store    store.Store
	apply    *watched
	index    uint64
	follow   string        // not empty: it does not lead, this one does
	fail     error         // of the next proposals and barriers
	clock    uint64        // of entries, in ms; 0: clockMs
	commit   time.Duration // how long a proposal takes
	proposed int           // commands
}

func (f *fakeReplica) ProposeUrgent(ctx context.Context, commands []entry.Command) ([]any, error) {
	return f.ProposeAll(ctx, commands)
}

func (f *fakeReplica) ProposeBackground(ctx context.Context, commands []entry.Command) ([]any, error) {
	return f.ProposeAll(ctx, commands)
}

// Submit applies the commands at once, or after a time.
func (f *fakeReplica) Submit(commands []entry.Command) (submission, error) {
	s := &fakeSubmission{done: make(chan struct{}), results: make([]any, len(commands))}
	if f.commit == 0 {
		results, err := f.ProposeAll(context.Background(), commands)
		s.settle(results)
		return s, err
	}
	go func() {
		results, _ := f.ProposeAll(context.Background(), commands)
		s.settle(results)
	}()
	return s, nil
}

// A fakeSubmission is on its way until it is settled; nothing of it is queued.
type fakeSubmission struct {
	mu      sync.Mutex
	done    chan struct{}
	results []any
}

func (s *fakeSubmission) settle(results []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = results
	close(s.done)
}

func (s *fakeSubmission) Done() <-chan struct{} { return s.done }
func (s *fakeSubmission) Withdraw(error)        {}
func (s *fakeSubmission) Results() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results
}

func (f *fakeReplica) ProposeAll(_ context.Context, commands []entry.Command) ([]any, error) {
	time.Sleep(f.commit) // virtual
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proposed += len(commands)
	if f.fail != nil {
		return nil, f.fail
	}
	f.index++
	b, err := f.store.NewBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	results, err := f.apply.Apply(b, &entry.Entry{Index: f.index, Term: 1, Clock: f.Clock(), Commands: commands})
	if err != nil {
		return nil, err
	}
	if err := b.Commit(); err != nil {
		return nil, err
	}
	f.apply.Applied(f.index)
	return results, nil
}

func (f *fakeReplica) ReadBarrier(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail
}

func (f *fakeReplica) Store() store.Store { return f.store }

func (f *fakeReplica) Leader() (string, bool) {
	if f.follow != "" {
		return f.follow, false
	}
	return "here:1", true
}

func (f *fakeReplica) Status() raftgroup.Status { return raftgroup.Status{} }
func (f *fakeReplica) Clock() uint64            { return cmp.Or(f.clock, clockMs) }
func (f *fakeReplica) Now() uint64              { return f.Clock() }

const (
	clockMs    = 1_700_000_000_000
	fakeShards = 4
)

var (
	fakeSelf    = shardcfg.Incarnation{1}
	fakeOther   = shardcfg.Incarnation{2}
	fakeCluster = shardcfg.ClusterID{3}
)

// fakeConfig gives all shards to one group.
func fakeConfig(num shardcfg.ConfigNum, owner shardcfg.GroupID) *shardcfg.Config {
	return fakeConfigOf(num, owner, fakeShards)
}

// fakeConfigOf is fakeConfig for as many shards; others go to group 2.
func fakeConfigOf(num shardcfg.ConfigNum, owner shardcfg.GroupID, shards int, others ...int) *shardcfg.Config {
	c := &shardcfg.Config{Num: num, Shards: make([]shardcfg.GroupID, shards), Pins: map[shardcfg.ShardID]shardcfg.Pin{},
		Groups: map[shardcfg.GroupID]shardcfg.Group{
			1: {Incarnation: fakeSelf, Replicas: []string{"here:1"}, Weight: 1, State: shardcfg.GroupMember},
			2: {Incarnation: fakeOther, Replicas: []string{"there:1"}, Weight: 1, State: shardcfg.GroupMember},
		}}
	for i := range c.Shards {
		c.Shards[i] = owner
	}
	for _, s := range others {
		c.Shards[s] = 2
	}
	return c
}

// newFake returns a server that leads group 1 and serves every shard.
func newFake(t testing.TB, limits Limits) (*Server, *fakeReplica) {
	return newFakeOf(t, limits, fakeShards)
}

// newFakeOf is newFake for a cluster of as many shards.
func newFakeOf(t testing.TB, limits Limits, shards int) (*Server, *fakeReplica) {
	s := newServer(Options{Group: 1, Label: "a", Controllers: []string{"none:1"}, Limits: limits}, nil, prometheus.NewRegistry())
	n := newNode(s, formation.Identity{Group: 1, Incarnation: fakeSelf, Cluster: fakeCluster, ShardCount: shards})
	f := &fakeReplica{store: store.NewMem(), apply: n.machine}
	n.machine.store = f.store
	n.replica = f
	if err := n.machine.Reset(f.store); err != nil {
		t.Fatal(err)
	}
	s.node.Store(n)
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(1, 1, shards)})
	for i := range shards {
		f.propose(t, &kvfsm.Create{Shard: shardcfg.ShardID(i), Claimer: fakeSelf})
	}
	return s, f
}

// propose proposes a command whose guard must hold.
func (f *fakeReplica) propose(t testing.TB, c kvfsm.Command) {
	t.Helper()
	results, err := f.ProposeAll(context.Background(), []entry.Command{kvfsm.Encode(c)})
	if err != nil {
		t.Fatal(err)
	}
	if v := results[0].(kvfsm.Verdict); !v.Done {
		t.Fatalf("%T: %v", c, v.Why)
	}
}

// freeze freezes a shard towards group 2.
func (f *fakeReplica) freeze(t testing.TB, s shardcfg.ShardID) {
	t.Helper()
	f.propose(t, &kvfsm.Start{Shard: s, Handoff: 2})
	f.propose(t, &kvfsm.Freeze{Shard: s, Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
}
