package clerk_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A fakeGroup is one group; its replicas share the cluster's model.
type fakeGroup struct {
	f           *fakeCluster
	gid         shardcfg.GroupID
	incarnation shardcfg.Incarnation
	replicas    []*fakeReplica
	addresses   []string
	leader      int // guarded by f.mu; -1: none
	// misled, if not empty, is whom every follower names as the leader.
	misled string
	// skew is how far its clock is ahead of the cluster's, in ms; guarded by f.mu.
	skew uint64
	// asked counts the questions for its status, and rows the shards in the answers;
	// guarded by f.mu.
	asked, rows int
}

func (g *fakeGroup) elect(leader int) {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	g.leader = leader
}

func (g *fakeGroup) leaderLocked() string {
	if g.leader < 0 {
		return ""
	}
	return g.addresses[g.leader]
}

type fakeReplica struct {
	kvpb.UnimplementedKVServer
	g    *fakeGroup
	addr string
}

// execute answers one operation. A non-nil error breaks the stream.
func (r *fakeReplica) execute(ctx context.Context, q *kvpb.ExecuteRequest, op *kvpb.Operation) (*kvpb.Outcome, error) {
	f := r.g.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	if len(q.GetCluster()) > 0 && shardcfg.ClusterID(q.GetCluster()) != f.id {
		return &kvpb.Outcome{Code: kvpb.Code_WRONG_CLUSTER}, nil
	}
	if r.g.leaderLocked() != r.addr {
		return &kvpb.Outcome{Code: kvpb.Code_NOT_LEADER}, nil
	}
	what := faultNone
	if f.fault != nil {
		what = f.fault(r.addr, op)
	}
	switch what {
	case faultLoseFirst:
		return nil, errBroken
	case faultBusy:
		return &kvpb.Outcome{Code: kvpb.Code_BUSY, WaitMs: f.busyMS}, nil
	case faultSlow:
		f.mu.Unlock()
		hold := time.NewTimer(time.Duration(q.GetTimeoutMs()) * time.Millisecond)
		defer hold.Stop()
		select {
		case <-hold.C:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if op.GetGet() != nil {
			return &kvpb.Outcome{Code: kvpb.Code_UNAVAILABLE}, ctx.Err()
		}
		return &kvpb.Outcome{Code: kvpb.Code_OUTCOME_UNKNOWN}, ctx.Err()
	case faultLate:
		f.late.Go(func() {
			elapse(30 * time.Millisecond)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.executeLocked(r.g, q.GetSession(), op)
		})
		return nil, errBroken
	}
	out := f.commitLocked(ctx, r.g, q, op)
	switch {
	case what == faultLoseReply:
		return nil, errBroken
	case what == faultUnknown && op.GetGet() == nil:
		return &kvpb.Outcome{Code: kvpb.Code_OUTCOME_UNKNOWN}, nil
	}
	return out, nil
}

// Stream answers each message in a goroutine of its own, and gives signs of life
// while any is unanswered, as the real server.
func (r *fakeReplica) Stream(stream kvpb.KV_StreamServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	var running sync.WaitGroup
	out := make(chan struct{}, 1) // held by who sends: a bubble takes no mutex for idle
	send := func(response *kvpb.StreamResponse) {
		out <- struct{}{}
		defer func() { <-out }()
		_ = stream.Send(response)
	}
	var unanswered atomic.Int64
	running.Go(func() { r.pulse(ctx, &unanswered, send) })
	gate := make(chan struct{}, 1) // held by what starts; at the end, for good
	go func() {
		for {
			m, err := stream.Recv()
			select {
			case gate <- struct{}{}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				cancel(err)
				<-gate
				return
			}
			unanswered.Add(1)
			running.Go(func() {
				defer unanswered.Add(-1)
				response, err := r.answer(ctx, m.GetRequest())
				if err != nil {
					cancel(err)
					return
				}
				send(&kvpb.StreamResponse{Id: m.GetId(), Response: response})
			})
			<-gate
		}
	}()
	<-ctx.Done()
	gate <- struct{}{}
	running.Wait()
	return context.Cause(ctx)
}

// pulse gives signs of life.
func (r *fakeReplica) pulse(ctx context.Context, unanswered *atomic.Int64, send func(*kvpb.StreamResponse)) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if unanswered.Load() > 0 {
			response := &kvpb.ExecuteResponse{}
			r.g.f.mu.Lock()
			r.speakLocked(response)
			r.g.f.mu.Unlock()
			send(&kvpb.StreamResponse{Response: response})
		}
	}
}

func (r *fakeReplica) answer(ctx context.Context, q *kvpb.ExecuteRequest) (*kvpb.ExecuteResponse, error) {
	f := r.g.f
	f.mu.Lock()
	f.messages++
	f.mu.Unlock()
	response := &kvpb.ExecuteResponse{}
	errs := make([]error, len(q.GetOperations()))
	response.Outcomes = make([]*kvpb.Outcome, len(errs))
	var wait sync.WaitGroup
	for i, op := range q.GetOperations() {
		wait.Go(func() { response.Outcomes[i], errs[i] = r.execute(ctx, q, op) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	room := 8 << 20 // values in one response, as the real server has it
	for i, out := range response.Outcomes {
		if room -= len(out.GetValue()); room < 0 && i > 0 {
			response.Outcomes[i] = &kvpb.Outcome{Code: kvpb.Code_BUSY}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.speakLocked(response)
	return response, nil
}

// speakLocked fills in what a response says beside its outcomes.
func (r *fakeReplica) speakLocked(response *kvpb.ExecuteResponse) {
	f := r.g.f
	response.Leader, response.ClockMs, response.Config = r.g.leaderLocked(), f.clockLocked()+r.g.skew, uint64(f.config.Num)
	response.PatienceMs = uint32(f.commit.Milliseconds())
	if r.g.misled != "" {
		response.Leader = r.g.misled
	}
}

// Scan returns few records at once, so that shards move between them.
func (r *fakeReplica) Scan(_ context.Context, q *kvpb.ScanRequest) (*kvpb.ScanResponse, error) {
	f := r.g.f
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages++
	response := &kvpb.ScanResponse{Outcome: &kvpb.Outcome{}, Leader: r.g.leaderLocked()}
	if r.g.leaderLocked() != r.addr {
		response.Outcome.Code = kvpb.Code_NOT_LEADER
		return response, nil
	}
	f.scans++
	f.scanRequestBytes = max(f.scanRequestBytes, proto.Size(q))
	room := f.scanRecords
	if n := int(q.GetLimit()); n > 0 {
		room = min(room, n)
	}
	for i, from := range q.GetFrom() {
		if room == 0 && i > 0 {
			break
		}
		f.pages++
		page := &kvpb.ScanPage{Shard: from.GetShard(), Outcome: &kvpb.Outcome{}, End: true}
		response.Pages = append(response.Pages, page)
		if f.shards[from.GetShard()].holder != r.g {
			page.Outcome = f.redirectLocked(int(from.GetShard()))
			continue
		}
		keys := f.keysLocked(int(from.GetShard()), string(q.GetPrefix()), string(from.GetAfter()))
		if len(keys) > room {
			keys, page.End = keys[:room], false
		}
		room -= len(keys)
		f.scanned += len(keys)
		for _, key := range keys {
			rec := &kvpb.Record{Key: []byte(key), Version: f.values[key].version}
			if !q.GetKeysOnly() {
				rec.Value = f.values[key].bytes
			}
			page.Records = append(page.Records, rec)
		}
	}
	if f.spoil != nil {
		f.spoil(q, response)
	}
	return response, nil
}

// keysLocked are the keys of a shard behind one, in their order.
func (f *fakeCluster) keysLocked(shard int, prefix, after string) []string {
	var keys []string
	for key, value := range f.values {
		if value.shard == shard && strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (r *fakeReplica) Status(_ context.Context, q *kvpb.StatusRequest) (*kvpb.StatusResponse, error) {
	f := r.g.f
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &kvpb.StatusResponse{
		Cluster: f.id[:], Gid: uint64(r.g.gid), Incarnation: r.g.incarnation[:], Id: r.addr, Leader: r.g.leaderLocked(),
		Term: 1, AppliedIndex: 7, Config: uint64(f.config.Num), ShardCount: uint32(len(f.shards)),
	}
	for i, addr := range r.g.addresses {
		role := "follower"
		if i == r.g.leader {
			role = "leader"
		}
		s.Replicas = append(s.Replicas, &kvpb.Replica{Id: addr, Address: addr, Role: role, Healthy: true})
	}
	r.g.asked++
	for i, shard := range f.shards {
		owned := f.config.Shards[i] == r.g.gid
		if q.GetMoving() && owned == (shard.holder == r.g) {
			continue // it is neither here nor should it be, or at rest here
		}
		if q.GetMoving() && owned {
			s.Shards = append(s.Shards, &kvpb.Shard{Shard: uint32(i)})
		}
		if shard.holder == r.g {
			s.Holding++
			s.Shards = append(s.Shards, &kvpb.Shard{
				Shard: uint32(i), Phase: kvpb.Phase_SERVING, Epoch: &kvpb.Epoch{Gen: shard.epoch.Gen, Num: shard.epoch.Num},
				Revision: shard.revision,
			})
		}
	}
	if !q.GetShards() {
		s.Shards = nil
	}
	r.g.rows += len(s.Shards)
	return s, nil
}
