package shardctrler

import (
	"context"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/report"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Poll tells the leader of a group what it must know, and hears how it is. On
// the way it makes the changes that the report asks for: it binds a group at
// first contact, follows its replicas' addresses, and drops it once drained.
func (s *Server) Poll(ctx context.Context, req *ctrlpb.PollRequest) (*ctrlpb.PollReply, error) {
	r, err := s.leading(req.GetCluster())
	if err != nil {
		return nil, err
	}
	s.counts.polls.Add(1)
	rep, err := reportOf(r, req)
	if err != nil {
		return nil, err
	}
	command, err := s.dueCommand(r, rep)
	if err != nil {
		return nil, err
	}
	if command != nil {
		if _, err := s.propose(ctx, r, command); err != nil {
			return nil, err
		}
	}
	reply := &ctrlpb.PollReply{
		Cluster: r.id.Cluster[:], ShardCount: uint32(r.id.ShardCount), ClockMs: s.clock(r),
	}
	err = s.read(r, func(rd *reading) error {
		ok, err := s.reports.answer(rd, rep, reply)
		if err != nil {
			return internal("answer a report", err)
		}
		if !ok { // a deposed leader may not know yet
			leader, _ := r.Leader()
			return notDone(leader, "this controller's state is older than the group's")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// dueCommand returns the command that a report calls for, or nil. It refuses a
// group that is not the one its gid is bound to.
func (s *Server) dueCommand(r *replica, rep *report.Report) (due ctrlfsm.Command, err error) {
	err = s.read(r, func(rd *reading) error {
		command, ref, err := report.Due(rd.View, rd.latest, rep)
		switch {
		case err != nil:
			return internal("see what a report calls for", err)
		case ref != nil:
			s.counts.refusals.Add(1)
			return refusal(ref)
		}
		due = command
		return nil
	})
	return due, err
}

// Bind ties a gid to an incarnation.
func (s *Server) Bind(ctx context.Context, req *ctrlpb.BindRequest) (*ctrlpb.BindReply, error) {
	r, err := s.leading(req.GetCluster())
	if err != nil {
		return nil, err
	}
	inc, err := named(req.GetIncarnation())
	if err != nil {
		return nil, err
	}
	for _, a := range req.GetReplicas() {
		if err := checkAddress(a); err != nil {
			return nil, err
		}
	}
	if len(req.GetReplicas()) > shardcfg.ReplicasMax {
		return nil, refuse(ctrlfsm.BadRequest, "more than %d replicas", shardcfg.ReplicasMax)
	}
	res, err := s.propose(ctx, r, ctrlfsm.Bind{
		Group: shardcfg.GroupID(req.GetGid()), Incarnation: inc, Replicas: req.GetReplicas(),
	})
	if err != nil {
		return nil, err
	}
	return &ctrlpb.BindReply{Num: uint64(res.Num)}, nil
}

// Claim gives a group the first tokens of the shards that it owns. Shards that
// can't be claimed are missing from the reply; that is no error.
func (s *Server) Claim(ctx context.Context, req *ctrlpb.ClaimRequest) (*ctrlpb.ClaimReply, error) {
	r, err := s.leading(req.GetCluster())
	if err != nil {
		return nil, err
	}
	inc, err := named(req.GetIncarnation())
	if err != nil {
		return nil, err
	}
	asked := make([]shardcfg.ShardID, 0, min(len(req.GetShards()), r.id.ShardCount))
	for _, n := range req.GetShards() {
		shard, err := r.shard(n)
		if err != nil {
			return nil, err
		}
		asked = append(asked, shard)
	}
	slices.Sort(asked)
	asked = slices.Compact(asked)

	var open, claimed []shardcfg.ShardID
	err = s.read(r, func(rd *reading) (err error) {
		if open, claimed, err = report.Open(rd.View, inc, asked); err != nil {
			return internal("read a claim", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(open) > 0 {
		res, err := s.propose(ctx, r, ctrlfsm.Claim{Incarnation: inc, Shards: open})
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, res.Claimed...)
		slices.Sort(claimed)
	}
	reply := &ctrlpb.ClaimReply{}
	for _, shard := range claimed {
		reply.Claimed = append(reply.Claimed, uint32(shard))
	}
	return reply, nil
}

// Drained drops a leaving group that holds nothing any more.
func (s *Server) Drained(ctx context.Context, req *ctrlpb.DrainedRequest) (*ctrlpb.DrainedReply, error) {
	r, err := s.leading(req.GetCluster())
	if err != nil {
		return nil, err
	}
	inc, err := named(req.GetIncarnation())
	if err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, r, ctrlfsm.Drained{Incarnation: inc, Adopted: shardcfg.ConfigNum(req.GetAdopted())})
	if err != nil {
		return nil, err
	}
	return &ctrlpb.DrainedReply{Num: uint64(res.Num)}, nil
}
