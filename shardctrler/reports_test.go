package shardctrler

import (
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// TestHintsFollowTheToken: whatever the order in which groups report, the hint
// names the group with the newest token, and there is none where that is the
// owner.
func TestHintsFollowTheToken(t *testing.T) {
	a, b := shardcfg.Incarnation{'A'}, shardcfg.Incarnation{'B'}
	cfg := &shardcfg.Config{Num: 5, Shards: []shardcfg.GroupID{2}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		1: {Incarnation: a, State: shardcfg.GroupMember}, 2: {Incarnation: b, State: shardcfg.GroupMember}}}
	say := func(rs *reports, gid shardcfg.GroupID, inc shardcfg.Incarnation, epoch uint64, serving bool) {
		rs.take(report{gid: gid, incarnation: inc, replicas: []string{"x:1"}, holdings: map[shardcfg.ShardID]*ctrlpb.Holding{
			0: {Shard: 0, EpochNum: epoch, Serving: serving}}})
	}
	var rs reports
	rs.init(time.Now)
	want := func(what string, holder shardcfg.GroupID) {
		t.Helper()
		hints := rs.hints(cfg)
		switch {
		case holder == 0 && len(hints) == 0:
		case holder == 0 || len(hints) != 1 || hints[0].GetGid() != uint64(holder):
			t.Fatalf("%s: hints %v, want group %d", what, hints, holder)
		}
	}
	want("nothing is known", 0)
	say(&rs, 1, a, 1, true)
	want("group 1 serves", 1)
	say(&rs, 1, a, 1, false)
	want("group 1 froze it", 1)
	say(&rs, 2, b, 2, true)
	want("group 2, the owner, serves", 0)
	say(&rs, 1, a, 2, false)
	want("group 1 passed it on", 0)
	say(&rs, 1, a, 1, true)
	want("an old report of group 1", 0)
	say(&rs, 2, b, 3, false)
	say(&rs, 1, a, 3, true)
	want("back at group 1", 1)
	say(&rs, 2, b, 2, true)
	want("an old report of group 2", 1)
	delete(cfg.Groups, 1)
	cfg.Num++
	if hints := rs.hints(cfg); len(hints) != 1 || hints[0].GetGid() != 0 || len(hints[0].GetReplicas()) != 1 {
		t.Fatalf("a holder that is not listed: %v", hints)
	}
	rs.reset()
	want("another replica led", 0)
}

// TestReportsAreBounded: the oldest group is forgotten first.
func TestReportsAreBounded(t *testing.T) {
	now := time.UnixMilli(0)
	var rs reports
	rs.init(func() time.Time { now = now.Add(time.Millisecond); return now })
	for i := range reportsMax + 3 {
		rs.take(report{gid: shardcfg.GroupID(i + 1), incarnation: shardcfg.Incarnation{1, byte(i), byte(i >> 8)}})
	}
	all := rs.all()
	if len(all) != reportsMax || all[0].GetGid() != 4 || all[len(all)-1].GetGid() != reportsMax+3 {
		t.Fatalf("%d reports, of groups %d to %d", len(all), all[0].GetGid(), all[len(all)-1].GetGid())
	}
}
