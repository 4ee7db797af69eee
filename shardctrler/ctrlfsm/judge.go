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
	// Gen is the new token's generation; no other repair ever has it. 0: there is
	// no repair.
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
	// FateThawed: its receiver was destroyed, and the frozen copy serves again.
	// What the receiver acknowledged, if it installed the shard, is lost.
	FateThawed
	// FateLost: the group that had the token was destroyed, and the data with it.
	// The shard begins anew, empty, if the operator accepts that.
	FateLost
	// FateOwnerless: as FateLost, but the config gives the shard to nobody who
	// could begin it anew.
	FateOwnerless
	// FateUnclear: the answers contradict each other; nothing is done.
	FateUnclear
)

var fateTexts = [...]string{
	FateUncreated: "uncreated",
	FateServed:    "served",
	FateMoving:    "moving",
	FateGranted:   "granted",
	FateThawed:    "thawed",
	FateLost:      "lost",
	FateOwnerless: "ownerless",
	FateUnclear:   "unclear",
}

// String names the fate.
func (f Fate) String() string {
	if int(f) < len(fateTexts) && fateTexts[f] != "" {
		return fateTexts[f]
	}
	return fmt.Sprintf("fate %d", uint8(f))
}

// Repairable reports whether a repair is granted for it; a lost shard only if
// the operator accepts the loss.
func (f Fate) Repairable(lossAccepted bool) bool {
	return f == FateThawed || f == FateLost && lossAccepted
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
// it. c is the latest config; every group that it lists and binds was asked after
// it had adopted c.
//
// Why this suffices though groups answer at different times: no group of c takes
// anything from a group that c retires, epochs never fall, and tombstones stay.
// So a token can't slip from a group that has not answered to one that has
// without leaving a greater epoch behind. A group that c does not list, and that
// is not retired, was drained: it passed on all that it had, with proof
// (handoff.md, INV-8).
func Judge(c *shardcfg.Config, k Case) (Fate, shardcfg.Incarnation) {
	if k.Claimer.IsZero() {
		return FateUncreated, shardcfg.Incarnation{}
	}
	var newest Answer
	for _, a := range k.Answers {
		if order := a.Epoch.Compare(newest.Epoch); order > 0 || order == 0 && a.Holding > newest.Holding {
			newest = a
		}
	}
	for _, a := range k.Answers {
		switch {
		case a.Holding == HoldsToken && a.Group != newest.Group:
			return FateUnclear, a.Group // an older token, beside a newer one
		case newest.Holding == HoldsNothing && a.Group == newest.To && a.Epoch.Less(newest.Epoch):
			return FateUnclear, a.Group // passed on to a group that knows nothing of it
		}
	}
	if newest.Holding == HoldsToken {
		return FateServed, newest.Group
	}
	// Who was last allowed to make a token, and has not made it.
	maker, gen := k.Claimer, uint32(0)
	if k.Last.Gen != 0 {
		maker, gen = k.Last.Group, k.Last.Gen
	}
	made := !newest.Epoch.IsZero() && newest.Epoch.Gen >= gen
	thaw := k.Last.Gen != 0 && !k.Last.Frozen.IsZero()
	stillFrozen := newest.Holding == HoldsFrozen && newest.Group == maker && newest.Epoch == k.Last.Frozen
	if !made && !c.IsRetired(maker) && (!thaw || stillFrozen) {
		if k.Last.Gen == 0 {
			return FateUncreated, maker
		}
		return FateGranted, maker
	}
	if newest.Holding == HoldsFrozen {
		if !c.IsRetired(newest.To) {
			return FateMoving, newest.To
		}
		return FateThawed, newest.Group
	}
	_, owner := c.Owner(k.Shard)
	if owner.IsZero() {
		return FateOwnerless, owner
	}
	return FateLost, owner
}
