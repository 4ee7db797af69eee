package handoff

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A Violation is an invariant that does not hold.
type Violation struct {
	// Invariant is its name: INV-1 Token, INV-2 NoLoss, INV-4 Monotone, INV-5
	// Live, INV-7 StagedFirst, INV-9 NoLeak, INV-10 Bounded.
	//
	// The others are not a matter of records alone: INV-3 FreshRead and the
	// contents of INV-2 are for whoever keeps a history of operations, INV-6
	// Digest is kvfsm.CheckContent, and INV-8 Drained is the function Drained.
	Invariant string
	Text      string
}

// String is "INV-n: what happened".
func (v Violation) String() string { return v.Invariant + ": " + v.Text }

// A GroupState is one group's newest committed state.
type GroupState struct {
	Self kvfsm.Peer
	View *View
}

// A Monitor checks the invariants over the states that a simulator shows it:
// of all groups, after every entry that any of them applied. It panics at
// nothing; it returns what it finds. Its memory grows with the history.
type Monitor struct {
	minted  map[token]shardcfg.Incarnation
	newest  map[shardcfg.ShardID]shardcfg.Epoch
	marks   map[place]kvfsm.Mark
	adopted map[shardcfg.Incarnation]shardcfg.ConfigNum
	staged  map[copied]bool
}

type (
	token struct {
		shard shardcfg.ShardID
		epoch shardcfg.Epoch
	}
	place struct {
		shard shardcfg.ShardID
		group shardcfg.Incarnation
	}
	copied struct {
		place
		mark kvfsm.Mark
	}
)

// NewMonitor returns a Monitor that has seen nothing.
func NewMonitor() *Monitor {
	return &Monitor{
		minted:  map[token]shardcfg.Incarnation{},
		newest:  map[shardcfg.ShardID]shardcfg.Epoch{},
		marks:   map[place]kvfsm.Mark{},
		adopted: map[shardcfg.Incarnation]shardcfg.ConfigNum{},
		staged:  map[copied]bool{},
	}
}

// Observe checks one state of all groups against the ones before it.
func (m *Monitor) Observe(groups []GroupState) []Violation {
	found := CheckInvariants(groups)
	for _, g := range groups {
		found = append(found, m.observeGroup(g)...)
	}
	return append(found, m.observeLoss(groups)...)
}

func (m *Monitor) observeGroup(g GroupState) (found []Violation) {
	id := g.Self.Incarnation
	if n := g.View.Adopted(); n < m.adopted[id] {
		found = append(found, violation("INV-4", "group %d fell from config %d to %d", g.Self.Group, m.adopted[id], n))
	} else {
		m.adopted[id] = n
	}
	for i := range g.View.Records {
		r := &g.View.Records[i]
		at := place{r.Shard, id}
		if r.Mark().Compare(m.marks[at]) < 0 {
			found = append(found, violation("INV-4", "group %d shard %d fell from %+v to %+v", g.Self.Group, r.Shard, m.marks[at], r.Mark()))
		}
		m.marks[at] = r.Mark()
		if r.Staging != nil && r.Staging.Cursor.Tail {
			m.staged[copied{at, r.Staging.Mark()}] = true
		}
		if r.Phase.Serves() {
			t := token{r.Shard, r.Epoch}
			if by, ok := m.minted[t]; ok && by != id {
				found = append(found, violation("INV-1", "shard %d epoch %v was minted by %v and by %v", r.Shard, r.Epoch, by, id))
			}
			m.minted[t] = id
			if m.newest[r.Shard].Less(r.Epoch) {
				m.newest[r.Shard] = r.Epoch
			}
		}
		if r.Phase == kvfsm.PhaseFrozen {
			want := copied{place{r.Shard, r.To.Incarnation}, kvfsm.Mark{Epoch: r.Epoch.Next(), Handoff: r.Handoff}}
			if !m.staged[want] {
				found = append(found, violation("INV-7", "shard %d froze at %+v towards group %d, which never had the whole copy", r.Shard, r.Mark(), r.To.Group))
			}
		}
	}
	return found
}

// observeLoss checks that the newest copy of each shard exists, unless the group
// that minted it is not among those shown: it was destroyed.
func (m *Monitor) observeLoss(groups []GroupState) (found []Violation) {
	for _, s := range slices.Sorted(maps.Keys(m.newest)) {
		e := m.newest[s]
		holder := m.minted[token{s, e}]
		for _, g := range groups {
			if g.Self.Incarnation != holder {
				continue
			}
			if r := g.View.Record(s); r.Epoch == e && r.Copy == 0 {
				found = append(found, violation("INV-2", "group %d deleted shard %d at %v before a successor existed", g.Self.Group, s, e))
			} else if e.Less(r.Epoch) {
				found = append(found, violation("INV-2", "group %d passed on shard %d at %v, which nobody installed", g.Self.Group, s, e))
			}
		}
	}
	return found
}

// CheckInvariants checks what one state of all groups shows: INV-1 and INV-10.
func CheckInvariants(groups []GroupState) (found []Violation) {
	serving := map[shardcfg.ShardID]kvfsm.Peer{}
	var newest shardcfg.ConfigNum
	for _, g := range groups {
		newest = max(newest, g.View.Adopted())
	}
	for _, g := range groups {
		for i := range g.View.Records {
			r := &g.View.Records[i]
			if r.Phase.Serves() {
				if other, ok := serving[r.Shard]; ok {
					found = append(found, violation("INV-1", "shard %d is served by groups %d and %d", r.Shard, other.Group, g.Self.Group))
				}
				serving[r.Shard] = g.Self
			}
			if r.Epoch.Gen == 0 && r.Epoch.Num > uint64(newest) {
				found = append(found, violation("INV-10", "shard %d has epoch %v after %d configs", r.Shard, r.Epoch, newest))
			}
		}
	}
	return found
}

// CheckRest checks a state in which nothing moves any more and every group
// lives: each shard is served by the owner that config names (INV-5), and
// nothing is left over (INV-9).
func CheckRest(groups []GroupState, config *shardcfg.Config) (found []Violation) {
	for _, g := range groups {
		for i := range g.View.Records {
			r := &g.View.Records[i]
			if r.Staging != nil {
				found = append(found, violation("INV-9", "group %d still stages shard %d", g.Self.Group, r.Shard))
			}
			if r.Phase == kvfsm.PhaseLeaving || r.Phase == kvfsm.PhaseFrozen {
				found = append(found, violation("INV-5", "group %d is %v of shard %d", g.Self.Group, r.Phase, r.Shard))
			}
		}
	}
	for i := range config.Shards {
		s := shardcfg.ShardID(i)
		_, owner := config.Owner(s)
		if owner.IsZero() {
			continue
		}
		served := false
		for _, g := range groups {
			served = served || g.Self.Incarnation == owner && g.View.Record(s).Phase == kvfsm.PhaseServing
		}
		if !served {
			found = append(found, violation("INV-5", "shard %d is not served by its owner, group %d", s, config.Shards[i]))
		}
	}
	return found
}

func violation(name, format string, args ...any) Violation {
	return Violation{Invariant: name, Text: fmt.Sprintf(format, args...)}
}
