package shardcfg

import (
	"cmp"
	"fmt"
	"slices"
)

// Assign returns the owners that c's shards should have, given its members,
// their weights, its pins and the present owners, from which as few shards as
// possible move away. It is a pure function, the same on every replica, and
// changes nothing.
//
// A pinned shard goes to its group and counts as load there. The other shards
// are spread so that, with W the members' total weight, a member of weight w
// has its proportional share of all shards, w/W, rounded down or up: with equal
// weights the largest and the smallest load differ by at most one. A member
// whose pins alone exceed its share gets nothing else, and the rest is shared
// among the others in the same way. Among the loads that this allows, the one
// is taken that moves the fewest shards; what remains open is settled by gid and
// shard id.
//
// With no members no shard has an owner.
//
// Every pin must name a member.
func Assign(c *Config) []GroupID {
	owners := make([]GroupID, len(c.Shards))
	loads, index := memberLoads(c)
	if len(loads) == 0 {
		return owners
	}
	own := make([][]ShardID, len(loads)) // the unpinned shards of each member
	var free []ShardID                   // those of nobody who may keep them
	for s, owner := range c.Shards {
		if pin, pinned := c.Pins[ShardID(s)]; pinned {
			owners[s] = pin.Group
			continue
		}
		i, member := index[owner]
		if !member {
			free = append(free, ShardID(s))
			continue
		}
		own[i] = append(own[i], ShardID(s))
	}
	for i := range loads {
		loads[i].current = len(own[i])
	}
	shareOut(loads, len(c.Shards))

	for i, l := range loads {
		if excess := len(own[i]) - l.target; excess > 0 {
			free = append(free, own[i][l.target:]...)
			own[i] = own[i][:l.target]
		}
		for _, s := range own[i] {
			owners[s] = l.gid
		}
	}
	// In ascending order, so that neighbours travel together and runs are long.
	slices.Sort(free)
	for i, l := range loads {
		lack := l.target - len(own[i])
		for _, s := range free[:lack] {
			owners[s] = l.gid
		}
		free = free[lack:]
	}
	return owners
}

// Check returns an error that names the first thing in c that no configuration
// made by the controllers may hold: an owner or a pin that is not a member, a
// pinned shard that is elsewhere, an incarnation listed twice or retired, a
// leaving group without one.
func (c *Config) Check() error {
	if err := CheckShardCount(len(c.Shards)); err != nil {
		return err
	}
	for s, owner := range c.Shards {
		if owner != 0 && c.Groups[owner].State != GroupMember {
			return fmt.Errorf("config %d: shard %d is owned by group %d, which is %v", c.Num, s, owner, c.Groups[owner].State)
		}
	}
	for _, s := range c.PinnedShards() {
		if c.Pins[s].MaxPauseMS > PauseMSMax {
			return fmt.Errorf("config %d: the pause of shard %d is %d ms", c.Num, s, c.Pins[s].MaxPauseMS)
		}
		if int(s) >= len(c.Shards) || c.Shards[s] != c.Pins[s].Group || c.Pins[s].Group == 0 {
			return fmt.Errorf("config %d: shard %d is pinned to group %d, and not owned by it", c.Num, s, c.Pins[s].Group)
		}
	}
	seen := make(map[Incarnation]GroupID, len(c.Groups))
	for _, gid := range c.GroupIDs() {
		g := c.Groups[gid]
		switch {
		case g.Incarnation.IsZero() && g.State == GroupLeaving:
			return fmt.Errorf("config %d: group %d leaves, and was never bound", c.Num, gid)
		case g.Incarnation.IsZero():
			continue
		case c.IsRetired(g.Incarnation):
			return fmt.Errorf("config %d: group %d is bound to the retired %v", c.Num, gid, g.Incarnation)
		case seen[g.Incarnation] != 0:
			return fmt.Errorf("config %d: groups %d and %d are both %v", c.Num, seen[g.Incarnation], gid, g.Incarnation)
		}
		seen[g.Incarnation] = gid
	}
	return nil
}

// load is one member's part in a distribution.
type load struct {
	gid     GroupID
	weight  uint64
	pinned  int // pinned shards
	current int // unpinned shards that it owns now
	target  int // unpinned shards that it shall own
	// rest is the remainder of its share, in units of 1/(total weight) shard.
	rest uint64
}

// memberLoads returns the members in ascending order of gid, and where each
// stands in the list.
func memberLoads(c *Config) ([]load, map[GroupID]int) {
	var loads []load
	index := make(map[GroupID]int, len(c.Groups))
	for _, gid := range c.GroupIDs() {
		if g := c.Groups[gid]; g.State == GroupMember {
			index[gid] = len(loads)
			loads = append(loads, load{gid: gid, weight: uint64(max(g.Weight, 1))})
		}
	}
	for _, s := range c.PinnedShards() {
		i, member := index[c.Pins[s].Group]
		if !member {
			panic(fmt.Sprintf("shardcfg: shard %d is pinned to group %d, which is not a member of config %d", s, c.Pins[s].Group, c.Num))
		}
		loads[i].pinned++
	}
	return loads, index
}

// shareOut sets the targets for shardCount shards, pinned ones included.
func shareOut(loads []load, shardCount int) {
	// Members whose pins exceed their share drop out, which lowers the share of
	// the others; so again until none does.
	open := make([]*load, len(loads))
	for i := range loads {
		open[i] = &loads[i]
	}
	shards, weights := uint64(shardCount), uint64(0)
	for dropped := true; dropped; {
		weights = 0
		for _, l := range open {
			weights += l.weight
		}
		all := len(open)
		over := func(l *load) bool { return uint64(l.pinned)*weights > shards*l.weight }
		var fixed uint64
		for _, l := range open {
			if over(l) {
				fixed += uint64(l.pinned)
			}
		}
		open = slices.DeleteFunc(open, over)
		shards -= fixed
		dropped = len(open) < all
	}
	left := shards
	for _, l := range open {
		share := shards * l.weight / weights
		l.rest = shards * l.weight % weights
		l.target = int(share) - l.pinned
		left -= share
	}
	// The shards lost to rounding go one each to members with a remainder: first
	// to those that would otherwise give a shard away.
	open = slices.DeleteFunc(open, func(l *load) bool { return l.rest == 0 })
	slices.SortStableFunc(open, func(a, b *load) int {
		return cmp.Or(
			-cmp.Compare(boolInt(a.current > a.target), boolInt(b.current > b.target)),
			-cmp.Compare(a.rest, b.rest),
			cmp.Compare(a.gid, b.gid))
	})
	for _, l := range open[:left] {
		l.target++
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
