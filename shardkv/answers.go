package shardkv

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	// holdBackMax bounds for how long an answer between groups is held back
	// while it has nothing to say.
	holdBackMax = 100 * time.Millisecond
)

// Invite answers a holder from applied state. Where this replica leads, it also
// acts on the invitation; elsewhere it names the leader.
func (s *Server) Invite(ctx context.Context, r *kvpb.InviteRequest) (*kvpb.InviteReply, error) {
	n, err := s.addressed(r.GetCluster(), r.GetTo())
	if err != nil {
		return nil, err
	}
	i, err := toInvite(r, n.self, n.identity.ShardCount)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	n.places.hear(i.From.Peer.Incarnation, i.From.Replicas)
	var told []shardcfg.ShardID
	for _, v := range i.Shards {
		if n.places.invite(v.Shard, v.By(i.From.Peer)) {
			told = append(told, v.Shard)
		}
	}
	if len(told) > 0 {
		n.parking.wake(told)
	}
	m := n.mover.Load()
	if m != nil {
		m.invited(i)
	}
	shards := make([]shardcfg.ShardID, len(i.Shards))
	for k, v := range i.Shards {
		shards[k] = v.Shard
	}
	var answer handoff.InviteReply
	err = n.hold(ctx, r.GetWaitMs(), shards, func() (done bool, err error) {
		answer, err = n.answer(&i)
		return installed(&i, &answer), err
	})
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	reply := inviteReplyMessage(&answer)
	reply.Leader, _ = n.replica.Leader()
	reply.Leading = m != nil
	return reply, nil
}

// installed reports whether the answer to an Invite proves a successor of one of
// its shards.
func installed(i *handoff.Invite, r *handoff.InviteReply) bool {
	for k := range r.Shards {
		if i.Shards[k].Epoch.Less(r.Shards[k].Epoch) {
			return true
		}
	}
	return false
}

// addressed returns the node, if a call between groups is for it.
func (s *Server) addressed(cluster, group []byte) (*node, error) {
	n := s.node.Load()
	if n == nil {
		return nil, status.Error(codes.Unavailable, starting.message)
	}
	if f := checkCluster(cluster, n.identity.Cluster); f.bad() {
		return nil, status.Error(codes.FailedPrecondition, f.message)
	}
	inc, err := toIncarnation(group, "the addressed group")
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if inc != n.self.Incarnation {
		return nil, status.Errorf(codes.FailedPrecondition, "this is group %d, incarnation %s, not %s", n.self.Group, n.self.Incarnation, inc)
	}
	return n, nil
}

// answer reads what an Invite asks for from one snapshot.
func (n *node) answer(i *handoff.Invite) (r handoff.InviteReply, err error) {
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	v, err := handoff.ReadShards(snapshot, &handoff.View{Config: n.places.config()}, i.Shards)
	if err != nil {
		return r, err
	}
	return handoff.Answer(handoff.Identity{Peer: n.self}, &v, *i), nil
}

// hold calls look until it has something to say or wait has passed, each time
// one of the shards changed.
func (n *node) hold(ctx context.Context, waitMs uint32, shards []shardcfg.ShardID, look func() (done bool, err error)) error {
	wait := min(time.Duration(waitMs)*time.Millisecond, holdBackMax)
	var deadline <-chan time.Time
	for {
		changed := n.machine.watch()
		before := n.placesOf(shards)
		done, err := look()
		if done || err != nil || wait == 0 {
			return err
		}
		if deadline == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			deadline = timer.C
		}
		for same := true; same; same = slices.Equal(before, n.placesOf(shards)) {
			select {
			case <-changed:
				changed = n.machine.watch()
			case <-deadline:
				return nil
			case <-n.closed:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// placesOf returns the published records of shards, to be compared by identity.
func (n *node) placesOf(shards []shardcfg.ShardID) []*kvfsm.Record {
	now := n.places.now.Load()
	records := make([]*kvfsm.Record, len(shards))
	for i, s := range shards {
		records[i] = now.records[s]
	}
	return records
}

// Fetch answers a receiver with the next pages, from applied state.
func (s *Server) Fetch(ctx context.Context, r *kvpb.FetchRequest) (*kvpb.FetchReply, error) {
	n, err := s.addressed(r.GetCluster(), r.GetFrom())
	if err != nil {
		return nil, err
	}
	to, err := toIncarnation(r.GetTo(), "to")
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	wants, err := toWants(r, n.identity.ShardCount)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	bytesMax := int(min(r.GetBytesMax(), shardcfg.PageBytesMax))
	if bytesMax == 0 {
		bytesMax = s.opts.Moving.PageBytes
	}
	shards := make([]shardcfg.ShardID, len(wants))
	for k, w := range wants {
		shards[k] = w.Shard
	}
	if m := n.mover.Load(); m != nil {
		m.wanted(to, wants)
	}
	var pages []kvfsm.Page
	err = n.hold(ctx, r.GetWaitMs(), shards, func() (bool, error) {
		pages, err = n.pages(to, wants, bytesMax)
		return news(wants, pages), err
	})
	if errors.Is(err, kvfsm.ErrRequest) {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	reply := &kvpb.FetchReply{Shards: make([]*kvpb.Page, len(pages))}
	reply.Leader, reply.Leading = n.replica.Leader()
	for k := range pages {
		reply.Shards[k] = pageMessage(&pages[k])
	}
	return reply, nil
}

// pages reads pages from one snapshot.
func (n *node) pages(to shardcfg.Incarnation, wants []kvfsm.Want, bytesMax int) (pages []kvfsm.Page, err error) {
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	return kvfsm.ReadPages(snapshot, to, wants, bytesMax)
}

// news reports whether pages say anything that the receiver does not know.
func news(wants []kvfsm.Want, pages []kvfsm.Page) bool {
	for k := range pages {
		p := &pages[k]
		if p.NotYours || p.Last || len(p.Items) > 0 || !p.Next.Equal(wants[k].Cursor) {
			return true
		}
	}
	return len(pages) < len(wants)
}
