package route

import (
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Claim: a walk visits the shards in order, goes on within a shard behind the last
// key, and needs one shard only where the prefix holds a whole hash tag.
func TestWalk(t *testing.T) {
	w, ok := NewWalk([]byte("p"), 4, 2, []byte("pa"))
	if !ok || w.Shard != 2 || string(w.After) != "pa" {
		t.Fatalf("%+v, %v", w, ok)
	}
	if op := w.Op(); op.slot.ShardOf(4) != 2 {
		t.Errorf("the next page is asked of shard %d", op.slot.ShardOf(4))
	}
	for i, c := range []struct {
		last  string
		end   bool
		shard shardcfg.ShardID
		after string
		done  bool
	}{{"pb", false, 2, "pb", false}, {"", false, 2, "pb", false}, {"pc", true, 3, "", false}, {"", true, 3, "", true}} {
		if done := w.Turn([]byte(c.last), c.end); done != c.done || !done && (w.Shard != c.shard || string(w.After) != c.after) {
			t.Errorf("page %d: %+v, done %v", i, w, done)
		}
	}
	tag := []byte("{user}:")
	only := shardcfg.ShardOf(tag, 4)
	if w, ok := NewWalk(tag, 4, 0, nil); !ok || w.Shard != only || !w.Turn([]byte("{user}:a"), true) {
		t.Errorf("a tag needs shard %d only: %+v, %v", only, w, ok)
	}
	if _, ok := NewWalk(tag, 4, (only+1)%4, tag); ok {
		t.Error("a place in another shard than the tag's")
	}
	if _, ok := NewWalk(nil, 4, 4, nil); ok {
		t.Error("a place in a shard that does not exist")
	}
	for prefix, whole := range map[string]bool{"": false, "{": false, "{}": false, "{a": false, "{a}": true, "x{a}y": true, "{}{a}": false} {
		if Tagged([]byte(prefix)) != whole {
			t.Errorf("%q holds a whole tag: %v", prefix, !whole)
		}
	}
}
