package explore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// A Bound is how far one search goes. Its numbers are those of the columns of
// docs/explorer.md.
type Bound struct {
	Name string
	// Groups alive at once, and shards: a power of two, at most ShardsMax.
	Groups, Shards int
	// Keys are the user's keys of each shard; the session's record is one more.
	Keys int
	// Configs is how many are made, with any owners.
	Configs int
	// Ops are the clients' writes, all of which may be tried from the start, in
	// any order, at any group, again and again; at most OpsMax.
	Ops []Op
	// Emptied is how many groups may be emptied and join again.
	Emptied int
	// Destroyed is how many groups may be destroyed, with all that they have; each
	// is retired by a config of its own, and the others may repair the shards.
	Destroyed int
	// Reformed lets the group that takes a destroyed one's seat begin with one of its
	// disks, as kvfsm.Reform makes it: as it was at the end, or in a full search at any
	// moment. Operations must be appends then.
	Reformed bool
	// Faults is how many stagings may lose an item, or be lost.
	Faults int
	// Expiry lets any group raise the session floor above the birth of old
	// sessions at any time, and prune.
	Expiry bool
	// WholePages lets a page hold everything. Otherwise it holds one item, which
	// lets everything happen between any two.
	WholePages bool
	// Live is of how many states one is tested for liveness; 0: none is.
	Live int
	// StatesMax ends the search undecided; 0: never.
	StatesMax int
}

// Limits of a Bound.
const (
	ShardsMax = 2
	OpsMax    = 6
	seatsMax  = 4
	livesMax  = 8
)

// An Op is one write of a client.
type Op struct {
	Kind  kvfsm.Op
	Shard shardcfg.ShardID
	Key   int
	// Old says that its session was born before the floor that may be raised.
	Old bool
	// AckedBelow is the client's mark on it, by number of operation from 1; an
	// operation is not sent before those below its mark were executed.
	AckedBelow uint64
}

// ops reads "a0 d1 p0": append, delete or put of a key in shard 0; "1:a0" in
// shard 1; "old:a0" of an old session; "a0@2": acknowledged below 2.
func ops(text string) []Op {
	var list []Op
	for _, word := range strings.Fields(text) {
		op := Op{AckedBelow: 1}
		if rest, ok := strings.CutPrefix(word, "old:"); ok {
			op.Old, word = true, rest
		}
		if rest, ok := strings.CutPrefix(word, "1:"); ok {
			op.Shard, word = 1, rest
		}
		if rest, mark, ok := strings.Cut(word, "@"); ok {
			if _, err := fmt.Sscan(mark, &op.AckedBelow); err != nil {
				panic(fmt.Sprintf("explore: operation %q: %v", word, err))
			}
			word = rest
		}
		kinds := map[byte]kvfsm.Op{'a': kvfsm.OpAppend, 'd': kvfsm.OpDelete, 'p': kvfsm.OpPut}
		op.Kind, op.Key = kinds[word[0]], int(word[1]-'0')
		if op.Kind == 0 {
			panic(fmt.Sprintf("explore: operation %q", word))
		}
		list = append(list, op)
	}
	return list
}

// Bounds are the searches by name, in the order of docs/explorer.md: at least
// those that the protocol was once checked with as a model, and more.
var Bounds = []Bound{
	{Name: "small", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0"), Live: 1},
	{Name: "g3c3-emptied", Groups: 3, Shards: 1, Keys: 2, Configs: 3, Ops: ops("a0 a1"), Emptied: 1, Live: 4},
	{Name: "g3c4", Groups: 3, Shards: 1, Keys: 2, Configs: 4, Ops: ops("a0 a1"), Live: 16},
	{Name: "g3c5", Groups: 3, Shards: 1, Keys: 1, Configs: 5, Ops: ops("a0"), Live: 32},
	{Name: "g3c4-emptied", Groups: 3, Shards: 1, Keys: 1, Configs: 4, Ops: ops("a0 a0"), Emptied: 1, Live: 64},
	{Name: "g2c5", Groups: 2, Shards: 1, Keys: 2, Configs: 5, Ops: ops("a0 a1 d0"), Live: 1},
	{Name: "g2c4-faults", Groups: 2, Shards: 1, Keys: 2, Configs: 4, Ops: ops("a0 a1"), Emptied: 2, Faults: 1, Live: 8},
	{Name: "swaps", Groups: 2, Shards: 2, Keys: 1, Configs: 3, Ops: ops("a0 1:a0 a0 1:a0"), Live: 8},
	{Name: "g2c3-emptied", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0"), Emptied: 2, Live: 1},
	{Name: "expiry", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Ops: ops("old:a0 a0 old:a0@2"), Expiry: true, Live: 8},
	{Name: "g2c4-destroyed", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Ops: ops("a0 a0"), Destroyed: 2, Live: 64},
	{Name: "g3c4-destroyed", Groups: 3, Shards: 1, Keys: 1, Configs: 4, Ops: ops("a0"), Destroyed: 2, Live: 64},
	{Name: "g3c5-destroyed", Groups: 3, Shards: 1, Keys: 1, Configs: 5, Emptied: 1, Destroyed: 2, Live: 16},
	{Name: "g3c5-emptied", Groups: 3, Shards: 1, Keys: 1, Configs: 5, Ops: ops("a0 a0"), Emptied: 2, Live: 256},
	{Name: "g2c6-destroyed", Groups: 2, Shards: 1, Keys: 1, Configs: 6, Ops: ops("a0"), Emptied: 1, Destroyed: 2, Live: 64},
	{Name: "g2c7-destroyed", Groups: 2, Shards: 1, Keys: 1, Configs: 7, Ops: ops("a0"), Emptied: 2, Destroyed: 2, Live: 64},
}

// Tiny bounds are small enough for a full search. Each planted mistake shows in
// one of them; so should those of a build of the product that makes one.
var (
	tinyHandoff = Bound{Name: "tiny-handoff", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0"), Live: 1}
	tinyExpiry  = Bound{Name: "tiny-expiry", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("old:a0"), Expiry: true, Live: 1}
	tinyFaults  = Bound{Name: "tiny-faults", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0"), Faults: 1, Live: 1}
	tinyMoves   = Bound{Name: "tiny-moves", Groups: 2, Shards: 1, Keys: 1, Configs: 4}
	tinyEmptied = Bound{Name: "tiny-emptied", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Emptied: 1}
	tinyAppends = Bound{Name: "tiny-appends", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("a0 a0 a0")}
	tinyRepeats = Bound{Name: "tiny-repeats", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Ops: ops("a0")}
	tinyLosses  = Bound{Name: "tiny-losses", Groups: 3, Shards: 1, Keys: 1, Configs: 4, Destroyed: 1}
	tinyLoss    = Bound{Name: "tiny-loss", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Destroyed: 1}
	tinyRelapse = Bound{Name: "tiny-relapse", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Destroyed: 2}
	tinyWrites  = Bound{Name: "tiny-writes", Groups: 2, Shards: 1, Keys: 2, Configs: 3, Ops: ops("a0 a1")}

	// A disk that shows the past needs a full search.
	tinyReformed = Bound{Name: "tiny-reformed", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("old:a0"), Destroyed: 1, Reformed: true, Live: 64}

	TinyBounds = []Bound{tinyHandoff, tinyExpiry, tinyFaults, tinyMoves, tinyEmptied, tinyAppends, tinyRepeats, tinyWrites, tinyLoss, tinyLosses, tinyRelapse}
)

// FindBound returns the bound of a name.
func FindBound(name string) (Bound, bool) {
	for _, b := range slices.Concat(Bounds, TinyBounds, []Bound{tinyReformed}) {
		if b.Name == name {
			return b, true
		}
	}
	return Bound{}, false
}

// Times of the search, in ms. The clock of every entry is the same: order in
// the log decides, and the machine compares nothing else with it but births and
// floors. A young session is not older than the floor that a repair leaves.
const (
	clockNow   = 1000
	birthOld   = 100
	birthYoung = clockNow
	floorNew   = 500
)

// key returns the i-th key of a shard.
func key(shards int, s shardcfg.ShardID, i int) []byte {
	for n := 0; ; n++ {
		k := fmt.Appendf(nil, "k%d", n)
		if shardcfg.ShardOf(k, shards) != s {
			continue
		}
		if i == 0 {
			return k
		}
		i--
	}
}

// write returns the command of the bound's i-th operation. Its value is its
// number from 1, as one letter.
func (b *Bound) write(i int) *kvfsm.Write {
	op := b.Ops[i]
	id, birth := shardcfg.SessionID{1}, uint64(birthYoung)
	if op.Old {
		id, birth = shardcfg.SessionID{2}, birthOld
	}
	w := &kvfsm.Write{Op: op.Kind, Key: key(b.Shards, op.Shard, op.Key),
		Stamp: session.Stamp{Key: session.Key{Birth: birth, ID: id}, AckedBelow: op.AckedBelow, Sequence: uint64(i + 1)}}
	if op.Kind != kvfsm.OpDelete {
		w.Value = []byte{'1' + byte(i)}
	}
	return w
}
