package shardctrler

import (
	"context"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
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
	inc, err := incarnation(req.GetIncarnation())
	if err != nil {
		return nil, err
	}
	for _, a := range req.GetReplicas() {
		if err := checkAddress(a); err != nil {
			return nil, err
		}
	}
	holdings, err := holdingsOf(r, req.GetHoldings())
	if err != nil {
		return nil, err
	}
	command, err := s.dueCommand(r, req, inc)
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
		// A deposed leader may not know yet. Whoever has the config that the group
		// adopted also has every claim that was granted before it; from an older
		// state a leaving group could conclude that it has nothing left to create
		// (INV-8).
		if rd.latest.Num < shardcfg.ConfigNum(req.GetAdopted()) {
			leader, _ := r.Leader()
			return notDone(leader, "this controller's state is older than the group's")
		}
		reply.Num = uint64(rd.latest.Num)
		if rd.latest.Num > shardcfg.ConfigNum(req.GetAdopted()) {
			reply.Config = ctrlpb.FromConfig(rd.latest)
		}
		if inc.IsZero() {
			return nil
		}
		rep := report{
			gid: shardcfg.GroupID(req.GetGid()), incarnation: inc, leader: req.GetLeader(),
			replicas: slices.Clone(req.GetReplicas()), adopted: shardcfg.ConfigNum(req.GetAdopted()), holdings: holdings,
		}
		s.reports.take(rep)
		reply.Hints = s.reports.hintsFor(rd.latest, rep)
		return s.grants(rd, inc, holdings, reply)
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// grants tells a group which tokens it must make: those that it claimed, and those
// of repairs, as far as its report does not show that it has made them.
func (s *Server) grants(rd *reading, inc shardcfg.Incarnation, holdings map[shardcfg.ShardID]*ctrlpb.Holding, reply *ctrlpb.PollReply) error {
	claims, err := s.reports.claimsOf(rd.View, inc)
	if err != nil {
		return internal("read the claims", err)
	}
	for _, shard := range claims {
		if _, created := holdings[shard]; !created {
			reply.Claimed = append(reply.Claimed, uint32(shard))
		}
	}
	repairs, err := s.reports.repairsOf(rd.View, inc)
	if err != nil {
		return internal("read the repairs", err)
	}
	for _, g := range repairs {
		if holdings[shardcfg.ShardID(g.GetShard())].GetEpochGen() < g.GetGen() {
			reply.Repairs = append(reply.Repairs, g)
		}
	}
	return nil
}

// dueCommand returns the command that a report calls for, or nil. It refuses a
// group that is not the one its gid is bound to.
func (s *Server) dueCommand(r *replica, req *ctrlpb.PollRequest, inc shardcfg.Incarnation) (due ctrlfsm.Command, err error) {
	if inc.IsZero() {
		return nil, nil
	}
	gid := shardcfg.GroupID(req.GetGid())
	err = s.read(r, func(rd *reading) error {
		g, listed := rd.latest.Groups[gid]
		switch {
		case rd.latest.IsRetired(inc):
			s.counts.refusals.Add(1)
			return refuse(ctrlfsm.IncarnationRetired, "%v was declared destroyed", inc)
		case !listed:
			return nil
		}
		bind := ctrlfsm.Bind{Group: gid, Incarnation: inc, Replicas: req.GetReplicas()}
		if len(bind.Replicas) == 0 {
			bind.Replicas = g.Replicas
		}
		next, ref, err := ctrlfsm.Plan(rd.View, bind)
		if err != nil {
			return internal("plan", err)
		}
		if ref != nil {
			s.counts.refusals.Add(1)
			return refusal(ref)
		}
		left, err := rd.LeftAt(gid)
		if err != nil {
			return internal("read a leave", err)
		}
		adopted := shardcfg.ConfigNum(req.GetAdopted())
		switch {
		case req.GetDrained() && left != 0 && adopted >= left:
			due = ctrlfsm.Drained{Incarnation: inc, Adopted: adopted}
		case next != nil:
			due = bind
		}
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

	// What cannot be granted does not go into the log: a claim is for good, so
	// an old state errs only on the side of asking.
	var open, claimed []shardcfg.ShardID
	err = s.read(r, func(rd *reading) error {
		for _, shard := range asked {
			by, err := rd.ClaimedBy(shard)
			if err != nil {
				return internal("read a claim", err)
			}
			switch {
			case by == inc:
				claimed = append(claimed, shard)
			case by.IsZero():
				open = append(open, shard)
			}
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

// holdingsOf reads a report's holdings, by shard.
func holdingsOf(r *replica, list []*ctrlpb.Holding) (map[shardcfg.ShardID]*ctrlpb.Holding, error) {
	out := make(map[shardcfg.ShardID]*ctrlpb.Holding, min(len(list), r.id.ShardCount))
	for _, h := range list {
		shard, err := r.shard(h.GetShard())
		if err != nil {
			return nil, err
		}
		out[shard] = h
	}
	return out, nil
}
