package handoff_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A fetching is the driver of a receiver, group 2, that stages shards of group
// 1.
type fetching struct {
	driver *handoff.Driver
	view   handoff.View
	from   kvfsm.Peer
	now    time.Duration
}

func newFetching() *fetching {
	peer := func(gid shardcfg.GroupID) kvfsm.Peer {
		return kvfsm.Peer{Incarnation: shardcfg.Incarnation{byte(gid)}, Group: gid}
	}
	f := &fetching{from: peer(1), driver: handoff.NewDriver(handoff.Identity{Peer: peer(2)}, handoff.DefaultParams())}
	f.view.Config = &shardcfg.Config{Num: 2, Shards: []shardcfg.GroupID{2, 2}, Pins: map[shardcfg.ShardID]shardcfg.Pin{},
		Groups: map[shardcfg.GroupID]shardcfg.Group{
			1: {Incarnation: peer(1).Incarnation, Replicas: []string{"listed:1"}, Weight: 1, State: shardcfg.GroupMember},
			2: {Incarnation: peer(2).Incarnation, Replicas: []string{"here:1"}, Weight: 1, State: shardcfg.GroupMember},
		}}
	return f
}

// stage adds a fresh staging, and takes in the holder's invitation to it.
func (f *fetching) stage(s shardcfg.ShardID, phase kvfsm.Phase, replicas ...string) {
	f.view.Records = append(f.view.Records, kvfsm.Record{Shard: s, CopyLast: 1,
		Staging: &kvfsm.Staging{Epoch: shardcfg.Epoch{Num: 2}, Handoff: 2, From: f.from, Copy: 1}})
	f.invite(s, phase, replicas...)
}

// invite takes in an invitation of the holder.
func (f *fetching) invite(s shardcfg.ShardID, phase kvfsm.Phase, replicas ...string) {
	f.driver.Invited(f.now, handoff.Invite{From: handoff.Identity{Peer: f.from, Replicas: replicas},
		To: kvfsm.Peer{Incarnation: shardcfg.Incarnation{2}, Group: 2}, Adopted: 2,
		Shards: []handoff.Invitation{{Shard: s, Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2}, Phase: phase}}})
}

func (f *fetching) step(t *testing.T) []handoff.Fetch {
	t.Helper()
	f.now += time.Millisecond
	a, err := f.driver.Step(f.now, f.view)
	if err != nil {
		t.Fatal(err)
	}
	return a.Fetches
}

// A receiver fetches where the holder's invitation says, which is newer than the
// config; without addresses in it, where the config says.
func TestFetchGoesWhereTheHolderSays(t *testing.T) {
	for want, replicas := range map[string][]string{"moved:1": {"moved:1"}, "listed:1": nil} {
		f := newFetching()
		f.stage(0, kvfsm.PhaseLeaving, replicas...)
		if got := f.step(t); len(got) != 1 || len(got[0].Replicas) != 1 || got[0].Replicas[0] != want {
			t.Errorf("invited by %v: fetches are %+v, want one to %s", replicas, got, want)
		}
	}
}

// The last changes of a frozen shard, whose clients wait, are fetched at once,
// while a long copy from the same holder is not answered yet.
func TestFrozenShardsDoNotQueueBehindCopies(t *testing.T) {
	f := newFetching()
	f.stage(0, kvfsm.PhaseLeaving)
	if got := f.step(t); len(got) != 1 || got[0].Wants[0].Shard != 0 {
		t.Fatalf("fetches are %+v, want one of shard 0", got)
	}
	f.stage(1, kvfsm.PhaseFrozen)
	if got := f.step(t); len(got) != 1 || len(got[0].Wants) != 1 || got[0].Wants[0].Shard != 1 {
		t.Fatalf("fetches are %+v, want one of shard 1", got)
	}
}

// A page that the receiver's machine refuses, because it was damaged on its way,
// is fetched again, and not proposed for ever.
func TestRefusedPageIsFetchedAgain(t *testing.T) {
	f := newFetching()
	f.stage(0, kvfsm.PhaseLeaving)
	fetches := f.step(t)
	if len(fetches) != 1 {
		t.Fatalf("fetches are %+v, want one", fetches)
	}
	w := fetches[0].Wants[0]
	f.driver.Fetched(f.now, fetches[0], []kvfsm.Page{{Shard: 0, Mark: w.Mark, Next: kvfsm.Cursor{Key: []byte("k")}, Items: []kvfsm.Item{{Key: []byte("k")}}}})
	a, err := f.driver.Step(f.now, f.view)
	if err != nil || len(a.Copies) != 1 {
		t.Fatalf("proposals are %v, %v, want the page", a.Copies, err)
	}
	f.driver.Proposed(f.now, a.Copies[0], kvfsm.Verdict{Why: kvfsm.ReasonItems}, nil)
	f.now += handoff.DefaultParams().InviteEvery
	if again := f.step(t); len(again) != 1 || !again[0].Wants[0].Cursor.Equal(w.Cursor) {
		t.Errorf("after the refusal the fetches are %+v, want the same page", again)
	}
}

// Shards of one holder take turns by what was answered: of those that are asked for in
// one Fetch only the first may have room in the answer.
func TestShardsTakeTurns(t *testing.T) {
	f := newFetching()
	for s := range shardcfg.ShardID(4) {
		f.stage(s, kvfsm.PhaseLeaving)
	}
	fetches, turns := f.step(t), [4]int{}
	var before kvfsm.Page // is being proposed while the next is fetched
	for i := range 40 {
		if len(fetches) != 1 {
			t.Fatalf("fetches are %+v, want one", fetches)
		}
		w := fetches[0].Wants[0]
		key := fmt.Appendf(nil, "k%02d", i)
		page := kvfsm.Page{Shard: w.Shard, Mark: w.Mark, Next: kvfsm.Cursor{Key: key}, Items: []kvfsm.Item{{Key: key}}}
		f.driver.Fetched(f.now, fetches[0], []kvfsm.Page{page})
		turns[w.Shard]++
		if i > 0 {
			f.view.Records[before.Shard].Staging.Cursor = before.Next
		}
		fetches, before = f.step(t), page
	}
	if turns != [4]int{10, 10, 10, 10} {
		t.Errorf("pages of the shards: %v", turns)
	}
}

// A tail, which grows meanwhile, is fetched while a long copy from the same holder is
// not answered yet.
func TestTailsDoNotQueueBehindCopies(t *testing.T) {
	f := newFetching()
	f.stage(0, kvfsm.PhaseLeaving)
	if got := f.step(t); len(got) != 1 || got[0].Wants[0].Shard != 0 {
		t.Fatalf("fetches are %+v, want one of shard 0", got)
	}
	f.stage(1, kvfsm.PhaseLeaving)
	f.view.Records[1].Staging.Cursor = kvfsm.Cursor{Tail: true, Revision: 1}
	if got := f.step(t); len(got) != 1 || len(got[0].Wants) != 1 || got[0].Wants[0].Shard != 1 {
		t.Fatalf("fetches are %+v, want one of shard 1", got)
	}
}
