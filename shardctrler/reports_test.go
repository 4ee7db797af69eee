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
	say(&rs, 1, a, 1, false)
	say(&rs, 2, b, 2, false)
	want("an old report of group 1 itself, and one of group 2 that is newer than that", 1)
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

// TestAHolderHearsOfItsSuccessor: a group that says it holds a shard hears who
// has a newer token, although that is the owner. A receiver may have passed the
// shard on and be gone, and then nobody else proves to the frozen holder that it
// may let go.
func TestAHolderHearsOfItsSuccessor(t *testing.T) {
	a, c := shardcfg.Incarnation{'A'}, shardcfg.Incarnation{'C'}
	cfg := &shardcfg.Config{Num: 5, Shards: []shardcfg.GroupID{3, 3}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		1: {Incarnation: a, State: shardcfg.GroupMember}, 3: {Incarnation: c, State: shardcfg.GroupMember}}}
	var rs reports
	rs.init(time.Now)
	frozen := map[shardcfg.ShardID]*ctrlpb.Holding{0: {Shard: 0, EpochNum: 1}, 1: {Shard: 1, EpochNum: 1}}
	rs.take(report{gid: 1, incarnation: a, holdings: frozen})
	rs.take(report{gid: 3, incarnation: c, holdings: map[shardcfg.ShardID]*ctrlpb.Holding{0: {Shard: 0, EpochNum: 3, Serving: true}}})
	shared := rs.hints(cfg)
	hints := rs.hintsFor(cfg, report{gid: 1, incarnation: a, holdings: frozen})
	if len(hints) != len(shared)+1 || len(rs.hints(cfg)) != len(shared) {
		t.Fatalf("hints for the holder %v, for everyone %v", hints, shared)
	}
	if h := hints[len(shared)]; h.GetShard() != 0 || h.GetGid() != 3 || h.GetEpochNum() != 3 {
		t.Errorf("the holder hears %v, want epoch 3 at group 3", h)
	}
	if hints := rs.hintsFor(cfg, report{gid: 3, incarnation: c, holdings: map[shardcfg.ShardID]*ctrlpb.Holding{0: {EpochNum: 3}}}); len(hints) != len(shared) {
		t.Errorf("the newest holder hears %v of itself", hints)
	}
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
