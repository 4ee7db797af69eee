package shardkv

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// Status describes this replica, leader or not, from its applied state. What
// only a leader knows (progress and pauses of handoffs, the health of the other
// replicas) is left out elsewhere.
func (s *Server) Status(ctx context.Context, r *kvpb.StatusRequest) (*kvpb.StatusResponse, error) {
	n := s.node.Load()
	if n == nil {
		return nil, status.Error(codes.Unavailable, starting.message)
	}
	if f := checkCluster(r.GetCluster(), n.identity.Cluster); f.bad() {
		return nil, status.Error(codes.FailedPrecondition, f.message)
	}
	if r.GetMoving() {
		response, err := n.onTheirWay()
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		return response, nil
	}
	records, err := n.readRecords()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	response := n.describe()
	progress := map[shardcfg.ShardID]handoff.Progress{}
	if m := n.mover.Load(); m != nil {
		progress = m.progress()
	}
	for i := range records {
		rec := &records[i]
		if rec.Phase.Serves() {
			response.Holding++
			response.Keys += rec.Keys
			response.Bytes += rec.Bytes
		}
		if r.GetShards() {
			response.Shards = append(response.Shards, shardMessage(rec, progress[rec.Shard]))
		}
	}
	return response, nil
}

// onTheirWay describes the replica, with a row for each shard that is on its way from
// or to the group, or should be. It reads and decodes the records of no other.
func (n *node) onTheirWay() (response *kvpb.StatusResponse, err error) {
	now := n.places.now.Load()
	response = n.describe()
	response.Config = uint64(now.config.Num)
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	progress := map[shardcfg.ShardID]handoff.Progress{}
	if m := n.mover.Load(); m != nil {
		progress = m.progress()
	}
	for s, r := range now.records {
		if r != nil && r.Phase.Serves() {
			response.Holding++
		}
		shard := shardcfg.ShardID(s)
		if !placement.Moves(n.self.Group, now.config, shard, r) {
			continue
		}
		rec, err := kvfsm.ReadRecord(snapshot, shard)
		if err != nil {
			return nil, err
		}
		response.Shards = append(response.Shards, shardMessage(&rec, progress[shard]))
	}
	return response, nil
}

// readRecords reads all records from one snapshot.
func (n *node) readRecords() (records []kvfsm.Record, err error) {
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	return kvfsm.ReadRecords(snapshot)
}

// describe says who and how the replica is.
func (n *node) describe() *kvpb.StatusResponse {
	st := n.replica.Status()
	r := &kvpb.StatusResponse{Cluster: n.identity.Cluster[:], Gid: uint64(n.identity.Group),
		Incarnation: n.self.Incarnation[:], Id: n.identity.Label, Leader: st.Leader, Term: st.Term,
		AppliedIndex: st.AppliedIndex, Config: uint64(n.places.config().Num), ShardCount: uint32(n.identity.ShardCount)}
	for _, m := range st.Members {
		member := &kvpb.Replica{Id: m.Label, Address: m.Address, Role: string(m.Role), AppliedIndex: m.MatchIndex, Healthy: m.Healthy}
		if m.ServerID == n.identity.ServerID {
			member.AppliedIndex, member.Healthy = st.AppliedIndex, st.Failed == nil
		}
		r.Replicas = append(r.Replicas, member)
	}
	return r
}

// shardMessage is one record's row.
func shardMessage(r *kvfsm.Record, p handoff.Progress) *kvpb.Shard {
	m := &kvpb.Shard{Shard: uint32(r.Shard), Phase: kvpb.Phase(r.Phase), Epoch: epochMessage(r.Epoch), Keys: r.Keys,
		Bytes: r.Bytes, Digest: r.Digest.Bytes(), Revision: uint64(r.Revision), Handoff: uint64(r.Handoff),
		CopiedBytes: p.CopiedBytes, Tail: p.Tail, PauseUs: uint64(p.Pause / time.Microsecond), Waiting: p.Waiting}
	if !r.To.IsZero() {
		m.ToGid, m.ToIncarnation = uint64(r.To.Group), r.To.Incarnation[:]
	}
	if st := r.Staging; st != nil {
		m.Staging = &kvpb.Staging{Epoch: epochMessage(st.Epoch), Handoff: uint64(st.Handoff), FromGid: uint64(st.From.Group),
			FromIncarnation: st.From.Incarnation[:], Tail: st.Cursor.Tail, Bytes: st.Bytes}
	}
	return m
}

// rateMin is the least rate of copying that may be set, in bytes per second.
const rateMin = 64 << 10

// Rebalance sets, at this replica and until it restarts, whether handoffs may
// begin, and how fast shards are copied; it answers with what is set.
func (s *Server) Rebalance(ctx context.Context, r *kvpb.RebalanceRequest) (*kvpb.RebalanceResponse, error) {
	n := s.node.Load()
	if n == nil {
		return nil, status.Error(codes.Unavailable, starting.message)
	}
	if f := checkCluster(r.GetCluster(), n.identity.Cluster); f.bad() {
		return nil, status.Error(codes.FailedPrecondition, f.message)
	}
	if r.BytesPerSecond != nil {
		if r.GetBytesPerSecond() < rateMin {
			return nil, status.Errorf(codes.InvalidArgument, "the rate of copying is at least %d bytes/s", rateMin)
		}
		s.limiter.SetLimit(rate.Limit(r.GetBytesPerSecond()))
		if m := n.mover.Load(); m != nil {
			m.copyNow()
		}
	}
	if r.Paused != nil {
		s.held.Store(r.GetPaused())
		if m := n.mover.Load(); m != nil {
			m.poke()
		}
	}
	return &kvpb.RebalanceResponse{Paused: s.held.Load(), BytesPerSecond: uint64(s.limiter.Limit())}, nil
}

// copyNow forgets how long the next copy had to wait at another rate.
func (m *mover) copyNow() {
	m.mu.Lock()
	m.mu.copyAfter = time.Time{}
	m.mu.Unlock()
	m.poke()
}

// progress returns what the driver knows of the handoffs away from here.
func (m *mover) progress() map[shardcfg.ShardID]handoff.Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.mu.driver.Progress(m.now())
	byShard := make(map[shardcfg.ShardID]handoff.Progress, len(list))
	for _, p := range list {
		byShard[p.Shard] = p
	}
	return byShard
}
