package shardkv

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// attestable returns a server whose replica leads, with something that happens
// during its next barrier.
func attestable(t *testing.T) (*Server, *fakeReplica, *lateReplica) {
	s, f := newFake(t, Limits{})
	n := s.node.Load()
	late := &lateReplica{fakeReplica: f}
	n.replica = late
	n.mover.Store(newMover(s, n))
	return s, f, late
}

func attest(s *Server, num shardcfg.ConfigNum, shards ...uint32) (*kvpb.AttestReply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	return s.Attest(ctx, &kvpb.AttestRequest{Cluster: fakeCluster[:], Group: fakeSelf[:], Num: uint64(num), Shards: shards})
}

// Claim: what a group attests was applied when a barrier ended, and the config
// that was asked about is part of it.
func TestAttestFollowsItsBarrier(t *testing.T) {
	s, f, late := attestable(t)
	late.atBarrier = func() {
		f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(2, 2)})
		f.freeze(t, 0)
	}
	r, err := attest(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetShards()) != fakeShards {
		t.Fatalf("attested %v", r)
	}
	a := r.GetShards()[0]
	if to, _ := shardcfg.To128[shardcfg.Incarnation](a.GetTo()); a.GetPhase() != kvpb.Phase_FROZEN || to != fakeOther || a.GetEpoch().GetNum() != 1 {
		t.Errorf("frozen before the barrier ended, attested %v", a)
	}
	if r, err := attest(s, 2, 1); err != nil || len(r.GetShards()) != 1 || r.GetShards()[0].GetShard() != 1 {
		t.Errorf("one shard: %v, %v", r, err)
	}
	if _, err := attest(s, 3); status.Code(err) != codes.Unavailable {
		t.Errorf("about a config that is not adopted: %v", err)
	}
}

// Claim: a replica that may have been deposed, or that does not lead, attests
// nothing.
func TestAttestNeedsTheLeader(t *testing.T) {
	s, f, _ := attestable(t)
	f.fail = errors.New("deposed")
	if _, err := attest(s, 1); status.Code(err) != codes.Unavailable {
		t.Errorf("without a barrier: %v", err)
	}
	f.fail = nil
	if _, err := attest(s, 1, fakeShards); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a shard out of range: %v", err)
	}
	s.node.Load().mover.Store(nil)
	if _, err := attest(s, 1); status.Code(err) != codes.Unavailable {
		t.Errorf("at a follower: %v", err)
	}
}
