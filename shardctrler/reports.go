package shardctrler

import (
	"slices"
	"sync"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/report"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// reports guards the leader's memory of its groups, and keeps its hints as
// messages.
type reports struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		memory *report.Memory
		// messages are those of made; nil: none were made.
		messages []*ctrlpb.Hint
		made     *report.Hints
	}
}

func (rs *reports) init(now func() time.Time) {
	rs.now = now
	rs.reset()
}

// reset forgets everything: another replica leads, or led meanwhile.
func (rs *reports) reset() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.mu.memory = report.NewMemory()
	rs.mu.messages, rs.mu.made = nil, nil
}

// answer takes in a report, which it keeps, and fills in the answer; false: rd is
// older than the group's config.
func (rs *reports) answer(rd *reading, r *report.Report, reply *ctrlpb.PollReply) (ok bool, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	a, err := rs.mu.memory.Answer(rd.View, rd.latest, r, rs.now())
	if err != nil || a.Behind {
		return false, err
	}
	reply.Num = uint64(a.Num)
	if a.Config != nil {
		reply.Config = ctrlpb.FromConfig(a.Config)
	}
	if a.Hints != nil {
		hints := rs.messagesLocked(a.Hints)
		reply.Hints = hints[:len(hints):len(hints)] // an append must not write to what is shared
	}
	for i := range a.More {
		reply.Hints = append(reply.Hints, hintMessage(&a.More[i]))
	}
	for _, s := range a.Claimed {
		reply.Claimed = append(reply.Claimed, uint32(s))
	}
	for _, g := range a.Repairs {
		reply.Repairs = append(reply.Repairs, &ctrlpb.RepairGrant{
			Shard: uint32(g.Shard), FrozenGen: g.Frozen.Gen, FrozenNum: g.Frozen.Num, Gen: g.Gen})
	}
	return true, nil
}

// hints lists the holders of the shards that c's owners do not hold. The list is
// shared: never change it.
func (rs *reports) hints(c *shardcfg.Config) []*ctrlpb.Hint {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.messagesLocked(rs.mu.memory.Hints(c))
}

func (rs *reports) messagesLocked(hints *report.Hints) []*ctrlpb.Hint {
	if rs.mu.made != hints {
		rs.mu.messages, rs.mu.made = make([]*ctrlpb.Hint, len(hints.List)), hints
		for i := range hints.List {
			rs.mu.messages[i] = hintMessage(&hints.List[i])
		}
	}
	return rs.mu.messages
}

func hintMessage(h *report.Hint) *ctrlpb.Hint {
	return &ctrlpb.Hint{Shard: uint32(h.Shard), Gid: uint64(h.Group), Incarnation: slices.Clone(h.Incarnation[:]),
		EpochGen: h.Epoch.Gen, EpochNum: h.Epoch.Num, Replicas: h.Replicas}
}

// bytes is the size of a shard as its holder last reported; 0 if not known.
func (rs *reports) bytes(shard shardcfg.ShardID) uint64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.mu.memory.Bytes(shard)
}

// all lists the reports in ascending order of gid, then of incarnation.
func (rs *reports) all() []*ctrlpb.GroupReport {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var out []*ctrlpb.GroupReport
	for _, r := range rs.mu.memory.All() {
		g := &ctrlpb.GroupReport{
			Gid: uint64(r.Group), Incarnation: slices.Clone(r.Incarnation[:]), Leader: r.Leader, Adopted: uint64(r.Adopted),
			AgeMs: uint64(max(rs.now().Sub(r.At), 0).Milliseconds()), Replicas: slices.Clone(r.Replicas),
		}
		for _, h := range r.Holdings {
			g.Holdings = append(g.Holdings, &ctrlpb.Holding{Shard: uint32(h.Shard), EpochGen: h.Epoch.Gen, EpochNum: h.Epoch.Num,
				Serving: h.Serving, Keys: h.Keys, Bytes: h.Bytes})
		}
		out = append(out, g)
	}
	return out
}

// reportOf reads a group's report.
func reportOf(r *replica, req *ctrlpb.PollRequest) (*report.Report, error) {
	inc, err := incarnation(req.GetIncarnation())
	if err != nil {
		return nil, err
	}
	// A report is kept, also that of a group which is not listed and whose addresses go
	// into no configuration.
	if n := len(req.GetReplicas()); n > shardcfg.ReplicasMax {
		return nil, refuse(ctrlfsm.BadRequest, "a group of %d replicas, at most %d are allowed", n, shardcfg.ReplicasMax)
	}
	for _, a := range req.GetReplicas() {
		if err := checkAddress(a); err != nil {
			return nil, err
		}
	}
	if n := len(req.GetLeader()); n > shardcfg.AddressBytesMax {
		return nil, refuse(ctrlfsm.BadRequest, "the leader's address has %d bytes, at most %d are allowed", n, shardcfg.AddressBytesMax)
	}
	if n := len(req.GetHoldings()); n > r.id.ShardCount {
		return nil, refuse(ctrlfsm.BadRequest, "%d shards of %d are held", n, r.id.ShardCount)
	}
	rep := &report.Report{
		Group: shardcfg.GroupID(req.GetGid()), Incarnation: inc, Leader: req.GetLeader(), Replicas: slices.Clone(req.GetReplicas()),
		Adopted: shardcfg.ConfigNum(req.GetAdopted()), Drained: req.GetDrained(),
	}
	for _, h := range req.GetHoldings() {
		shard, err := r.shard(h.GetShard())
		if err != nil {
			return nil, err
		}
		rep.Holdings = append(rep.Holdings, report.Holding{Shard: shard, Epoch: shardcfg.Epoch{Gen: h.GetEpochGen(), Num: h.GetEpochNum()},
			Serving: h.GetServing(), Keys: h.GetKeys(), Bytes: h.GetBytes()})
	}
	rep.Holdings = report.Sort(rep.Holdings)
	return rep, nil
}
