package shardcfg

import (
	"maps"
	"slices"
)

// GroupState is a group's standing in a configuration.
type GroupState uint8

const (
	// GroupMember takes shards.
	GroupMember GroupState = iota + 1
	// GroupLeaving is given no shards, but stays listed with its addresses until
	// it reports itself drained; then it is gone from the configuration.
	GroupLeaving
)

// String is the state's name on the command line.
func (s GroupState) String() string {
	switch s {
	case GroupMember:
		return "member"
	case GroupLeaving:
		return "leaving"
	}
	return "gone"
}

// A Group is one replica group as a configuration lists it.
type Group struct {
	// Incarnation is zero until the group was bound, at first contact.
	Incarnation Incarnation
	// Replicas are the addresses (host:port) of its replicas.
	Replicas []string
	// Weight is its share of the shards relative to other groups; at least 1.
	Weight uint32
	State  GroupState
}

// A Pin says where a shard was placed by hand.
type Pin struct {
	Group GroupID
	// MaxPauseMS is for how long the shard may be frozen on its way there, in ms,
	// by estimate; 0: as long as its holder allows every shard.
	MaxPauseMS uint32
}

// A Config is one numbered configuration: where every shard should be. Once
// published it is never changed; all its readers may share it.
type Config struct {
	Num ConfigNum
	// Shards is the owner of each shard, by shard id; its length is the shard
	// count. 0 means no owner: whoever holds the shard keeps serving it.
	Shards []GroupID
	// Groups are the members and the leaving groups.
	Groups map[GroupID]Group
	// Pins are shards placed by hand. A pinned shard stays at its group until
	// it is unpinned or the group leaves.
	Pins map[ShardID]Pin
	// Retired are the incarnations that an operator declared destroyed, in
	// ascending order.
	Retired []Incarnation
}

// Clone returns a deep copy, free to be changed.
func (c *Config) Clone() *Config {
	n := *c
	n.Shards = slices.Clone(c.Shards)
	n.Groups = make(map[GroupID]Group, len(c.Groups))
	for gid, g := range c.Groups {
		g.Replicas = slices.Clone(g.Replicas)
		n.Groups[gid] = g
	}
	n.Pins = maps.Clone(c.Pins)
	if n.Pins == nil {
		n.Pins = map[ShardID]Pin{}
	}
	n.Retired = slices.Clone(c.Retired)
	return &n
}

// GroupIDs returns the listed groups in ascending order.
func (c *Config) GroupIDs() []GroupID { return slices.Sorted(maps.Keys(c.Groups)) }

// Owner returns the group that should hold shard s: its gid (0: none) and its
// incarnation (zero: none, or not bound yet).
func (c *Config) Owner(s ShardID) (GroupID, Incarnation) {
	if int(s) >= len(c.Shards) {
		return 0, Incarnation{}
	}
	gid := c.Shards[s]
	return gid, c.Groups[gid].Incarnation
}

// GroupOf returns the gid that is bound to an incarnation, and whether there is
// one.
func (c *Config) GroupOf(inc Incarnation) (GroupID, bool) {
	if inc.IsZero() {
		return 0, false
	}
	for gid, g := range c.Groups { // one at most, see Check
		if g.Incarnation == inc {
			return gid, true
		}
	}
	return 0, false
}

// IsRetired reports whether an incarnation was declared destroyed.
func (c *Config) IsRetired(inc Incarnation) bool {
	_, found := slices.BinarySearchFunc(c.Retired, inc, func(a, b Incarnation) int {
		return slices.Compare(a[:], b[:])
	})
	return found
}

// GroupsBytes is about what the groups take in an encoding of c; it is never less.
func (c *Config) GroupsBytes() int {
	n := 0
	for _, g := range c.Groups {
		n += groupOverheadBytes
		for _, a := range g.Replicas {
			n += addressOverheadBytes + len(a)
		}
	}
	return n
}

// groupOverheadBytes and addressOverheadBytes are at least what the encoding adds.
const (
	groupOverheadBytes   = 10 + 1 + 1 + 16 + 3 + 1
	addressOverheadBytes = 2
)
