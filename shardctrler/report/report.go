// Package report decides what the controllers make of the groups' reports: which
// command a report calls for, and what the answer says. Reports are the leader's
// memory; none of it is logged.
//
// Row 2 of the layers: it imports shardcfg and ctrlfsm. A Memory is for one
// goroutine, or under one lock; time comes in as an argument.
package report

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Report is what one group says of itself.
type Report struct {
	Group shardcfg.GroupID
	// Incarnation is the group's; zero: the asker only wants to know the config.
	Incarnation shardcfg.Incarnation
	// Leader is the address of its leader, Replicas those of its voters.
	Leader   string
	Replicas []string
	Adopted  shardcfg.ConfigNum
	// Holdings are the shards whose tokens it has, in ascending order, each once.
	Holdings []Holding
	// Drained says that it holds nothing and is meant to hold nothing.
	Drained bool
}

// A Holding is a shard whose token a group has.
type Holding struct {
	Shard       shardcfg.ShardID
	Epoch       shardcfg.Epoch
	Serving     bool // else it is frozen
	Keys, Bytes uint64
}

// Sort brings holdings into order. Of a shard that is named twice the first
// counts.
func Sort(list []Holding) []Holding {
	slices.SortStableFunc(list, func(a, b Holding) int { return int(a.Shard) - int(b.Shard) })
	return slices.CompactFunc(list, func(a, b Holding) bool { return a.Shard == b.Shard })
}

// Holding returns what the report says of a shard.
func (r *Report) Holding(s shardcfg.ShardID) (Holding, bool) {
	i, found := slices.BinarySearchFunc(r.Holdings, s, func(h Holding, s shardcfg.ShardID) int { return int(h.Shard) - int(s) })
	if !found {
		return Holding{}, false
	}
	return r.Holdings[i], true
}

// Due returns the command that a report calls for; nil: none. It refuses a group
// that is not the one its gid is bound to. latest is v's.
func Due(v ctrlfsm.View, latest *shardcfg.Config, r *Report) (ctrlfsm.Command, *ctrlfsm.Refusal, error) {
	if r.Incarnation.IsZero() {
		return nil, nil, nil
	}
	if latest.IsRetired(r.Incarnation) {
		return nil, &ctrlfsm.Refusal{Reason: ctrlfsm.IncarnationRetired, Message: r.Incarnation.String() + " was declared destroyed"}, nil
	}
	g, listed := latest.Groups[r.Group]
	if !listed {
		return nil, nil, nil
	}
	bind := ctrlfsm.Bind{Group: r.Group, Incarnation: r.Incarnation, Replicas: r.Replicas}
	if len(bind.Replicas) == 0 {
		bind.Replicas = g.Replicas
	}
	next, ref, err := ctrlfsm.Plan(v, bind)
	if ref != nil || err != nil {
		return nil, ref, err
	}
	left, err := v.LeftAt(r.Group)
	switch {
	case err != nil:
		return nil, nil, err
	case r.Drained && left != 0 && r.Adopted >= left:
		return ctrlfsm.Drained{Incarnation: r.Incarnation, Adopted: r.Adopted}, nil, nil
	case next != nil:
		return bind, nil, nil
	}
	return nil, nil, nil
}

// Open sorts out the claims of an incarnation by applied state: those that may be
// granted, and those that it has. What cannot be granted does not go into the log:
// a claim is for good, so an old state errs only on the side of asking.
func Open(v ctrlfsm.View, inc shardcfg.Incarnation, asked []shardcfg.ShardID) (open, claimed []shardcfg.ShardID, err error) {
	for _, s := range asked {
		by, err := v.ClaimedBy(s)
		switch {
		case err != nil:
			return nil, nil, err
		case by == inc:
			claimed = append(claimed, s)
		case by.IsZero():
			open = append(open, s)
		}
	}
	return open, claimed, nil
}

// An Answer is what a group is told.
type Answer struct {
	// Behind: this state is older than the group's config, and must tell it
	// nothing. Whoever has the config that the group adopted also has every claim
	// that was granted before it; from an older state a leaving group could conclude
	// that it has nothing left to create (INV-8).
	Behind bool
	Num    shardcfg.ConfigNum
	// Config is not nil if it is newer than the one that the group adopted.
	Config *shardcfg.Config
	// Hints are for everyone, and shared: never change them. More are for this group.
	Hints *Hints
	More  []Hint
	// Claimed are the shards that it claimed, as far as its report does not show
	// that it has created them.
	Claimed []shardcfg.ShardID
	// Repairs are those that it was granted, as far as its report does not show
	// that it has carried them out.
	Repairs []Grant
}

// A Grant is a repair that a group was granted.
type Grant struct {
	Shard shardcfg.ShardID
	ctrlfsm.Repair
}

// Answer takes in a report and answers it. v and its latest config are applied
// state, perhaps of a leader that was deposed and does not know it.
func (m *Memory) Answer(v ctrlfsm.View, latest *shardcfg.Config, r *Report, now time.Time) (a Answer, err error) {
	if latest.Num < r.Adopted {
		return Answer{Behind: true}, nil
	}
	a.Num = latest.Num
	if latest.Num > r.Adopted {
		a.Config = latest
	}
	if r.Incarnation.IsZero() {
		return a, nil
	}
	m.Take(r, now)
	a.Hints, a.More = m.Hints(latest), m.more(latest, r)
	if err := m.readClaims(v); err != nil {
		return Answer{}, err
	}
	for _, s := range m.claims[r.Incarnation] {
		if _, created := r.Holding(s); !created {
			a.Claimed = append(a.Claimed, s)
		}
	}
	for _, g := range m.repairs[r.Incarnation] {
		if h, _ := r.Holding(g.Shard); h.Epoch.Gen < g.Gen {
			a.Repairs = append(a.Repairs, g)
		}
	}
	return a, nil
}
