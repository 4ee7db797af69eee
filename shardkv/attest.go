package shardkv

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Attest tells the controllers what this group has of shards, for the repair of
// those whose groups were destroyed. Unlike the calls between groups its answer
// must not be old: it is the state behind a read barrier, and the config that
// names the destroyed groups is part of it.
func (s *Server) Attest(ctx context.Context, r *kvpb.AttestRequest) (*kvpb.AttestReply, error) {
	n, err := s.addressed(r.GetCluster(), r.GetGroup())
	if err != nil {
		return nil, err
	}
	wanted := make(map[shardcfg.ShardID]bool, len(r.GetShards()))
	for _, shard := range r.GetShards() {
		if shard >= uint32(n.identity.ShardCount) {
			return nil, status.Errorf(codes.InvalidArgument, "there is no shard %d of %d", shard, n.identity.ShardCount)
		}
		wanted[shardcfg.ShardID(shard)] = true
	}
	if err := n.awaitConfig(ctx, shardcfg.ConfigNum(r.GetNum())); err != nil {
		return nil, err
	}
	if err := n.replica.ReadBarrier(ctx); err != nil {
		return nil, status.Error(codes.Unavailable, n.faultOf(err).message)
	}
	records, err := n.readRecords()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	reply := &kvpb.AttestReply{}
	for i := range records {
		if len(wanted) == 0 || wanted[records[i].Shard] {
			reply.Shards = append(reply.Shards, attested(&records[i]))
		}
	}
	return reply, nil
}

// awaitConfig waits until a config of at least a number is adopted, here and
// therefore by the group. Only a leader waits: the others do not poll.
func (n *node) awaitConfig(ctx context.Context, num shardcfg.ConfigNum) error {
	for {
		changed := n.machine.watch()
		m := n.mover.Load()
		switch {
		case m == nil:
			return status.Error(codes.Unavailable, n.notLeader().message)
		case n.places.config().Num >= num:
			return nil
		}
		m.ask()
		select {
		case <-changed:
		case <-n.closed:
			return status.Error(codes.Unavailable, "the replica is shutting down")
		case <-ctx.Done():
			return status.Errorf(codes.Unavailable, "the group has not adopted config %d yet: %v", num, context.Cause(ctx))
		}
	}
}

func attested(r *kvfsm.Record) *kvpb.Attested {
	a := &kvpb.Attested{Shard: uint32(r.Shard), Epoch: epochMessage(r.Epoch), Phase: kvpb.Phase(r.Phase)}
	if !r.To.IsZero() {
		a.To = r.To.Incarnation[:]
	}
	return a
}
