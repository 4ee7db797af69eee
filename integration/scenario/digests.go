package scenario

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// dial opens a plain gRPC connection to one process.
func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// equalReplicas waits until the replicas of every group stand at the same
// applied index, and then wants the same phase, epoch and digest of every shard
// on all of them.
func (e *Env) equalReplicas(ctx context.Context, c *cluster.Cluster) error {
	compared := 0
	for gid, replicas := range c.Groups {
		var running []*cluster.Process
		for _, p := range replicas {
			if p.Running() {
				running = append(running, p)
			}
		}
		if len(running) < 2 {
			continue
		}
		var answers []*kvpb.StatusResponse
		if err := c.Await(ctx, fmt.Sprintf("the replicas of group %d stand at one index", gid), func() (err error) {
			answers, err = statuses(ctx, running)
			return err
		}); err != nil {
			return err
		}
		for i, other := range answers[1:] {
			n, err := sameShards(answers[0], other)
			if err != nil {
				return fmt.Errorf("replicas %s and %s: %w", running[0].ID, running[i+1].ID, err)
			}
			compared += n
		}
	}
	e.Observe("replica digests", "%d compared, all equal", compared)
	return nil
}

// statuses asks all replicas, and fails unless they stand at one index.
func statuses(ctx context.Context, replicas []*cluster.Process) ([]*kvpb.StatusResponse, error) {
	var answers []*kvpb.StatusResponse
	for _, p := range replicas {
		conn, err := dial(p.Addr)
		if err != nil {
			return nil, err
		}
		s, err := kvpb.NewKVClient(conn).Status(ctx, &kvpb.StatusRequest{Shards: true})
		conn.Close()
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", p.ID, err)
		}
		answers = append(answers, s)
		if s.GetAppliedIndex() != answers[0].GetAppliedIndex() {
			return nil, fmt.Errorf("%s has applied %d, %s %d", replicas[0].ID, answers[0].GetAppliedIndex(), p.ID, s.GetAppliedIndex())
		}
	}
	return answers, nil
}

func sameShards(a, b *kvpb.StatusResponse) (int, error) {
	if len(a.GetShards()) != len(b.GetShards()) {
		return 0, fmt.Errorf("%d shards and %d", len(a.GetShards()), len(b.GetShards()))
	}
	for i, x := range a.GetShards() {
		y := b.GetShards()[i]
		if x.GetShard() != y.GetShard() || x.GetPhase() != y.GetPhase() || x.GetEpoch().String() != y.GetEpoch().String() ||
			x.GetRevision() != y.GetRevision() || !bytes.Equal(x.GetDigest(), y.GetDigest()) {
			return 0, fmt.Errorf("shard %d differs at index %d: %v and %v", x.GetShard(), a.GetAppliedIndex(), x, y)
		}
	}
	return len(a.GetShards()), nil
}
