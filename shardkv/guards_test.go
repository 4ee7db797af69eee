package shardkv

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A lateReplica is a fakeReplica during whose next barrier something happens.
type lateReplica struct {
	*fakeReplica
	atBarrier func()
}

func (l *lateReplica) ReadBarrier(ctx context.Context) error {
	if f := l.atBarrier; f != nil {
		l.atBarrier = nil
		f()
	}
	return l.fakeReplica.ReadBarrier(ctx)
}

// Claim: a read sees what was applied when its barrier ended: the value, and
// whether the shard is still here.
func TestReadsFollowTheirBarrier(t *testing.T) {
	s, f := newFake(t, Limits{})
	late := &lateReplica{fakeReplica: f}
	s.node.Load().replica = late
	key := keyIn(0)
	put := func(value string) {
		executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(key, value)}})
	}
	get := &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp(key)}}
	put("old")
	late.atBarrier = func() { put("new") }
	if o := executeNow(t, s, get)[0]; string(o.GetValue()) != "new" {
		t.Errorf("a write was applied before the barrier ended, the read returned %v", o)
	}
	late.atBarrier = func() {
		f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(2, 2)})
		f.freeze(t, 0)
		f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	}
	if o := executeNow(t, s, get)[0]; o.GetCode() != kvpb.Code_WRONG_GROUP {
		t.Errorf("the shard was passed on before the barrier ended, the read returned %v", o)
	}
}

// Claim: calls between groups that mean another incarnation are refused before
// anything is looked at.
func TestCallsOfOthers(t *testing.T) {
	s, _ := newFake(t, Limits{})
	other := fakeOther[:]
	_, invited := s.Invite(context.Background(), &kvpb.InviteRequest{Cluster: fakeCluster[:], To: other, From: other})
	_, fetched := s.Fetch(context.Background(), &kvpb.FetchRequest{Cluster: fakeCluster[:], From: other, To: other})
	for name, err := range map[string]error{"Invite": invited, "Fetch": fetched} {
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s for another group: %v", name, err)
		}
	}
}

// A stubController answers every poll alike.
type stubController struct{ reply *ctrlpb.PollReply }

func (c stubController) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	proto.Merge(reply.(proto.Message), c.reply)
	return nil
}

func (stubController) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unavailable, "no streams")
}

// Claim: the claims of a poll are known even if its config can't be adopted, so
// that a group which is let go later does not report that it is drained (INV-8).
func TestClaimsComeBeforeTheConfig(t *testing.T) {
	stub := stubController{&ctrlpb.PollReply{Cluster: fakeCluster[:], Config: ctrlpb.FromConfig(fakeConfig(2, 2)), Claimed: []uint32{1}, Num: 2}}
	s := newServer(Options{Group: 1, Label: "a", Controllers: []string{"c:1"}},
		func(string) (grpc.ClientConnInterface, error) { return stub, nil }, prometheus.NewRegistry())
	n := newNode(s, formation.Identity{Group: 1, Incarnation: fakeSelf, Cluster: fakeCluster, ShardCount: fakeShards})
	f := &fakeReplica{store: store.NewMem(), apply: n.machine, fail: raftgroup.ErrOutcomeUnknown}
	n.machine.store, n.replica = f.store, f
	if err := n.machine.Reset(f.store); err != nil {
		t.Fatal(err)
	}
	m := newMover(s, n)
	p := &poller{s: s, n: n, m: m, wake: make(chan struct{}, 1)}
	if err := p.poll(context.Background()); !errors.Is(err, raftgroup.ErrOutcomeUnknown) {
		t.Fatalf("poll, with a proposal that fails: %v", err)
	}
	// The proposal took effect after all.
	m.settled()
	if m.report(&handoff.View{Config: fakeConfig(2, 2)}).Drained {
		t.Error("the group says that it is drained, with a claim that it did not create")
	}
}

// Claim: a request that waits for its shard, because nobody is known to hold it, is
// redirected as soon as the controllers say who does.
func TestHintsWakeWhoWaits(t *testing.T) {
	config := fakeConfig(1, 1)
	stub := stubController{&ctrlpb.PollReply{Cluster: fakeCluster[:], Config: ctrlpb.FromConfig(config), Num: 1,
		Hints: []*ctrlpb.Hint{{Shard: 1, EpochNum: 5, Gid: 2, Incarnation: fakeOther[:]}}}}
	s := newServer(Options{Group: 1, Label: "a", Controllers: []string{"c:1"}},
		func(string) (grpc.ClientConnInterface, error) { return stub, nil }, prometheus.NewRegistry())
	n := newNode(s, formation.Identity{Group: 1, Incarnation: fakeSelf, Cluster: fakeCluster, ShardCount: fakeShards})
	f := &fakeReplica{store: store.NewMem(), apply: n.machine}
	n.machine.store, n.replica = f.store, f
	if err := n.machine.Reset(f.store); err != nil {
		t.Fatal(err)
	}
	s.node.Store(n)
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: config})
	answer := make(chan *kvpb.ExecuteResponse, 1)
	go func() {
		r, _ := s.Execute(context.Background(), &kvpb.ExecuteRequest{TimeoutMs: 60_000, Operations: []*kvpb.Operation{getOp(keyIn(1))}})
		answer <- r
	}()
	for s.parking.count() == 0 {
		time.Sleep(time.Millisecond) // poll
	}
	p := &poller{s: s, n: n, m: newMover(s, n), wake: make(chan struct{}, 1)}
	if err := p.poll(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-answer:
		if o := r.GetOutcomes()[0]; o.GetCode() != kvpb.Code_WRONG_GROUP || o.GetRedirect().GetGid() != 2 {
			t.Errorf("the request that waited got %v, want a redirect to group 2", o)
		}
	case <-time.After(20 * time.Second):
		t.Error("the controllers said who holds the shard, and the request waits on")
	}
}

// Claim: what the controllers say of an older holder does not send clients back:
// the group that the shard was passed to is newer.
func TestOlderHintsAreIgnored(t *testing.T) {
	s, f := newFake(t, Limits{})
	n := s.node.Load()
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(2, 2)})
	f.freeze(t, 0)
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	passed := kvfsm.Peer{Incarnation: fakeOther, Group: 2}
	third := kvfsm.Peer{Incarnation: shardcfg.Incarnation{9}, Group: 9}
	for epoch, want := range map[uint64]kvfsm.Peer{1: passed, 2: passed, 3: third} {
		n.places.takeHints([]placement.Hint{{Holder: third, Epoch: shardcfg.Epoch{Num: epoch}}})
		if at := n.places.of(0); at.Next != want {
			t.Errorf("passed on at epoch 2, heard of another holder at %d: clients are sent to %+v, want %+v", epoch, at.Next, want)
		}
	}
}

// Claim: a config that no replica could read in its log is not proposed: it would
// stop all of them.
func TestUnreadableConfigIsNotProposed(t *testing.T) {
	for name, spoil := range map[string]func(*ctrlpb.Config){
		"a group without weight":  func(c *ctrlpb.Config) { c.Groups[0].Weight = 0 },
		"a weight over the limit": func(c *ctrlpb.Config) { c.Groups[0].Weight = shardcfg.WeightMax + 1 },
		"a long address": func(c *ctrlpb.Config) {
			c.Groups[0].Replicas = []string{strings.Repeat("x", shardcfg.AddressBytesMax+1)}
		},
		"a long pause": func(c *ctrlpb.Config) {
			c.Pins = append(c.Pins, &ctrlpb.Pin{Shard: 1, Gid: 1, MaxPauseMs: shardcfg.PauseMSMax + 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := newFake(t, Limits{})
			p := &poller{s: s, n: s.node.Load(), m: newMover(s, s.node.Load())}
			c := ctrlpb.FromConfig(fakeConfig(2, 2))
			spoil(c)
			before := f.proposed
			if err := p.adopt(context.Background(), &ctrlpb.PollReply{Config: c, Num: 2}); !errors.Is(err, kvfsm.ErrCorrupt) || f.proposed != before {
				t.Errorf("it is proposed: %v", err)
			}
		})
	}
}
