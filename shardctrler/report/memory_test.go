package report

import (
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

var incA, incB, incC = shardcfg.Incarnation{'A'}, shardcfg.Incarnation{'B'}, shardcfg.Incarnation{'C'}

func holdings(epoch uint64, serving bool, shards ...shardcfg.ShardID) (list []Holding) {
	for _, s := range shards {
		list = append(list, Holding{Shard: s, Epoch: shardcfg.Epoch{Num: epoch}, Serving: serving})
	}
	return list
}

// Claim: whatever the order in which groups report, the hint names the group with
// the newest token, and there is none where that is the owner.
func TestHintsFollowTheToken(t *testing.T) {
	cfg := &shardcfg.Config{Num: 5, Shards: []shardcfg.GroupID{2}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		1: {Incarnation: incA, State: shardcfg.GroupMember}, 2: {Incarnation: incB, State: shardcfg.GroupMember}}}
	m := NewMemory()
	say := func(gid shardcfg.GroupID, inc shardcfg.Incarnation, epoch uint64, serving bool) {
		m.Take(&Report{Group: gid, Incarnation: inc, Replicas: []string{"x:1"}, Holdings: holdings(epoch, serving, 0)}, time.UnixMilli(1))
	}
	want := func(what string, holder shardcfg.GroupID) {
		t.Helper()
		hints := m.Hints(cfg).List
		switch {
		case holder == 0 && len(hints) == 0:
		case holder == 0 || len(hints) != 1 || hints[0].Group != holder:
			t.Fatalf("%s: hints %v, want group %d", what, hints, holder)
		}
	}
	want("nothing is known", 0)
	say(1, incA, 1, true)
	want("group 1 serves", 1)
	say(1, incA, 1, false)
	want("group 1 froze it", 1)
	say(2, incB, 2, true)
	want("group 2, the owner, serves", 0)
	say(1, incA, 2, false)
	want("group 1 passed it on", 0)
	say(1, incA, 1, true)
	want("an old report of group 1", 0)
	say(2, incB, 3, false)
	say(1, incA, 3, true)
	want("back at group 1", 1)
	say(1, incA, 1, false)
	say(2, incB, 2, false)
	want("an old report of group 1 itself, and one of group 2 that is newer than that", 1)
	say(2, incB, 2, true)
	want("an old report of group 2", 1)
	delete(cfg.Groups, 1)
	cfg.Num++
	if hints := m.Hints(cfg).List; len(hints) != 1 || hints[0].Group != 0 || len(hints[0].Replicas) != 1 {
		t.Fatalf("a holder that is not listed: %v", hints)
	}
}

// Claim: the list of hints is made once for a config and what is reported: a
// report that says nothing new leaves it.
func TestHintsAreShared(t *testing.T) {
	cfg := &shardcfg.Config{Num: 5, Shards: []shardcfg.GroupID{2}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		1: {Incarnation: incA}, 2: {Incarnation: incB}}}
	m := NewMemory()
	say := func(epoch uint64) {
		m.Take(&Report{Group: 1, Incarnation: incA, Holdings: holdings(epoch, true, 0)}, time.UnixMilli(1))
	}
	say(1)
	first := m.Hints(cfg)
	say(1)
	if m.Hints(cfg) != first {
		t.Error("made anew after a report that says nothing new")
	}
	say(2)
	if m.Hints(cfg) == first {
		t.Error("not made anew for a new epoch")
	}
	second := m.Hints(cfg)
	cfg.Num++
	if m.Hints(cfg) == second {
		t.Error("not made anew for a new config")
	}
}

// Claim: a group that says it holds a shard hears who has a newer token, although
// that is the owner. A receiver may have passed the shard on and be gone, and then
// nobody else proves to the frozen holder that it may let go.
func TestAHolderHearsOfItsSuccessor(t *testing.T) {
	cfg := &shardcfg.Config{Num: 5, Shards: []shardcfg.GroupID{3, 3}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		1: {Incarnation: incA, State: shardcfg.GroupMember}, 3: {Incarnation: incC, State: shardcfg.GroupMember}}}
	m := NewMemory()
	frozen := &Report{Group: 1, Incarnation: incA, Holdings: holdings(1, false, 0, 1)}
	owner := &Report{Group: 3, Incarnation: incC, Holdings: holdings(3, true, 0)}
	m.Take(frozen, time.UnixMilli(1))
	m.Take(owner, time.UnixMilli(1))
	shared := len(m.Hints(cfg).List)
	more := m.more(cfg, frozen)
	if len(more) != 1 || len(m.Hints(cfg).List) != shared {
		t.Fatalf("more hints for the holder: %v", more)
	}
	if h := more[0]; h.Shard != 0 || h.Group != 3 || h.Epoch.Num != 3 {
		t.Errorf("the holder hears %v, want epoch 3 at group 3", h)
	}
	if more := m.more(cfg, owner); len(more) != 0 {
		t.Errorf("the newest holder hears %v of itself", more)
	}
}

// Claim: reports are bounded; the oldest group is forgotten first.
func TestReportsAreBounded(t *testing.T) {
	m := NewMemory()
	for i := range reportsMax + 3 {
		m.Take(&Report{Group: shardcfg.GroupID(i + 1), Incarnation: shardcfg.Incarnation{1, byte(i), byte(i >> 8)}}, time.UnixMilli(int64(i)))
	}
	all := m.All()
	if len(all) != reportsMax || all[0].Group != 4 || all[len(all)-1].Group != reportsMax+3 {
		t.Fatalf("%d reports, of groups %d to %d", len(all), all[0].Group, all[len(all)-1].Group)
	}
}

// Claim: of a shard that is named twice the first holding counts, and holdings
// are found by shard.
func TestSort(t *testing.T) {
	r := Report{Holdings: Sort([]Holding{{Shard: 7, Bytes: 1}, {Shard: 2, Bytes: 2}, {Shard: 7, Bytes: 3}})}
	if h, ok := r.Holding(7); len(r.Holdings) != 2 || !ok || h.Bytes != 1 {
		t.Errorf("sorted: %v", r.Holdings)
	}
	if _, ok := r.Holding(5); ok {
		t.Error("finds a shard that is not held")
	}
}
