package route

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Table is what a client knows of the cluster: the newest config, which group
// holds each shard, as far as anyone told, and where the groups are. The zero
// Table knows nothing.
type Table struct {
	shardCount int
	config     *shardcfg.Config
	places     []place // by shard
	// groups in ascending order of (gid, incarnation); several incarnations of a
	// gid may be known at once.
	groups []*group
	// suspects are addresses whose last attempt got no answer. Never iterated.
	suspects map[string]bool
	// newest is the newest config number that any server mentioned.
	newest shardcfg.ConfigNum
	// learned counts what was learned about placement.
	learned uint64
	// refreshes counts the attempts to learn a newer placement that have ended.
	refreshes uint64
	homeless  scouts // of the shards without any group
}

// scoutsMax is how many groups may be asked between two refreshes, without a
// reason, for shards that one group seems to have.
const scoutsMax = 4

// A scouts counts groups that were asked without a reason.
type scouts struct {
	refresh uint64 // since this one
	sent    int
}

// A place says which group has, or is about to have, a shard.
type place struct {
	epoch shardcfg.Epoch // zero: nobody told
	group *group         // nil: not known
	// owner should have it, by the config; nil: none.
	owner *group
	// scouted counts the groups that were asked for it without a reason, in turn.
	scouted uint32
}

// A group is a replica group that was heard of.
type group struct {
	gid         shardcfg.GroupID // 0: not known
	incarnation shardcfg.Incarnation
	replicas    []string
	leader      string // empty: not known
	turn        int    // of the next replica to try where no leader is known
	scouts      scouts // for its shards
}

// A Hint says who holds a shard. GID or Incarnation may be zero: not known.
type Hint struct {
	Shard       shardcfg.ShardID
	Epoch       shardcfg.Epoch
	GID         shardcfg.GroupID
	Incarnation shardcfg.Incarnation
	Replicas    []string
}

// ShardCount returns the cluster's shard count; 0: not known yet.
func (t *Table) ShardCount() int { return t.shardCount }

// Config returns the newest config learned; nil: none. It is not to be changed.
func (t *Table) Config() *shardcfg.Config { return t.config }

// Learned counts what was learned about placement: a change means that a blind
// operation may try again.
func (t *Table) Learned() uint64 { return t.learned }

// Refreshed tells that an attempt to learn a newer placement has ended, whatever it
// brought. What was learned is told before.
func (t *Table) Refreshed() { t.refreshes++ }

// Stale reports whether a server mentioned a newer config than the table has.
func (t *Table) Stale() bool {
	return t.config == nil && t.newest > 0 || t.config != nil && t.newest > t.config.Num
}

// LearnShardCount tells the cluster's shard count, which never changes; another
// one than the known, or an impossible one, is ignored and reported as false.
func (t *Table) LearnShardCount(n int) bool {
	if t.shardCount != 0 || shardcfg.CheckShardCount(n) != nil {
		return n == t.shardCount
	}
	t.shardCount = n
	t.places = make([]place, n)
	t.learned++
	return true
}

// LearnConfig tells a config, which the table keeps and never changes. An older
// one than the known, or one of another shard count, is ignored. What was known
// of groups that it does not list any more is kept only for shards that no one
// else is known to hold: they may still hold them.
func (t *Table) LearnConfig(c *shardcfg.Config) {
	if len(c.Shards) == 0 || !t.LearnShardCount(len(c.Shards)) || t.config != nil && c.Num < t.config.Num {
		return
	}
	if t.config == nil || t.config.Num < c.Num {
		t.learned++
	}
	t.config = c
	t.heard(c.Num)
	listed := make(map[shardcfg.GroupID]*group, len(c.Groups))
	for _, gid := range c.GroupIDs() {
		listed[gid] = t.learnGroup(gid, c.Groups[gid].Incarnation, c.Groups[gid].Replicas)
	}
	for s := range t.places {
		p := &t.places[s]
		p.owner = listed[c.Shards[s]]
		if p.group != nil && c.IsRetired(p.group.incarnation) {
			p.group = nil
		}
	}
	t.sweep()
}

// sweep forgets groups that neither the config lists nor any shard needs, and what
// was suspected of addresses that are no one's.
func (t *Table) sweep() {
	defer t.sweepSuspects()
	needed := make(map[*group]bool, len(t.groups))
	for s := range t.places {
		if g := t.places[s].group; g != nil {
			needed[g] = true
		}
	}
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool {
		if needed[g] {
			return false
		}
		listed, ok := t.config.Groups[g.gid]
		return !ok || g.incarnation != listed.Incarnation && !listed.Incarnation.IsZero()
	})
}

func (t *Table) sweepSuspects() {
	if len(t.suspects) == 0 {
		return
	}
	kept := map[string]bool{}
	for _, g := range t.groups {
		for _, addr := range append(slices.Clone(g.replicas), g.leader) {
			if t.suspects[addr] {
				kept[addr] = true
			}
		}
	}
	t.suspects = kept
}

// LearnHint tells who holds a shard. A hint of an older epoch than the known one
// is ignored, and one that names no group that could be found, or one that was
// destroyed.
func (t *Table) LearnHint(h Hint) {
	if int(h.Shard) >= len(t.places) {
		return
	}
	p := &t.places[h.Shard]
	if h.Epoch.Less(p.epoch) || t.config != nil && t.config.IsRetired(h.Incarnation) {
		return
	}
	g := t.learnGroup(h.GID, h.Incarnation, h.Replicas)
	if g == nil || g == p.group && h.Epoch == p.epoch {
		return
	}
	p.group, p.epoch = g, h.Epoch
	t.learned++
}

// LearnReplica tells what a replica said of its group: who it is, where its
// replicas are, and who leads.
func (t *Table) LearnReplica(gid shardcfg.GroupID, inc shardcfg.Incarnation, replicas []string, leader string) {
	if g := t.learnGroup(gid, inc, replicas); g != nil && leader != "" {
		if g.leader != leader {
			t.learned++
		}
		g.leader = leader
	}
}

// Target returns the group that the next operation on a shard would be sent to
// first; ok is false where none is known.
func (t *Table) Target(shard shardcfg.ShardID) (gid shardcfg.GroupID, inc shardcfg.Incarnation, leader string, epoch shardcfg.Epoch, ok bool) {
	if int(shard) >= len(t.places) {
		return
	}
	p := t.places[shard]
	g := cmp.Or(p.group, p.owner)
	if g == nil {
		return
	}
	return g.gid, g.incarnation, g.leader, p.epoch, true
}

// Home returns an operation's shard and the group that should serve it, as far as
// the table knows; a group without replicas: none is known. The shard count must
// be known.
func (t *Table) Home(op *Op) (shardcfg.ShardID, GroupAddresses) {
	shard := op.slot.ShardOf(t.shardCount)
	g := cmp.Or(t.places[shard].group, t.places[shard].owner)
	if g == nil {
		return shard, GroupAddresses{}
	}
	return shard, GroupAddresses{g.gid, g.incarnation, g.leader, slices.Clone(g.replicas)}
}

// Ward returns the name of the group that should serve an operation, as far as the
// table knows; zero: none is known.
func (t *Table) Ward(op *Op) Ward {
	if t.shardCount == 0 {
		return Ward{}
	}
	return t.WardOf(op.slot.ShardOf(t.shardCount))
}

// WardOf returns the name of the group that should serve a shard, which exists, as
// far as the table knows; zero: none is known.
func (t *Table) WardOf(shard shardcfg.ShardID) Ward {
	p := &t.places[shard]
	return cmp.Or(p.group, p.owner).ward()
}

func (g *group) ward() Ward {
	if g == nil {
		return Ward{}
	}
	return Ward{g.gid, g.incarnation}
}

// A Ward names a group whose operations are bounded together, apart from those of
// the others.
type Ward struct {
	GID         shardcfg.GroupID
	Incarnation shardcfg.Incarnation
}

// A GroupAddresses is a group with its addresses.
type GroupAddresses struct {
	GID         shardcfg.GroupID
	Incarnation shardcfg.Incarnation
	Leader      string
	Replicas    []string
}

// Groups returns the groups that are known, in ascending order of gid.
func (t *Table) Groups() []GroupAddresses {
	out := make([]GroupAddresses, 0, len(t.groups))
	for _, g := range t.groups {
		out = append(out, GroupAddresses{g.gid, g.incarnation, g.leader, slices.Clone(g.replicas)})
	}
	return out
}

// learnGroup returns the group of that name, made or brought up to date; nil
// if there is no address for it. A zero gid or incarnation matches any.
func (t *Table) learnGroup(gid shardcfg.GroupID, inc shardcfg.Incarnation, replicas []string) *group {
	g := t.find(gid, inc)
	if g == nil {
		if len(replicas) == 0 || gid == 0 && inc.IsZero() {
			return nil
		}
		g = &group{}
		t.groups = append(t.groups, g)
	}
	if g.gid == 0 && gid != 0 || g.incarnation.IsZero() && !inc.IsZero() {
		g.gid = cmp.Or(g.gid, gid)
		if g.incarnation.IsZero() {
			g.incarnation = inc
		}
		slices.SortStableFunc(t.groups, func(a, b *group) int {
			return cmp.Or(cmp.Compare(a.gid, b.gid), bytes.Compare(a.incarnation[:], b.incarnation[:]))
		})
	}
	if len(replicas) > 0 && !slices.Equal(replicas, g.replicas) {
		g.replicas, g.turn = slices.Clone(replicas), 0
		t.learned++
		if !slices.Contains(g.replicas, g.leader) {
			g.leader = ""
		}
	}
	return g
}

func (t *Table) find(gid shardcfg.GroupID, inc shardcfg.Incarnation) *group {
	var unbound *group
	for _, g := range t.groups {
		switch {
		case !inc.IsZero() && g.incarnation == inc:
			return g
		case gid != 0 && g.gid == gid && (inc.IsZero() || g.incarnation.IsZero()):
			unbound = g
		}
	}
	return unbound
}

// served notes that a group executed an operation: it holds the shard, or did a
// moment ago; a newer epoch will say so.
func (t *Table) served(op *Op) {
	if op.group == nil {
		return
	}
	if p := &t.places[op.slot.ShardOf(t.shardCount)]; p.group != op.group {
		p.group = op.group
	}
	op.group.leader = op.addr
}

// leads notes what a replica that does not lead said of who does.
func (t *Table) leads(g *group, addr, leader string) {
	switch {
	case g == nil:
	case leader != "" && leader != addr:
		g.leader = leader
	case g.leader == addr:
		g.leader = ""
	}
}

// heard notes a config number that a server mentioned.
func (t *Table) heard(num shardcfg.ConfigNum) { t.newest = max(t.newest, num) }

// Suspect notes that an address fell silent, or does not accept connections: it
// is tried last until it answers.
func (t *Table) Suspect(addr string) {
	if t.suspects == nil {
		t.suspects = map[string]bool{}
	}
	t.suspects[addr] = true
}

func (t *Table) trust(addr string) {
	if len(t.suspects) > 0 {
		delete(t.suspects, addr)
	}
}
