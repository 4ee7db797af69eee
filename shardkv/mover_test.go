package shardkv

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A fakePeer answers calls of any service with one function.
type fakePeer func(ctx context.Context, request, reply any) error

func (p fakePeer) Invoke(ctx context.Context, _ string, request, reply any, _ ...grpc.CallOption) error {
	return p(ctx, request, reply)
}

func (fakePeer) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams")
}

// newFakeMover returns a mover whose messages all go to one peer.
func newFakeMover(t *testing.T, peer fakePeer) (*mover, *fakeReplica) {
	s, f := newFake(t, Limits{})
	dial := func(string) (grpc.ClientConnInterface, error) { return peer, nil }
	s.peers, s.controllers = newPeers(dial), newControllers([]string{"controller:1"}, dial)
	return newMover(s, s.node.Load()), f
}

// Claim: however low the rate of copying, a page that was fetched is used and
// the next ones come in their time; tails do not wait at all.
func TestLowRateStillCopies(t *testing.T) {
	const pageBytes = 4 << 20
	var fetched atomic.Int32
	m, _ := newFakeMover(t, func(_ context.Context, request, reply any) error {
		fetched.Add(1)
		for _, w := range request.(*kvpb.FetchRequest).GetShards() {
			next := &kvpb.Cursor{Key: []byte{4, 'k'}}
			if w.GetCursor().GetTail() {
				next = w.GetCursor()
			}
			reply.(*kvpb.FetchReply).Shards = append(reply.(*kvpb.FetchReply).Shards, &kvpb.Page{Shard: w.GetShard(), Next: next,
				Items: []*kvpb.Item{{Key: []byte{4, 'k'}, Value: make([]byte, pageBytes)}}})
		}
		return nil
	})
	m.s.limiter = rate.NewLimiter(rateMin, limiterBurst)
	m.s.limiter.ReserveN(time.Now(), limiterBurst) // after a busy time
	f := handoff.Fetch{From: kvfsm.Peer{Incarnation: fakeOther, Group: 2}, To: fakeSelf, Replicas: []string{"there:1"}, Patience: time.Minute,
		Wants: []kvfsm.Want{{Shard: 0}}}
	m.fetch(t.Context(), f)
	if fetched.Load() != 1 {
		t.Fatal("the first page was not fetched")
	}
	m.mu.Lock()
	wait := time.Until(m.mu.copyAfter)
	m.mu.Unlock()
	if want := pageBytes / rateMin * time.Second; wait < want/2 || wait > 2*want {
		t.Errorf("the next page is put off by %v, want about %v", wait, want)
	}
	m.fetch(t.Context(), f)
	if fetched.Load() != 1 {
		t.Error("a page was fetched before its time")
	}
	f.Wants = append(f.Wants, kvfsm.Want{Shard: 1, Cursor: kvfsm.Cursor{Tail: true}})
	m.fetch(t.Context(), f)
	if fetched.Load() != 2 {
		t.Error("the tail had to wait for the copy")
	}
	m.copyNow()
	m.fetch(t.Context(), f)
	if fetched.Load() != 3 {
		t.Error("at another rate the old wait still counts")
	}
}

// Claim: a pass never sees a shard as it was before a config that it sees. Else a
// holder would offer it under a mark that its record never has.
func TestViewIsOneMoment(t *testing.T) {
	const shards, moved = 1024, shardcfg.ShardID(0)
	s, f := newFakeOf(t, Limits{}, shards)
	m := newMover(s, s.node.Load())
	num := shardcfg.ConfigNum(1)
	for range 60 {
		num += 3
		f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(num, 1, shards, int(moved))})
		done := make(chan struct{})
		go func() { // Start at the adopted config, and the next config, in one entry
			defer close(done)
			f.ProposeAll(context.Background(), []entry.Command{kvfsm.Encode(&kvfsm.Start{Shard: moved, Handoff: num}),
				kvfsm.Encode(&kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(num+1, 1, shards, int(moved))})})
		}()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			now := m.n.places.now.Load()
			v := handoff.View{Config: now.adopted(), Records: now.appendKnown(nil)}
			if r := v.Record(moved); r.Phase == kvfsm.PhaseServing && v.Adopted() == num+1 {
				t.Fatalf("at config %d the shard serves; it was leaving before that was adopted", v.Adopted())
			}
		}
		f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(num+2, 1, shards)}) // called off
	}
}

// Claim: a copy that fits into one page counts against the rate of copying too,
// though the cursor is in the tail behind it.
func TestSinglePageCopyIsCharged(t *testing.T) {
	m, _ := newFakeMover(t, func(_ context.Context, request, reply any) error {
		for _, w := range request.(*kvpb.FetchRequest).GetShards() {
			reply.(*kvpb.FetchReply).Shards = append(reply.(*kvpb.FetchReply).Shards, &kvpb.Page{Shard: w.GetShard(),
				Next: &kvpb.Cursor{Tail: true, Revision: 7}, Items: []*kvpb.Item{{Key: []byte{4, 'k'}, Value: make([]byte, 1<<20)}}})
		}
		return nil
	})
	m.s.limiter = rate.NewLimiter(rateMin, limiterBurst)
	m.s.limiter.ReserveN(time.Now(), limiterBurst) // after a busy time
	m.fetch(t.Context(), handoff.Fetch{From: kvfsm.Peer{Incarnation: fakeOther, Group: 2}, To: fakeSelf, Patience: time.Minute,
		Replicas: []string{"there:1"}, Wants: []kvfsm.Want{{Shard: 0}}})
	m.mu.Lock()
	wait := time.Until(m.mu.copyAfter)
	m.mu.Unlock()
	if want := (1 << 20) / rateMin * time.Second; wait < want/2 || wait > 2*want {
		t.Errorf("the next copy is put off by %v, want about %v", wait, want)
	}
}

// Claim: a group that does not answer collects a bounded number of Invites, and
// does not keep those to another group from being sent.
func TestSilentGroupIsBounded(t *testing.T) {
	var sent atomic.Int32
	m, _ := newFakeMover(t, func(ctx context.Context, _, _ any) error {
		sent.Add(1)
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	invite := func(to shardcfg.Incarnation) {
		m.carryOut(ctx, handoff.Actions{Invites: []handoff.Invite{{To: kvfsm.Peer{Incarnation: to, Group: 2},
			Replicas: []string{"there:1"}, Shards: []handoff.Invitation{{Phase: kvfsm.PhaseLeaving}}}}})
	}
	for range 10 * invitesMax {
		invite(fakeOther)
	}
	invite(shardcfg.Incarnation{9})
	for deadline := time.Now().Add(10 * time.Second); sent.Load() < invitesMax+1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // poll
	}
	cancel()
	m.running.Wait()
	if n := sent.Load(); n != invitesMax+1 {
		t.Errorf("%d invites were sent, want %d to one group and 1 to the other", n, invitesMax)
	}
	if len(m.mu.inviting) != 0 {
		t.Errorf("%v are still counted", m.mu.inviting)
	}
}

// Claim: the answer about the staging of every shard of the largest cluster fits
// into a message, however long the keys are.
func TestAnswerFits(t *testing.T) {
	answer := handoff.InviteReply{From: fakeOther}
	for s := range shardcfg.ShardCountMax {
		cursor := kvfsm.Cursor{Key: make([]byte, 1+shardcfg.KeyBytesMax)}
		answer.Shards = append(answer.Shards, handoff.Standing{Shard: shardcfg.ShardID(s), Ready: true,
			Staging: &handoff.StagingState{Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 1 << 40}, Handoff: 1 << 40}, Cursor: cursor, Bytes: 1 << 40}})
	}
	if n := proto.Size(inviteReplyMessage(&answer)); n > shardcfg.MessageBytesMax {
		t.Errorf("the answer has %d bytes, at most %d can be sent", n, shardcfg.MessageBytesMax)
	}
}

// Claim: while no controller answers, claims that are asked for again and again
// take no more room than the shards they are for.
func TestClaimsAreBounded(t *testing.T) {
	m, _ := newFakeMover(t, nil)
	for i := range 100 {
		// A leader of a group that never held the shards, each time a while later.
		m.started = time.Now().Add(-time.Duration(i+1) * time.Hour)
		a, err := m.mu.driver.Step(m.now(), handoff.View{Config: fakeConfig(1, 1)})
		if err != nil || len(a.Claims) == 0 {
			t.Fatalf("claims %v, %v", a.Claims, err)
		}
		m.mu.Lock()
		m.mu.talk.Passed(&a, 1)
		m.mu.Unlock()
	}
	if claims := m.settled(); !slices.Equal(claims, []shardcfg.ShardID{0, 1, 2, 3}) {
		t.Errorf("%d claims wait", len(claims))
	}
}
