package shardcfg

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrDeltaMismatch is returned by Delta.Apply for a config that the delta does
// not start from.
var ErrDeltaMismatch = errors.New("delta does not start from this configuration")

// A Delta is what leads from one config to a later one; numbers between may be
// skipped.
type Delta struct {
	From, Num ConfigNum
	// ShardCount is that of both configs.
	ShardCount int
	// Shards are the owners that changed, in ascending order, none overlapping.
	Shards []ShardRun
	// Groups are new or changed; Gone are no longer listed. Both ascend.
	Groups []GroupChange
	Gone   []GroupID
	// Pins are new or changed (group 0: removed), in ascending order of shard.
	Pins []PinChange
	// Retired are newly retired, ascending.
	Retired []Incarnation
}

// A ShardRun says that Length shards from First on are owned by Owner.
type ShardRun struct {
	First  ShardID
	Length int
	Owner  GroupID
}

// A GroupChange is a group as it stands after a delta.
type GroupChange struct {
	ID    GroupID
	Group Group
}

// A PinChange is a shard's pin after a delta; group 0 means that it has none.
type PinChange struct {
	Shard ShardID
	Pin   Pin
}

// DeltaBetween returns the delta that leads from one config to another of the
// same cluster. It shares the address lists of to.
func DeltaBetween(from, to *Config) *Delta {
	d := &Delta{From: from.Num, Num: to.Num, ShardCount: len(to.Shards)}
	for s := 0; s < len(to.Shards); {
		if ownerAt(from, s) == to.Shards[s] {
			s++
			continue
		}
		run := ShardRun{First: ShardID(s), Owner: to.Shards[s]}
		for s < len(to.Shards) && to.Shards[s] == run.Owner && ownerAt(from, s) != run.Owner {
			run.Length++
			s++
		}
		d.Shards = append(d.Shards, run)
	}
	for _, gid := range to.GroupIDs() {
		if g := to.Groups[gid]; !g.Equal(from.Groups[gid]) {
			d.Groups = append(d.Groups, GroupChange{ID: gid, Group: g})
		}
	}
	for _, gid := range from.GroupIDs() {
		if _, listed := to.Groups[gid]; !listed {
			d.Gone = append(d.Gone, gid)
		}
	}
	d.Pins = pinChanges(from, to)
	for _, inc := range to.Retired {
		if !from.IsRetired(inc) {
			d.Retired = append(d.Retired, inc)
		}
	}
	return d
}

// Apply returns the config that d leads to from c, which is not changed. It
// returns ErrDeltaMismatch if c is not of number From and the same shard count,
// and an error wrapping ErrCorrupt if d names a shard out of range.
func (d *Delta) Apply(c *Config) (*Config, error) {
	if c.Num != d.From || len(c.Shards) != d.ShardCount {
		return nil, fmt.Errorf("%w: it leads from %d to %d (%d shards), and is applied to %d (%d shards)",
			ErrDeltaMismatch, d.From, d.Num, d.ShardCount, c.Num, len(c.Shards))
	}
	n := c.Clone()
	n.Num = d.Num
	for _, run := range d.Shards {
		if run.Length < 0 || run.Length > len(n.Shards)-int(run.First) {
			return nil, fmt.Errorf("%w: delta moves %d shards from %d on, of %d", ErrCorrupt, run.Length, run.First, len(n.Shards))
		}
		for i := range run.Length {
			n.Shards[int(run.First)+i] = run.Owner
		}
	}
	for _, gid := range d.Gone {
		delete(n.Groups, gid)
	}
	for _, g := range d.Groups {
		g.Group.Replicas = slices.Clone(g.Group.Replicas)
		n.Groups[g.ID] = g.Group
	}
	for _, p := range d.Pins {
		switch {
		case int(p.Shard) >= len(n.Shards):
			return nil, fmt.Errorf("%w: delta pins shard %d of %d", ErrCorrupt, p.Shard, len(n.Shards))
		case p.Pin.Group == 0:
			delete(n.Pins, p.Shard)
		default:
			n.Pins[p.Shard] = p.Pin
		}
	}
	n.Retired = append(n.Retired, d.Retired...)
	slices.SortFunc(n.Retired, Incarnation.Compare)
	n.Retired = slices.Compact(n.Retired)
	return n, nil
}

// PinnedShards returns the pinned shards in ascending order.
func (c *Config) PinnedShards() []ShardID { return slices.Sorted(maps.Keys(c.Pins)) }

// Equal reports whether two groups are listed alike.
func (g Group) Equal(o Group) bool {
	return g.Incarnation == o.Incarnation && g.Weight == o.Weight && g.State == o.State &&
		slices.Equal(g.Replicas, o.Replicas)
}

// Compare orders names as their bytes.
func (i Incarnation) Compare(o Incarnation) int { return bytes.Compare(i[:], o[:]) }

func ownerAt(c *Config, s int) GroupID {
	if s < len(c.Shards) {
		return c.Shards[s]
	}
	return 0
}

func pinChanges(from, to *Config) []PinChange {
	var out []PinChange
	for _, s := range to.PinnedShards() {
		if from.Pins[s] != to.Pins[s] {
			out = append(out, PinChange{Shard: s, Pin: to.Pins[s]})
		}
	}
	for _, s := range from.PinnedShards() {
		if _, pinned := to.Pins[s]; !pinned {
			out = append(out, PinChange{Shard: s})
		}
	}
	slices.SortFunc(out, func(a, b PinChange) int { return cmp.Compare(a.Shard, b.Shard) })
	return out
}
