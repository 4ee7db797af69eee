package ctrlfsm

import (
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Holding says what a group has of a shard. Of two groups that show the same
// epoch, the one that passed the token on and the one that got it, the greater
// holding is the latter's.
type Holding uint8

const (
	// HoldsNothing: it never had the shard, or passed it on.
	HoldsNothing Holding = iota
	// HoldsFrozen: it has stopped serving, for another group to install it.
	HoldsFrozen
	// HoldsToken: it serves the shard.
	HoldsToken
)

// An Answer is what one group says of one shard, behind a barrier and having
// adopted the latest config. A group that never met the shard gives none.
type Answer struct {
	Group   shardcfg.Incarnation
	Epoch   shardcfg.Epoch
	Holding Holding
	// To is who it froze for or passed on to; zero if it holds the token.
	To shardcfg.Incarnation
}

// A Repair is the controllers' word that a group may make a token of a new
// generation.
type Repair struct {
	Group shardcfg.Incarnation
	// Frozen is the epoch of the frozen copy that shall serve again; zero: the
	// group shall create the shard, empty.
	Frozen shardcfg.Epoch
	// Gen is the new token's generation; no other repair of the shard has it. 0:
	// there is no repair.
	Gen uint32
}

// A Fate is what becomes of a shard whose groups were asked.
type Fate uint8

const (
	// FateUncreated: nobody holds its first token yet, and its owner will create
	// it.
	FateUncreated Fate = iota + 1
	// FateServed: a group serves it.
	FateServed
	// FateMoving: it is on its way to a group that lives.
	FateMoving
	// FateGranted: an earlier repair was granted, and will be carried out.
	FateGranted
	// FateThawed: its receiver was destroyed, and the frozen copy serves again, if
	// the operator accepts that: what the receiver acknowledged, if it installed the
	// shard, is lost, and nobody that is left can say whether it did.
	FateThawed
	// FateLost: the group that had the token was destroyed, and the data with it.
	// The shard begins anew, empty, if the operator accepts that.
	FateLost
	// FateOwnerless: as FateLost, but the config gives the shard to nobody who
	// could begin it anew.
	FateOwnerless
)

var fateTexts = [...]string{
	FateUncreated: "uncreated",
	FateServed:    "served",
	FateMoving:    "moving",
	FateGranted:   "granted",
	FateThawed:    "thawed",
	FateLost:      "lost",
	FateOwnerless: "ownerless",
}

// String names the fate.
func (f Fate) String() string {
	if int(f) < len(fateTexts) && fateTexts[f] != "" {
		return fateTexts[f]
	}
	return fmt.Sprintf("fate %d", uint8(f))
}

// Repairable reports whether a repair is granted for it: never, unless the operator
// accepts that writes which were acknowledged may be lost.
func (f Fate) Repairable(lossAccepted bool) bool {
	return lossAccepted && (f == FateThawed || f == FateLost)
}

// A Case is all that is known of one shard: who may create its first token, the
// last repair, and the answers of every group of the config.
type Case struct {
	Shard   shardcfg.ShardID
	Claimer shardcfg.Incarnation // zero: nobody
	Last    Repair
	Answers []Answer
}

// Judge decides the fate of a shard, and who the repair concerns: the group that
// holds the frozen copy, or that shall create the shard; else the group that has
// it, or will. c is the latest config; every group that it lists and binds was
// asked after it had adopted c.
//
// Why this suffices though groups answer at different times: no group of c takes
// anything from a group that c retires, epochs never fall, and tombstones stay. So
// a token that slips from a group that has not answered to one that has leaves a
// tombstone, which names the latter at an epoch above its answer. A group that c
// does not list, and that is not retired, was drained: it made the token that it
// was to make, and passed it on, with proof (handoff.md, INV-8).
func Judge(c *shardcfg.Config, k Case) (Fate, shardcfg.Incarnation) {
	if k.Claimer.IsZero() {
		return FateUncreated, shardcfg.Incarnation{}
	}
	newest := k.newest()
	if newest.Holding == HoldsToken {
		return FateServed, newest.Group
	}
	if maker, pending := k.pending(c, newest); pending && k.Last.Gen == 0 {
		return FateUncreated, maker
	} else if pending {
		return FateGranted, maker
	}
	_, lives := c.GroupOf(newest.To)
	switch {
	case newest.Holding == HoldsFrozen && c.IsRetired(newest.To) && newest.Epoch.Gen >= k.Last.Gen:
		return FateThawed, newest.Group
	case newest.Holding == HoldsFrozen && lives, lives && epochOf(k.Answers, newest.To).Less(newest.Epoch):
		return FateMoving, newest.To
	}
	// Also if a copy is still frozen: for a group that was drained, and so passed on
	// what it made of it; or from before a repair whose group was destroyed.
	_, owner := c.Owner(k.Shard)
	if owner.IsZero() {
		return FateOwnerless, owner
	}
	return FateLost, owner
}

// newest returns the answer that shows the newest state of the shard; zero if
// there is none.
func (k *Case) newest() (newest Answer) {
	for _, a := range k.Answers {
		if order := a.Epoch.Compare(newest.Epoch); order > 0 || order == 0 && a.Holding > newest.Holding {
			newest = a
		}
	}
	return newest
}

// epochOf returns what a group showed; zero if it never met the shard.
func epochOf(answers []Answer, group shardcfg.Incarnation) shardcfg.Epoch {
	for _, a := range answers {
		if a.Group == group {
			return a.Epoch
		}
	}
	return shardcfg.Epoch{}
}

// pending returns who was last allowed to make a token, and whether it has not
// made it and still may.
func (k *Case) pending(c *shardcfg.Config, newest Answer) (maker shardcfg.Incarnation, pending bool) {
	maker = k.Claimer
	if k.Last.Gen != 0 {
		maker = k.Last.Group
	}
	_, lives := c.GroupOf(maker)
	made := !newest.Epoch.IsZero() && newest.Epoch.Gen >= k.Last.Gen
	// The grant of a thaw is void once the copy is not there any more.
	void := !k.Last.Frozen.IsZero() && (newest.Group != maker || newest.Holding != HoldsFrozen || newest.Epoch != k.Last.Frozen)
	return maker, lives && !made && !void
}
