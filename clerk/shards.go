package clerk

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// shards puts the groups' rows together: per shard its holder, and what is on
// its way.
func (s *survey) shards() ([]ShardStatus, []Handoff) {
	out := make([]ShardStatus, len(s.config.Shards))
	for i := range out {
		out[i] = ShardStatus{Shard: shardcfg.ShardID(i), Owner: s.config.Shards[i], Phase: phaseAbsent}
	}
	passed := map[shardcfg.ShardID]*kvpb.Shard{}
	staged := map[shardcfg.ShardID]uint64{}
	for _, gid := range s.config.GroupIDs() {
		for _, row := range s.best(gid).GetShards() {
			if int(row.GetShard()) >= len(out) {
				continue
			}
			sh := &out[row.GetShard()]
			if st := row.GetStaging(); st != nil {
				staged[sh.Shard] = st.GetBytes()
			}
			switch row.GetPhase() {
			case kvpb.Phase_ABSENT:
			case kvpb.Phase_PASSED:
				if p := passed[sh.Shard]; epochOf(p.GetEpoch()).Less(epochOf(row.GetEpoch())) {
					passed[sh.Shard] = row
				}
			default:
				if !epochOf(row.GetEpoch()).Less(sh.Epoch) {
					s.held(sh, gid, row)
				}
			}
		}
	}
	for shard, row := range passed {
		// The groups are asked at different moments: a token that nobody shows is
		// with whoever it was passed to.
		if sh := &out[shard]; sh.Epoch.Less(epochOf(row.GetEpoch())) {
			*sh = ShardStatus{Shard: sh.Shard, Owner: sh.Owner, Phase: phaseAbsent}
			sh.To, sh.ToRetired = s.receiver(row)
		}
	}
	return out, s.handoffs(out, staged)
}

const (
	phaseAbsent  = "absent"
	phaseServing = "serving"
	phaseFrozen  = "frozen"
)

// held notes what a group says of a shard that it holds.
func (s *survey) held(sh *ShardStatus, gid shardcfg.GroupID, row *kvpb.Shard) {
	sh.Holder, sh.Epoch, sh.Phase = gid, epochOf(row.GetEpoch()), strings.ToLower(row.GetPhase().String())
	sh.Keys, sh.Bytes, sh.Revision = row.GetKeys(), row.GetBytes(), row.GetRevision()
	sh.Digest = bytes.Clone(row.GetDigest())
	sh.Pause = time.Duration(row.GetPauseUs()) * time.Microsecond
	sh.To, sh.ToRetired = s.receiver(row)
}

// receiver is the group that a row names as the one that the shard goes to.
func (s *survey) receiver(row *kvpb.Shard) (gid shardcfg.GroupID, retired bool) {
	inc, ok := shardcfg.To128[shardcfg.Incarnation](row.GetToIncarnation())
	return shardcfg.GroupID(row.GetToGid()), ok && s.config.IsRetired(inc)
}

// handoffs lists the shards that are on their way, in ascending order.
func (s *survey) handoffs(shards []ShardStatus, staged map[shardcfg.ShardID]uint64) (list []Handoff) {
	for _, gid := range s.config.GroupIDs() {
		for _, row := range s.best(gid).GetShards() {
			if int(row.GetShard()) >= len(shards) || shards[row.GetShard()].Holder != gid {
				continue
			}
			sh := shards[row.GetShard()]
			if s.placed && !sh.Settled() || row.GetPhase() == kvpb.Phase_LEAVING || row.GetPhase() == kvpb.Phase_FROZEN {
				list = append(list, handoffOf(sh, row, staged[sh.Shard]))
			}
		}
	}
	slices.SortFunc(list, func(a, b Handoff) int { return cmp.Compare(a.Shard, b.Shard) })
	return list
}

func handoffOf(sh ShardStatus, row *kvpb.Shard, staged uint64) Handoff {
	h := Handoff{
		Shard: sh.Shard, From: sh.Holder, To: sh.Owner, Phase: sh.Phase,
		CopiedBytes: max(row.GetCopiedBytes(), staged), TotalBytes: sh.Bytes,
		Pause: time.Duration(row.GetPauseUs()) * time.Microsecond, Waiting: row.GetWaiting(),
	}
	if to := shardcfg.GroupID(row.GetToGid()); to != 0 {
		h.To = to
	}
	if sh.Phase == phaseServing {
		h.Phase = "waiting"
	}
	h.CopiedBytes = min(h.CopiedBytes, h.TotalBytes)
	return h
}
