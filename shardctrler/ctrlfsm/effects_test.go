package ctrlfsm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Claim: however many changes of a large configuration share an entry, the batch of
// the store stays small; those that the entry has no room for are not done, and
// each of them is done when it is made again.
func TestConfigsOfAnEntryAreBounded(t *testing.T) {
	const moves, shards = 256, 1024
	s := store.NewMem()
	m := New(shards, nil)
	index := uint64(0)
	apply := func(list []Command) (results []Result, size int) {
		t.Helper()
		b, err := s.NewBatch()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		index++
		e := entry.Entry{Index: index, Clock: 1000}
		for _, c := range list {
			e.Commands = append(e.Commands, c.Encode())
		}
		out, err := m.Apply(b, &e)
		if err != nil {
			t.Fatal(err)
		}
		size = b.Size()
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		for _, r := range out {
			results = append(results, r.(Result))
		}
		return results, size
	}
	request := func(n int) RequestID {
		return RequestID{ID: shardcfg.ID128{byte(n >> 8), byte(n), 1}, BirthMS: 1000}
	}
	join := Join{Request: request(0)}
	for gid := shardcfg.GroupID(1); len(join.Groups)*shardcfg.ReplicasMax*250 < shardcfg.GroupsBytesMax-1<<20; gid++ {
		g := JoinGroup{ID: gid, Weight: 1, Identity: IdentityEmpty}
		for i := range shardcfg.ReplicasMax {
			g.Replicas = append(g.Replicas, fmt.Sprintf("g%d-%d.%s:1", gid, i, strings.Repeat("a", 230)))
		}
		join.Groups = append(join.Groups, g)
	}
	if r, _ := apply([]Command{join}); !r[0].Changed {
		t.Fatal(r[0].Refusal)
	}
	var left []Command
	for i := range moves {
		left = append(left, Move{Request: request(i + 1), Shard: shardcfg.ShardID(i), Group: shardcfg.GroupID(1 + i%len(join.Groups)), MaxPauseMS: 50})
	}
	entries := 0
	for ; len(left) > 0; entries++ {
		results, size := apply(left)
		if limit := shardcfg.EffectBytesMax + 2*shardcfg.ConfigBytesMax; size > limit {
			t.Errorf("entry %d makes a batch of %d bytes, want at most %d", entries, size, limit)
		}
		var again []Command
		for i, r := range results {
			switch {
			case r.Refusal != nil && r.Refusal.Reason == EntryFull:
				again = append(again, left[i])
			case !r.Changed || len(again) > 0:
				t.Fatalf("change %d of entry %d: %+v", i, entries, r)
			}
		}
		if len(again) == len(left) {
			t.Fatal("an entry has room for nothing")
		}
		left = again
	}
	if entries < 2 {
		t.Error("one entry had room for all")
	}
	if latest, err := NewView(s, shards).Latest(); err != nil || latest.Num != moves+1 {
		t.Errorf("the latest config: %v, %v, want number %d", latest.Num, err, moves+1)
	}
}
