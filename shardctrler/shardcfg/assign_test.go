package shardcfg

import (
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// genConfig draws a config small enough for exhaustive search.
func genConfig(t *rapid.T) *Config {
	c := &Config{
		Num:    ConfigNum(rapid.Uint64Range(0, 9).Draw(t, "num")),
		Groups: map[GroupID]Group{},
		Pins:   map[ShardID]Pin{},
		Shards: make([]GroupID, 1<<rapid.IntRange(0, 4).Draw(t, "log2 shards")),
	}
	var members []GroupID
	for gid := range GroupID(rapid.IntRange(0, 5).Draw(t, "groups")) {
		gid++
		g := Group{State: GroupMember, Weight: 1, Replicas: []string{"h:1"}}
		if rapid.Bool().Draw(t, "weighted") {
			g.Weight = uint32(rapid.IntRange(1, 5).Draw(t, "weight"))
		}
		if rapid.IntRange(0, 4).Draw(t, "leaving") == 0 {
			g.State = GroupLeaving
			g.Incarnation[0] = byte(gid)
		} else {
			members = append(members, gid)
		}
		c.Groups[gid] = g
	}
	for s := range c.Shards {
		c.Shards[s] = GroupID(rapid.IntRange(0, 6).Draw(t, "owner"))
		if len(members) > 0 && rapid.IntRange(0, 3).Draw(t, "pinned") == 0 {
			c.Pins[ShardID(s)] = Pin{Group: rapid.SampledFrom(members).Draw(t, "pin")}
		}
	}
	return c
}

// loadsAllowed says whether these loads are balanced, straight from the
// definition: there is a level x (shards per unit of weight) such that every
// member is within one shard of x times its weight, or above it by pins alone.
// All levels that matter are tried: the exact one is where the sum of the
// members' max(pins, x w) is the number of shards.
func loadsAllowed(level *big.Rat, weight, pinned, load int) bool {
	share := new(big.Rat).Mul(level, big.NewRat(int64(weight), 1))
	if share.Cmp(big.NewRat(int64(pinned), 1)) <= 0 {
		return load == pinned
	}
	diff := new(big.Rat).Sub(share, big.NewRat(int64(load), 1))
	return diff.Abs(diff).Cmp(big.NewRat(1, 1)) < 0
}

// levelOf finds the exact level by trying every set of members as the ones
// whose pins exceed their share.
func levelOf(t *rapid.T, weights, pins []int, shards int) *big.Rat {
	for set := range 1 << len(weights) {
		left, sum := shards, 0
		for i := range weights {
			if set&(1<<i) != 0 {
				left -= pins[i]
			} else {
				sum += weights[i]
			}
		}
		if sum == 0 || left < 0 {
			continue
		}
		level, consistent := big.NewRat(int64(left), int64(sum)), true
		for i, w := range weights {
			share := new(big.Rat).Mul(level, big.NewRat(int64(w), 1))
			over := share.Cmp(big.NewRat(int64(pins[i]), 1)) < 0
			consistent = consistent && over == (set&(1<<i) != 0)
		}
		if consistent {
			return level
		}
	}
	t.Fatalf("no level for weights %v, pins %v, %d shards", weights, pins, shards)
	return nil
}

// fewestMoves searches all balanced load vectors for the least number of
// unpinned shards that must change owner.
func fewestMoves(allowed func(i, load int) bool, pins, current []int, unowned, shards int) int {
	best := shards + 1
	var try func(i, left, moves int)
	try = func(i, left, moves int) {
		if i == len(pins) {
			if left == 0 {
				best = min(best, moves)
			}
			return
		}
		for load := pins[i]; load <= pins[i]+left; load++ {
			if allowed(i, load) {
				try(i+1, left-(load-pins[i]), moves+max(0, current[i]-(load-pins[i])))
			}
		}
	}
	total := 0
	for _, p := range pins {
		total += p
	}
	try(0, shards-total, unowned)
	return best
}

func TestAssignIsBalancedAndMovesTheFewestShards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genConfig(t)
		before := AppendConfig(nil, c)
		got := Assign(c)
		if !slices.Equal(AppendConfig(nil, c), before) {
			t.Fatal("Assign changed its argument")
		}
		var gids []GroupID
		var weights, pins, current, loads []int
		for _, gid := range c.GroupIDs() {
			if c.Groups[gid].State != GroupMember {
				continue
			}
			var pin, cur, load int
			for s := range c.Shards {
				p, pinned := c.Pins[ShardID(s)]
				pin += boolInt(pinned && p.Group == gid)
				cur += boolInt(!pinned && c.Shards[s] == gid)
				load += boolInt(got[s] == gid)
			}
			gids = append(gids, gid)
			weights, pins = append(weights, int(c.Groups[gid].Weight)), append(pins, pin)
			current, loads = append(current, cur), append(loads, load)
		}
		if len(gids) == 0 {
			if moved(got, make([]GroupID, len(got))) != 0 {
				t.Fatalf("no members, and owners %v", got)
			}
			return
		}
		level := levelOf(t, weights, pins, len(c.Shards))
		allowed := func(i, load int) bool { return loadsAllowed(level, weights[i], pins[i], load) }
		moved, unowned := 0, 0
		for s, owner := range got {
			pin, pinned := c.Pins[ShardID(s)]
			switch {
			case pinned && owner != pin.Group:
				t.Fatalf("shard %d is pinned to %d and given to %d", s, pin.Group, owner)
			case !slices.Contains(gids, owner):
				t.Fatalf("shard %d is given to %d, not a member", s, owner)
			case !pinned:
				moved += boolInt(owner != c.Shards[s])
				unowned += boolInt(!slices.Contains(gids, c.Shards[s]))
			}
		}
		for i := range gids {
			if !allowed(i, loads[i]) {
				t.Fatalf("loads %v, weights %v, pins %v are not balanced around %v per weight", loads, weights, pins, level)
			}
		}
		if want := fewestMoves(allowed, pins, current, unowned, len(c.Shards)); moved != want {
			t.Fatalf("moved %d unpinned shards, %d would do (from %v to %v)", moved, want, c.Shards, got)
		}
		c.Shards = got
		if again := Assign(c); !slices.Equal(again, got) {
			t.Fatalf("assigning again moves shards: %v to %v", got, again)
		}
	})
}

func TestEqualWeightsDifferByAtMostOneCountingPins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genConfig(t)
		for gid, g := range c.Groups {
			g.Weight = 3
			c.Groups[gid] = g
		}
		load, unpinned := map[GroupID]int{}, map[GroupID]int{}
		for s, owner := range Assign(c) {
			load[owner]++
			if _, pinned := c.Pins[ShardID(s)]; !pinned {
				unpinned[owner]++
			}
		}
		for _, a := range c.GroupIDs() {
			for _, b := range c.GroupIDs() {
				if c.Groups[b].State == GroupMember && unpinned[a] > 0 && load[a] > load[b]+1 {
					t.Fatalf("group %d has %d shards (%d unpinned) and group %d has %d", a, load[a], unpinned[a], b, load[b])
				}
			}
		}
	})
}

func TestJoinMovesOnlyToTheNewcomerAndLeaveOnlyFromTheLeaver(t *testing.T) {
	c := &Config{Shards: make([]GroupID, 64), Groups: map[GroupID]Group{}}
	for gid := GroupID(1); gid <= 5; gid++ {
		c.Groups[gid] = Group{State: GroupMember, Weight: 1}
		next := Assign(c)
		for s := range next {
			if next[s] != c.Shards[s] && next[s] != gid {
				t.Fatalf("join of %d moves shard %d from %d to %d", gid, s, c.Shards[s], next[s])
			}
		}
		if n := moved(c.Shards, next); gid > 1 && n != 64/int(gid) {
			t.Fatalf("join of %d moves %d shards, want %d", gid, n, 64/int(gid))
		}
		c.Shards = next
	}
	for gid := GroupID(1); gid < 5; gid++ {
		delete(c.Groups, gid)
		next := Assign(c)
		for s := range next {
			if (next[s] != c.Shards[s]) != (c.Shards[s] == gid) {
				t.Fatalf("leave of %d moves shard %d from %d to %d", gid, s, c.Shards[s], next[s])
			}
		}
		c.Shards = next
	}
}

func BenchmarkAssignThousandGroups(b *testing.B) {
	c := &Config{Shards: make([]GroupID, ShardCountMax), Groups: map[GroupID]Group{}}
	for gid := GroupID(1); gid <= 1000; gid++ {
		c.Groups[gid] = Group{State: GroupMember, Weight: uint32(gid%7 + 1)}
	}
	c.Shards = Assign(c)
	delete(c.Groups, 500)
	b.ReportAllocs()
	for b.Loop() {
		Assign(c)
	}
}

// moved counts the shards whose owner differs between two assignments of the
// same length.
func moved(from, to []GroupID) int {
	n := 0
	for s := range from {
		if from[s] != to[s] {
			n++
		}
	}
	return n
}
