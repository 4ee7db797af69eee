package shardctrler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	// attestTimeout bounds the questions to all groups together.
	attestTimeout = 2500 * time.Millisecond
	// attestAttemptMax bounds one question to one replica.
	attestAttemptMax = time.Second
	// repairAttempts is how often the groups are asked again because the
	// configuration, or a repair, changed meanwhile.
	repairAttempts = 3
	// attestRest is the pause between two rounds of asking a group's replicas.
	attestRest = 100 * time.Millisecond
)

// Retire declares an incarnation destroyed. Unless it is forced, it asks the
// replicas first, and is refused if one of them lives: such a group can leave.
func (s *Server) Retire(ctx context.Context, req *ctrlpb.RetireRequest) (*ctrlpb.ChangeReply, error) {
	r, id, err := s.accept(req)
	if err != nil {
		return nil, err
	}
	inc, err := named(req.GetIncarnation())
	if err != nil {
		return nil, err
	}
	if !req.GetForce() {
		if err := s.checkDead(ctx, r, inc); err != nil {
			return nil, err
		}
	}
	return s.change(ctx, r, ctrlfsm.Retire{Request: id, Incarnation: inc}, req.GetPlan())
}

// checkDead refuses if a replica of the incarnation answers at an address that
// the latest config lists for it.
func (s *Server) checkDead(ctx context.Context, r *replica, inc shardcfg.Incarnation) error {
	if err := s.barrier(ctx, r); err != nil {
		return err
	}
	var group ctrlfsm.JoinGroup
	err := s.read(r, func(rd *reading) error {
		if gid, listed := rd.latest.GroupOf(inc); listed {
			group = ctrlfsm.JoinGroup{ID: gid, Replicas: slices.Clone(rd.latest.Groups[gid].Replicas)}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, h := range s.hellos(ctx, []ctrlfsm.JoinGroup{group})[0] {
		found, _ := shardcfg.To128[shardcfg.Incarnation](h.reply.GetIdentity().GetIncarnation())
		if h.err == nil && h.reply.GetFormed() && found == inc {
			return refuse(ctrlfsm.GroupAlive, "group %d lives: its replica at %s answers", group.ID, h.addr)
		}
	}
	return nil
}

// Repair lets shards be served again that waited for retired groups.
func (s *Server) Repair(ctx context.Context, req *ctrlpb.RepairRequest) (*ctrlpb.RepairReply, error) {
	r, err := s.leading(req.GetCluster())
	if err != nil {
		return nil, err
	}
	run := &repairing{s: s, r: r, req: req, wanted: map[shardcfg.ShardID]bool{}, granted: map[shardcfg.ShardID]ctrlfsm.Verdict{}}
	for _, n := range req.GetShards() {
		shard, err := r.shard(n)
		if err != nil {
			return nil, err
		}
		run.wanted[shard] = true
	}
	for attempt := 1; ; attempt++ {
		reply, err := run.try(ctx)
		switch {
		case err == nil:
			return reply, nil
		case ctrlpb.ReasonOf(err) != ctrlpb.Reason_STALE_REPORT || attempt == repairAttempts:
			return nil, run.failed(err)
		}
	}
}

// A repairing is the work on one Repair.
type repairing struct {
	s      *Server
	r      *replica
	req    *ctrlpb.RepairRequest
	wanted map[shardcfg.ShardID]bool // empty: all shards
	// granted are the repairs that were granted on the way.
	granted map[shardcfg.ShardID]ctrlfsm.Verdict
}

// failed is the error of a repair that ended with err. What was granted before it is
// done, so that a refusal, which says that nothing was, would be a lie.
func (q *repairing) failed(err error) error {
	if len(q.granted) == 0 {
		return err
	}
	return status.Errorf(codes.Aborted, "outcome unknown: %d shards were repaired, then: %s", len(q.granted), status.Convert(err).Message())
}

// try asks every group what it has, and grants the repairs that the answers allow:
// ctrlfsm.Judge decides. What was granted is carried out by the groups, who hear of
// it when they poll.
func (q *repairing) try(ctx context.Context) (*ctrlpb.RepairReply, error) {
	if err := q.s.barrier(ctx, q.r); err != nil {
		return nil, err
	}
	var latest *shardcfg.Config
	var last map[shardcfg.ShardID]ctrlfsm.Repair
	err := q.s.read(q.r, func(rd *reading) (err error) {
		latest = rd.latest
		if last, err = rd.Repairs(); err != nil {
			return internal("read the repairs", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	asked, answers, err := q.s.attest(ctx, q.r, latest, q.req.GetShards())
	if err != nil {
		return nil, err
	}
	q.s.counts.repairs.Add(1)
	reply := &ctrlpb.RepairReply{Num: uint64(latest.Num)}
	for _, c := range repairCommands(latest, q.wanted, asked, answers, last, q.req.GetLossAccepted()) {
		verdicts, err := q.judge(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, v := range verdicts {
			if was, before := q.granted[v.Shard]; before && v.Granted.Gen == 0 {
				v = was
			}
			if len(q.wanted) > 0 || v.Fate != ctrlfsm.FateServed && v.Fate != ctrlfsm.FateUncreated {
				reply.Shards = append(reply.Shards, fateMessage(latest, v))
			}
		}
	}
	return reply, nil
}

// judge judges by the present state, then, unless only a plan is wanted, has the
// log judge and grant what is repairable: most shards are not, and need no place
// there.
func (q *repairing) judge(ctx context.Context, c ctrlfsm.RepairShards) (list []ctrlfsm.Verdict, err error) {
	err = q.s.read(q.r, func(rd *reading) error {
		verdicts, ref, err := ctrlfsm.Verdicts(rd.View, c)
		switch {
		case err != nil:
			return internal("judge", err)
		case ref != nil:
			return refusal(ref)
		}
		list = verdicts
		return nil
	})
	if err != nil || q.req.GetPlan() {
		return list, err
	}
	due := c
	due.Cases = nil
	var at []int // where each of them stands in list
	for i, v := range list {
		if v.Fate.Repairable(c.LossAccepted) && !(q.req.GetCopiesOnly() && v.Fate == ctrlfsm.FateLost) {
			due.Cases, at = append(due.Cases, c.Cases[i]), append(at, i)
		}
	}
	if len(due.Cases) == 0 {
		return list, nil
	}
	res, err := q.s.propose(ctx, q.r, due)
	if err != nil {
		return nil, err
	}
	for i, v := range res.Repairs {
		list[at[i]] = v
		if v.Granted.Gen != 0 {
			q.granted[v.Shard] = v
		}
	}
	return list, nil
}

// attest asks all groups that c lists and binds. It is refused if one of them does
// not answer.
func (s *Server) attest(ctx context.Context, r *replica, c *shardcfg.Config, shards []uint32) (asked []shardcfg.Incarnation, answers map[shardcfg.ShardID][]ctrlfsm.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	type testimony struct {
		gid   shardcfg.GroupID
		group shardcfg.Group
		reply *kvpb.AttestReply
		err   error
	}
	var list []*testimony
	for _, gid := range c.GroupIDs() {
		if g := c.Groups[gid]; !g.Incarnation.IsZero() {
			list = append(list, &testimony{gid: gid, group: g})
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, hellosAtOnce)
	for _, t := range list {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.reply, t.err = s.attestGroup(ctx, t.group, &kvpb.AttestRequest{
				Cluster: r.id.Cluster[:], Group: t.group.Incarnation[:], Num: uint64(c.Num), Shards: shards})
		})
	}
	wg.Wait()
	answers = map[shardcfg.ShardID][]ctrlfsm.Answer{}
	for _, t := range list {
		if t.err != nil {
			return nil, nil, refuse(ctrlfsm.GroupSilent, "group %d must be asked, and does not answer (%v)", t.gid, t.err)
		}
		asked = append(asked, t.group.Incarnation)
		for _, a := range t.reply.GetShards() {
			shard, err := r.shard(a.GetShard())
			if err != nil {
				return nil, nil, refuse(ctrlfsm.GroupSilent, "group %d answers nonsense: %v", t.gid, err)
			}
			answers[shard] = append(answers[shard], answerOf(t.group.Incarnation, a))
		}
	}
	slices.SortFunc(asked, shardcfg.Incarnation.Compare)
	return asked, answers, nil
}

// attestGroup asks all replicas at once, until the leader answers or ctx ends.
func (s *Server) attestGroup(ctx context.Context, g shardcfg.Group, req *kvpb.AttestRequest) (*kvpb.AttestReply, error) {
	ctx, cancel := context.WithCancel(fence.WithTarget(ctx, g.Incarnation))
	defer cancel()
	for {
		answers := make(chan attestation, len(g.Replicas))
		for _, address := range g.Replicas {
			go func() {
				reply, err := s.attestReplica(ctx, address, req)
				answers <- attestation{address, reply, err}
			}()
		}
		last := errors.New("it has no replica")
		for range g.Replicas {
			a := <-answers
			if a.err == nil {
				return a.reply, nil
			}
			last = fmt.Errorf("%s: %s", a.address, status.Convert(a.err).Message())
		}
		select {
		case <-ctx.Done():
			return nil, last
		case <-time.After(attestRest):
		}
	}
}

// An attestation is what one replica answered.
type attestation struct {
	address string
	reply   *kvpb.AttestReply
	err     error
}

func (s *Server) attestReplica(ctx context.Context, address string, req *kvpb.AttestRequest) (*kvpb.AttestReply, error) {
	conn, err := s.host.Dial(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, attestAttemptMax)
	defer cancel()
	return kvpb.NewHandoffClient(conn).Attest(ctx, req)
}

func answerOf(group shardcfg.Incarnation, a *kvpb.Attested) ctrlfsm.Answer {
	answer := ctrlfsm.Answer{Group: group, Epoch: shardcfg.Epoch{Gen: a.GetEpoch().GetGen(), Num: a.GetEpoch().GetNum()}}
	switch a.GetPhase() {
	case kvpb.Phase_SERVING, kvpb.Phase_LEAVING:
		answer.Holding = ctrlfsm.HoldsToken
	case kvpb.Phase_FROZEN:
		answer.Holding = ctrlfsm.HoldsFrozen
	}
	answer.To, _ = shardcfg.To128[shardcfg.Incarnation](a.GetTo())
	return answer
}

// repairCommands puts the wanted shards, or all of them if there is none, into as few
// commands as their bounds allow.
func repairCommands(c *shardcfg.Config, wanted map[shardcfg.ShardID]bool, asked []shardcfg.Incarnation,
	answers map[shardcfg.ShardID][]ctrlfsm.Answer, last map[shardcfg.ShardID]ctrlfsm.Repair, lossAccepted bool) (list []ctrlfsm.RepairShards) {
	var open ctrlfsm.RepairShards
	n := 0
	for i := range c.Shards {
		s := shardcfg.ShardID(i)
		if len(wanted) > 0 && !wanted[s] {
			continue
		}
		k := ctrlfsm.RepairCase{Shard: s, LastGen: last[s].Gen, Answers: answers[s]}
		if len(open.Cases) == ctrlfsm.RepairCasesMax || len(open.Cases) > 0 && n+len(k.Answers) > ctrlfsm.RepairAnswersMax {
			list, open, n = append(list, open), ctrlfsm.RepairShards{}, 0
		}
		open.Num, open.Asked, open.LossAccepted = c.Num, asked, lossAccepted
		open.Cases = append(open.Cases, k)
		n += len(k.Answers)
	}
	if len(open.Cases) > 0 {
		list = append(list, open)
	}
	return list
}

func fateMessage(c *shardcfg.Config, v ctrlfsm.Verdict) *ctrlpb.ShardFate {
	gid, _ := c.GroupOf(v.Group)
	return &ctrlpb.ShardFate{Shard: uint32(v.Shard), Fate: ctrlpb.Fate(v.Fate), Gid: uint64(gid), Gen: v.Granted.Gen}
}
