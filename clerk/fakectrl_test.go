package clerk_test

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A fakeController is one replica of the controllers; the first one leads.
type fakeController struct {
	ctrlpb.UnimplementedControllerServer
	f     *fakeCluster
	index int
	addr  string
	// loseReplies executes so many changes without answering; guarded by f.mu.
	loseReplies int
}

func (c *fakeController) notLeader() error {
	if c.index == 0 {
		return nil
	}
	s, err := status.New(codes.Unavailable, "this controller does not lead").WithDetails(&ctrlpb.LeaderHint{Leader: c.f.controllers[0].addr})
	if err != nil {
		return err
	}
	return s.Err()
}

func refuse(code codes.Code, reason ctrlpb.Reason, message string) error {
	s, err := status.New(code, message).WithDetails(&ctrlpb.Refusal{Reason: reason, Message: message})
	if err != nil {
		return err
	}
	return s.Err()
}

func (c *fakeController) Query(_ context.Context, q *ctrlpb.QueryRequest) (*ctrlpb.QueryReply, error) {
	if err := c.notLeader(); err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if q.Num != nil && q.GetNum() != uint64(c.f.config.Num) {
		return nil, refuse(codes.NotFound, ctrlpb.Reason_UNKNOWN_CONFIG, "no such configuration is kept")
	}
	reply := &ctrlpb.QueryReply{Cluster: c.f.id[:], Config: ctrlpb.FromConfig(c.f.config), ClockMs: c.f.clockLocked()}
	for s, shard := range c.f.shards {
		if shard.holder.gid != c.f.config.Shards[s] {
			reply.Hints = append(reply.Hints, &ctrlpb.Hint{
				Shard: uint32(s), Gid: uint64(shard.holder.gid), Incarnation: shard.holder.incarnation[:],
				Replicas: shard.holder.addresses, EpochGen: shard.epoch.Gen, EpochNum: shard.epoch.Num,
			})
		}
	}
	return reply, nil
}

func (c *fakeController) Watch(q *ctrlpb.WatchRequest, stream ctrlpb.Controller_WatchServer) error {
	var have *shardcfg.Config
	for {
		c.f.mu.Lock()
		config, changed := c.f.config, c.f.changed
		c.f.mu.Unlock()
		reply := &ctrlpb.WatchReply{Cluster: c.f.id[:]}
		if have == nil {
			reply.Config = ctrlpb.FromConfig(config)
		} else {
			reply.Delta = ctrlpb.FromDelta(shardcfg.DeltaBetween(have, config))
		}
		have = config
		if err := stream.Send(reply); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (c *fakeController) Leave(_ context.Context, q *ctrlpb.LeaveRequest) (*ctrlpb.ChangeReply, error) {
	if err := c.notLeader(); err != nil {
		return nil, err
	}
	return nil, refuse(codes.NotFound, ctrlpb.Reason_UNKNOWN_GROUP, "no group 9 is listed")
}

func (c *fakeController) Move(_ context.Context, q *ctrlpb.MoveRequest) (*ctrlpb.ChangeReply, error) {
	if err := c.notLeader(); err != nil {
		return nil, err
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.changes++
	switch clock, birth, hour := c.f.clockLocked(), q.GetRequest().GetBirthMs(), uint64(time.Hour.Milliseconds()); {
	case birth > clock+hour:
		return nil, refuse(codes.InvalidArgument, ctrlpb.Reason_BAD_REQUEST, "the request's clock is ahead of the cluster's")
	case birth+hour < clock:
		return nil, refuse(codes.FailedPrecondition, ctrlpb.Reason_REQUEST_EXPIRED, "the request is older than the oldest that is remembered")
	}
	reply := c.f.requests[string(q.GetRequest().GetId())]
	if reply == nil {
		from := c.f.config.Shards[q.GetShard()]
		reply = &ctrlpb.ChangeReply{Num: uint64(c.f.config.Num), Moves: []*ctrlpb.PlannedMove{{Shard: q.GetShard(), From: uint64(from), To: q.GetGid()}}}
		if !q.GetPlan() {
			c.f.moveLocked(int(q.GetShard()), c.f.groups[q.GetGid()-1], true)
			reply.Num, reply.Changed = uint64(c.f.config.Num), true
			c.f.requests[string(q.GetRequest().GetId())] = reply
		}
	}
	if c.loseReplies > 0 {
		c.loseReplies--
		return nil, status.Error(codes.Aborted, "leadership was lost")
	}
	return reply, nil
}

func (c *fakeController) Info(context.Context, *ctrlpb.InfoRequest) (*ctrlpb.InfoReply, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	info := &ctrlpb.InfoReply{
		Cluster: c.f.id[:], ShardCount: uint32(len(c.f.shards)), Id: c.addr, Leader: c.f.controllers[0].addr, Term: 1, Num: uint64(c.f.config.Num),
	}
	for i, other := range c.f.controllers {
		role := "follower"
		if i == 0 {
			role = "leader"
		}
		info.Members = append(info.Members, &ctrlpb.Member{Id: other.addr, Address: other.addr, Role: role, Healthy: true})
	}
	return info, nil
}
