package shardctrler

import (
	"context"
	"slices"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Join adds groups. Unless it is forced, it asks their replicas who they are.
func (s *Server) Join(ctx context.Context, req *ctrlpb.JoinRequest) (*ctrlpb.ChangeReply, error) {
	r, id, err := s.accept(req)
	if err != nil {
		return nil, err
	}
	join := ctrlfsm.Join{Request: id}
	for _, g := range req.GetGroups() {
		for _, a := range g.GetReplicas() {
			if err := checkAddress(a); err != nil {
				return nil, err
			}
		}
		join.Groups = append(join.Groups, ctrlfsm.JoinGroup{
			ID: shardcfg.GroupID(g.GetGid()), Replicas: g.GetReplicas(), Weight: g.GetWeight(),
		})
	}
	if len(join.Groups) > ctrlfsm.JoinGroupsMax {
		return nil, refuse(ctrlfsm.BadRequest, "more than %d groups", ctrlfsm.JoinGroupsMax)
	}
	if err := s.barrier(ctx, r); err != nil {
		return nil, err
	}
	asking, err := s.asking(r, join)
	if err != nil {
		return nil, err
	}
	if asking != askNobody && !req.GetForce() {
		asked := slices.Clone(join.Groups)
		switch err := s.verify(ctx, r, asked); {
		case err == nil:
			join.Groups = asked
		case asking == askAll:
			return nil, err
		}
	}
	return s.change(ctx, r, join, req.GetPlan())
}

// An asking says whether a join needs to know who the replicas are.
type asking int

const (
	// askNobody: the request was answered before, or it would change nothing, or be
	// refused, whoever they are.
	askNobody asking = iota
	// askIfPossible: the groups are listed as they should be, but not all are bound:
	// one of them may be one that is known from earlier, which only a join binds.
	askIfPossible
	// askAll: the change depends on it.
	askAll
)

func (s *Server) asking(r *replica, join ctrlfsm.Join) (a asking, err error) {
	err = s.read(r, func(rd *reading) error {
		if _, answered, err := rd.Answered(join.Request); err != nil || answered {
			return err
		}
		next, ref, err := ctrlfsm.Plan(rd.View, join)
		unbound := func(g ctrlfsm.JoinGroup) bool { return rd.latest.Groups[g.ID].Incarnation.IsZero() }
		switch {
		// A group that is listed with other addresses may turn out to be the same.
		case err != nil, next != nil, ref != nil && ref.Reason == ctrlfsm.GroupExists:
			a = askAll
		case ref == nil && slices.ContainsFunc(join.Groups, unbound):
			a = askIfPossible
		}
		return err
	})
	return a, err
}

// Leave removes groups. Those that have left before are left out, so that who
// repeats a leave need not know how far the first one came.
func (s *Server) Leave(ctx context.Context, req *ctrlpb.LeaveRequest) (*ctrlpb.ChangeReply, error) {
	r, id, err := s.accept(req)
	if err != nil {
		return nil, err
	}
	leave := ctrlfsm.Leave{Request: id}
	for _, gid := range req.GetGids() {
		leave.Groups = append(leave.Groups, shardcfg.GroupID(gid))
	}
	if len(leave.Groups) > ctrlfsm.LeaveGIDsMax {
		return nil, refuse(ctrlfsm.BadRequest, "more than %d groups", ctrlfsm.LeaveGIDsMax)
	}
	if err := s.barrier(ctx, r); err != nil {
		return nil, err
	}
	reply := &ctrlpb.ChangeReply{}
	err = s.read(r, func(rd *reading) error {
		reply.Num = uint64(rd.latest.Num)
		return leaveOut(rd, &leave)
	})
	if err != nil {
		return nil, err
	}
	if len(leave.Groups) == 0 && len(req.GetGids()) > 0 {
		return reply, nil
	}
	return s.change(ctx, r, leave, req.GetPlan())
}

// leaveOut takes the groups that are gone out of a leave, unless it was answered
// before. A gid that no group ever lived under stays, to be refused.
func leaveOut(rd *reading, leave *ctrlfsm.Leave) error {
	if _, answered, err := rd.Answered(leave.Request); err != nil || answered {
		return err
	}
	var rest []shardcfg.GroupID
	for _, gid := range leave.Groups {
		gone := false
		if _, listed := rd.latest.Groups[gid]; !listed {
			var err error
			if gone, err = wasListed(rd, gid); err != nil {
				return internal("read the groups that left", err)
			}
		}
		if !gone {
			rest = append(rest, gid)
		}
	}
	leave.Groups = rest
	return nil
}

// ghostConfigs is how many configs are searched for a group that never came to
// life: as many as are kept at least.
const ghostConfigs = 100

// wasListed reports whether a gid that is not listed any more was: a group that
// lived is known for good, one that never did by the configs that are kept.
func wasListed(rd *reading, gid shardcfg.GroupID) (bool, error) {
	bound, err := rd.WasBound(gid)
	if bound || err != nil {
		return bound, err
	}
	for n := rd.latest.Num; n > 0 && rd.latest.Num-n < ghostConfigs; n-- {
		config, kept, err := rd.ConfigAt(n - 1)
		if err != nil || !kept {
			return false, err
		}
		if _, listed := config.Groups[gid]; listed {
			return true, nil
		}
	}
	return false, nil
}

// Move pins one shard to a group.
func (s *Server) Move(ctx context.Context, req *ctrlpb.MoveRequest) (*ctrlpb.ChangeReply, error) {
	r, id, err := s.accept(req)
	if err != nil {
		return nil, err
	}
	shard, err := r.shard(req.GetShard())
	if err != nil {
		return nil, err
	}
	return s.change(ctx, r, ctrlfsm.Move{Request: id, Shard: shard, Group: shardcfg.GroupID(req.GetGid()), MaxPauseMS: req.GetMaxPauseMs()}, req.GetPlan())
}

// Unpin lets a shard be balanced again.
func (s *Server) Unpin(ctx context.Context, req *ctrlpb.UnpinRequest) (*ctrlpb.ChangeReply, error) {
	r, id, err := s.accept(req)
	if err != nil {
		return nil, err
	}
	shard, err := r.shard(req.GetShard())
	if err != nil {
		return nil, err
	}
	return s.change(ctx, r, ctrlfsm.Unpin{Request: id, Shard: shard}, req.GetPlan())
}

// change makes a change, or says what it would do.
func (s *Server) change(ctx context.Context, r *replica, c ctrlfsm.Command, plan bool) (*ctrlpb.ChangeReply, error) {
	if plan {
		return s.plan(ctx, r, c)
	}
	s.counts.changes.Add(1)
	res, err := s.propose(ctx, r, c)
	if err != nil {
		return nil, err
	}
	reply := &ctrlpb.ChangeReply{Num: uint64(res.Num), Changed: res.Changed}
	if !res.Changed {
		return reply, nil
	}
	err = s.read(r, func(rd *reading) error {
		before, kept, err := rd.ConfigAt(res.Num - 1)
		if err != nil || !kept {
			return err
		}
		after, kept, err := rd.ConfigAt(res.Num)
		if err == nil && kept {
			reply.Moves = s.moves(before, after)
		}
		return err
	})
	if err != nil {
		// The change is made; what it moves can be asked of Query.
		reply.Moves = nil
	}
	return reply, nil
}

func (s *Server) plan(ctx context.Context, r *replica, c ctrlfsm.Command) (*ctrlpb.ChangeReply, error) {
	if err := s.barrier(ctx, r); err != nil {
		return nil, err
	}
	reply := &ctrlpb.ChangeReply{}
	err := s.read(r, func(rd *reading) error {
		reply.Num = uint64(rd.latest.Num)
		next, ref, err := ctrlfsm.Plan(rd.View, c)
		switch {
		case err != nil:
			return internal("plan", err)
		case ref != nil:
			return refusal(ref)
		case next != nil:
			reply.Moves = s.moves(rd.latest, next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// moves lists the shards whose owner differs, with the bytes that their holders
// last reported.
func (s *Server) moves(before, after *shardcfg.Config) []*ctrlpb.PlannedMove {
	var out []*ctrlpb.PlannedMove
	for i := range after.Shards {
		if before.Shards[i] == after.Shards[i] {
			continue
		}
		out = append(out, &ctrlpb.PlannedMove{
			Shard: uint32(i), From: uint64(before.Shards[i]), To: uint64(after.Shards[i]),
			Bytes: s.reports.bytes(shardcfg.ShardID(i)),
		})
	}
	return out
}

// A changeRequest asks for a change.
type changeRequest interface {
	GetCluster() []byte
	GetRequest() *ctrlpb.RequestID
	GetPlan() bool
}

// accept checks that this controller can make a change that was asked for, and
// returns the change's id. A plan needs none: its id may be zero.
func (s *Server) accept(req changeRequest) (*replica, ctrlfsm.RequestID, error) {
	r, err := s.leading(req.GetCluster())
	if err != nil {
		return nil, ctrlfsm.RequestID{}, err
	}
	m := req.GetRequest()
	id, ok := shardcfg.To128[shardcfg.ID128](m.GetId())
	if !ok || id == (shardcfg.ID128{}) && !req.GetPlan() {
		return nil, ctrlfsm.RequestID{}, refuse(ctrlfsm.BadRequest, "a change needs a request id of 16 bytes, not all zero")
	}
	return r, ctrlfsm.RequestID{ID: id, BirthMS: m.GetBirthMs()}, nil
}

func checkAddress(a string) error {
	if err := formation.CheckAddress(a); err != nil {
		return refuse(ctrlfsm.BadRequest, "%v", err)
	}
	return nil
}
