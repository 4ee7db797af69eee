package shardctrler

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// reportsMax bounds the groups that are remembered: all that can be listed, and
// as many that are not any more.
const reportsMax = 2 * shardcfg.GroupsMax

// A report is what one group last said of itself.
type report struct {
	gid         shardcfg.GroupID
	incarnation shardcfg.Incarnation
	leader      string
	replicas    []string
	adopted     shardcfg.ConfigNum
	holdings    map[shardcfg.ShardID]*ctrlpb.Holding
	at          time.Time
}

// A holder is the group that has a shard's newest token, as far as reported.
type holder struct {
	epoch       shardcfg.Epoch
	serving     bool
	gid         shardcfg.GroupID
	incarnation shardcfg.Incarnation
	replicas    []string
	bytes       uint64
}

// newer orders holders of one shard. A token that was passed on and the one that
// was received from it have the same epoch; the receiver is the one that serves.
func (h holder) newer(o holder) bool {
	return cmp.Or(h.epoch.Compare(o.epoch), cmp.Compare(bit(h.serving), bit(o.serving))) > 0
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// reports is the leader's memory of its groups, and what is derived from it.
type reports struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		groups  map[shardcfg.Incarnation]report
		holders map[shardcfg.ShardID]holder

		// hints are those for config hintsNum; nil if they must be made anew.
		hints    []*ctrlpb.Hint
		hintsNum shardcfg.ConfigNum

		// claims are those of claimsVersion.
		claims        map[shardcfg.Incarnation][]shardcfg.ShardID
		repairs       map[shardcfg.Incarnation][]*ctrlpb.RepairGrant
		claimsVersion uint64
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
	rs.mu.groups = map[shardcfg.Incarnation]report{}
	rs.mu.holders = map[shardcfg.ShardID]holder{}
	rs.mu.hints = nil
	rs.mu.claims = nil
}

// take remembers a report. It keeps rep's slices and map.
func (rs *reports) take(rep report) {
	rep.at = rs.now()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if _, known := rs.mu.groups[rep.incarnation]; !known && len(rs.mu.groups) >= reportsMax {
		rs.forgetOldestLocked()
	}
	rs.mu.groups[rep.incarnation] = rep
	for shard, h := range rep.holdings {
		now := holder{
			epoch: shardcfg.Epoch{Gen: h.GetEpochGen(), Num: h.GetEpochNum()}, serving: h.GetServing(),
			gid: rep.gid, incarnation: rep.incarnation, replicas: rep.replicas, bytes: h.GetBytes(),
		}
		was, known := rs.mu.holders[shard]
		if known && (now.epoch.Less(was.epoch) || was.incarnation != now.incarnation && !now.newer(was)) {
			continue // an old report, or one of a token that was passed on
		}
		if !known || was.incarnation != now.incarnation || !slices.Equal(was.replicas, now.replicas) || was.epoch != now.epoch {
			rs.mu.hints = nil
		}
		rs.mu.holders[shard] = now
	}
}

func (rs *reports) forgetOldestLocked() {
	var oldest shardcfg.Incarnation
	for inc, rep := range rs.mu.groups {
		if old, ok := rs.mu.groups[oldest]; !ok || rep.at.Before(old.at) {
			oldest = inc
		}
	}
	delete(rs.mu.groups, oldest)
}

// bytes is the size of a shard as its holder last reported; 0 if not known.
func (rs *reports) bytes(shard shardcfg.ShardID) uint64 {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.mu.holders[shard].bytes
}

// hints lists the holders of the shards that c's owners do not hold, in
// ascending order of shard. The list is shared: never change it.
func (rs *reports) hints(c *shardcfg.Config) []*ctrlpb.Hint {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.mu.hints != nil && rs.mu.hintsNum == c.Num {
		return rs.mu.hints
	}
	hints := []*ctrlpb.Hint{}
	for shard := range c.Shards {
		h, known := rs.mu.holders[shardcfg.ShardID(shard)]
		_, owner := c.Owner(shardcfg.ShardID(shard))
		if !known || h.incarnation == owner || c.IsRetired(h.incarnation) {
			continue
		}
		hints = append(hints, h.hint(c, shardcfg.ShardID(shard)))
	}
	rs.mu.hints, rs.mu.hintsNum = hints, c.Num
	return hints
}

// hintsFor is hints for a group that reported, with the holders of those shards
// that it says it holds while their newest token is another's, the owner's
// included. A frozen holder may have no other proof of its successor: the
// receiver may have passed the shard on and be gone.
func (rs *reports) hintsFor(c *shardcfg.Config, rep report) []*ctrlpb.Hint {
	hints := rs.hints(c)
	hints = hints[:len(hints):len(hints)] // an append must not write to what is shared
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, shard := range slices.Sorted(maps.Keys(rep.holdings)) {
		h, known := rs.mu.holders[shard]
		_, owner := c.Owner(shard)
		if known && h.incarnation != rep.incarnation && h.incarnation == owner {
			hints = append(hints, h.hint(c, shard))
		}
	}
	return hints
}

// hint names a holder to a client or a group.
func (h holder) hint(c *shardcfg.Config, shard shardcfg.ShardID) *ctrlpb.Hint {
	hint := &ctrlpb.Hint{
		Shard: uint32(shard), Incarnation: slices.Clone(h.incarnation[:]),
		EpochGen: h.epoch.Gen, EpochNum: h.epoch.Num,
	}
	if gid, listed := c.GroupOf(h.incarnation); listed {
		hint.Gid = uint64(gid)
	} else {
		hint.Replicas = h.replicas
	}
	return hint
}

// claimsOf lists the shards that an incarnation claimed, as v has it. The list
// is shared: never change it.
func (rs *reports) claimsOf(v ctrlfsm.View, inc shardcfg.Incarnation) ([]shardcfg.ShardID, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	err := rs.readClaimsLocked(v)
	return rs.mu.claims[inc], err
}

// repairsOf lists the repairs that an incarnation was granted, as v has them, in
// ascending order of shard. The list is shared: never change it.
func (rs *reports) repairsOf(v ctrlfsm.View, inc shardcfg.Incarnation) ([]*ctrlpb.RepairGrant, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	err := rs.readClaimsLocked(v)
	return rs.mu.repairs[inc], err
}

// readClaimsLocked reads claims and repairs, if they changed since they were read.
func (rs *reports) readClaimsLocked(v ctrlfsm.View) error {
	version, err := v.ClaimsVersion()
	if err != nil || rs.mu.claims != nil && rs.mu.claimsVersion == version {
		return err
	}
	claims, err := v.Claims()
	if err != nil {
		return err
	}
	repairs, err := v.Repairs()
	if err != nil {
		return err
	}
	rs.mu.repairs = map[shardcfg.Incarnation][]*ctrlpb.RepairGrant{}
	for _, s := range slices.Sorted(maps.Keys(repairs)) {
		r := repairs[s]
		rs.mu.repairs[r.Group] = append(rs.mu.repairs[r.Group], &ctrlpb.RepairGrant{
			Shard: uint32(s), FrozenGen: r.Frozen.Gen, FrozenNum: r.Frozen.Num, Gen: r.Gen})
	}
	rs.mu.claims, rs.mu.claimsVersion = claims, version
	return nil
}

// all lists the reports in ascending order of gid, then of incarnation.
func (rs *reports) all() []*ctrlpb.GroupReport {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var out []*ctrlpb.GroupReport
	for _, inc := range slices.SortedFunc(maps.Keys(rs.mu.groups), shardcfg.Incarnation.Compare) {
		rep := rs.mu.groups[inc]
		g := &ctrlpb.GroupReport{
			Gid: uint64(rep.gid), Incarnation: slices.Clone(inc[:]), Leader: rep.leader, Adopted: uint64(rep.adopted),
			AgeMs: uint64(max(rs.now().Sub(rep.at), 0).Milliseconds()),
		}
		for _, shard := range slices.Sorted(maps.Keys(rep.holdings)) {
			g.Holdings = append(g.Holdings, rep.holdings[shard])
		}
		out = append(out, g)
	}
	slices.SortStableFunc(out, func(a, b *ctrlpb.GroupReport) int { return cmp.Compare(a.GetGid(), b.GetGid()) })
	return out
}
