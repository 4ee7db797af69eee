package route

import (
	"bytes"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Walk goes through the keys that begin with a prefix, shard by shard, in
// ascending order of key within a shard: a key that is present throughout is met
// exactly once, wherever its shard moves meanwhile. Only the place that was
// reached counts, so that a Walk may be left and begun again there.
type Walk struct {
	// The next page is of Shard, behind key After; empty: from its beginning.
	Shard  shardcfg.ShardID
	After  []byte
	shards int
	single bool
}

// NewWalk returns one through a cluster of so many shards, from a place that was
// reached before, or from the zero place. A prefix that contains a whole hash tag
// needs one shard only. It reports false if no such Walk ever comes to that place.
func NewWalk(prefix []byte, shards int, from shardcfg.ShardID, after []byte) (Walk, bool) {
	w := Walk{Shard: from, After: after, shards: shards, single: Tagged(prefix)}
	if w.single {
		w.Shard = shardcfg.ShardOf(prefix, shards)
	}
	return w, int(from) < shards && (!w.single || len(after) == 0 || from == w.Shard)
}

// Tagged reports whether every key with the prefix is of one slot: the prefix
// holds the whole hash tag, so that nothing after it counts.
func Tagged(prefix []byte) bool {
	open := bytes.IndexByte(prefix, '{')
	return open >= 0 && bytes.IndexByte(prefix[open+1:], '}') > 0
}

// Op returns the routing state of the next page.
func (w *Walk) Op() Op {
	return NewOp(shardcfg.Slot(int(w.Shard)*(shardcfg.SlotCount/w.shards)), false, false, false)
}

// Turn takes in a page: its last key, empty if it has none, and whether it ended
// its shard. It reports whether the walk is done.
func (w *Walk) Turn(last []byte, end bool) (done bool) {
	if len(last) > 0 {
		w.After = last
	}
	if !end {
		return false
	}
	if w.single || int(w.Shard) == w.shards-1 {
		return true
	}
	w.Shard, w.After = w.Shard+1, nil
	return false
}
