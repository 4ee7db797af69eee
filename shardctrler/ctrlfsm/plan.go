package ctrlfsm

import (
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Plan returns the configuration that a command would make of the latest one,
// numbered one higher; nil if it would change nothing. It writes nothing, and
// is what Apply does too: a plan is never a second opinion. Claim and RepairShards
// change no configuration.
//
// A Move moves exactly its shard. The others are balanced again by the next
// change of membership, weight or pins that is not a Move.
func Plan(v View, c Command) (*shardcfg.Config, *Refusal, error) {
	latest, err := v.Latest()
	if err != nil {
		return nil, nil, err
	}
	return plan(v, latest, c)
}

// plan is Plan with the latest config at hand, which it leaves as it is.
func plan(v View, latest *shardcfg.Config, c Command) (next *shardcfg.Config, ref *Refusal, err error) {
	n := latest.Clone()
	switch c := c.(type) {
	case Join:
		ref, err = planJoin(v, n, c)
	case Leave:
		ref, err = planLeave(v, n, c)
	case Move:
		ref = planMove(n, c)
	case Unpin:
		ref = planUnpin(n, c)
	case Bind:
		ref, err = planBind(v, n, c)
	case Drained:
		ref, err = planDrained(v, n, c)
	case Retire:
		ref, err = planRetire(v, n, c)
	case Claim, RepairShards:
		return nil, nil, nil
	default:
		panic(fmt.Sprintf("ctrlfsm: no plan for a %T", c))
	}
	if err != nil || ref != nil || n.Equal(latest) {
		return nil, ref, err
	}
	n.Num++
	if err := n.Check(); err != nil {
		panic(fmt.Sprintf("ctrlfsm: a bad config came of %+v: %v", c, err))
	}
	return n, nil, nil
}

func planJoin(v View, c *shardcfg.Config, j Join) (*Refusal, error) {
	if len(j.Groups) == 0 {
		return refuse(BadRequest, "no group to join"), nil
	}
	seen := map[shardcfg.GroupID]bool{}
	changed := false
	for _, g := range j.Groups {
		if ref := checkJoinGroup(g); ref != nil {
			return ref, nil
		}
		if seen[g.ID] {
			return refuse(BadRequest, "group %d is named twice", g.ID), nil
		}
		seen[g.ID] = true
		ref, err := checkIdentity(v, c, g)
		if ref != nil || err != nil {
			return ref, err
		}
		old, listed := c.Groups[g.ID]
		now, ref := joined(old, listed, g)
		if ref != nil {
			return ref, nil
		}
		if ref := checkAddresses(c, g.ID, now.Replicas); ref != nil {
			return ref, nil
		}
		c.Groups[g.ID] = now
		changed = changed || !listed || now.Incarnation != old.Incarnation || now.Weight != old.Weight || now.State != old.State
	}
	if len(c.Groups) > shardcfg.GroupsMax {
		return refuse(BadRequest, "more than %d groups", shardcfg.GroupsMax), nil
	}
	if ref := checkSize(c); ref != nil {
		return ref, nil
	}
	if changed {
		c.Shards = shardcfg.Assign(c)
	}
	return nil, nil
}

// checkSize refuses a configuration that would be too large for a command of a
// group's log, or for a message.
func checkSize(c *shardcfg.Config) *Refusal {
	if n := c.GroupsBytes(); n > shardcfg.GroupsBytesMax {
		return refuse(BadRequest, "the addresses of all groups have %d bytes together, at most %d are allowed", n, shardcfg.GroupsBytesMax)
	}
	return nil
}

func checkJoinGroup(g JoinGroup) *Refusal {
	switch {
	case g.ID == 0:
		return refuse(BadRequest, "gid 0 is no group")
	case g.Weight > shardcfg.WeightMax:
		return refuse(BadRequest, "weight %d of group %d is over %d", g.Weight, g.ID, shardcfg.WeightMax)
	case (g.Identity == IdentityFormed) == g.Incarnation.IsZero():
		return refuse(BadRequest, "group %d: identity and incarnation do not agree", g.ID)
	}
	return checkReplicas(g.ID, g.Replicas)
}

func checkReplicas(gid shardcfg.GroupID, replicas []string) *Refusal {
	if len(replicas) == 0 || len(replicas) > shardcfg.ReplicasMax {
		return refuse(BadRequest, "group %d has %d replicas, not 1 to %d", gid, len(replicas), shardcfg.ReplicasMax)
	}
	for i, a := range replicas {
		switch {
		case a == "" || len(a) > shardcfg.AddressBytesMax:
			return refuse(BadRequest, "group %d has a replica with an address of %d bytes", gid, len(a))
		case slices.ContainsFunc([]byte(a), func(b byte) bool { return b <= ' ' || b >= 0x7F }):
			return refuse(BadRequest, "group %d has the address %q", gid, a)
		case slices.Contains(replicas[:i], a):
			return refuse(BadRequest, "group %d has the address %s twice", gid, a)
		}
	}
	return nil
}

// checkIdentity refuses a group whose replicas say that they are not the one
// that this gid is bound to, or that are known under another gid.
func checkIdentity(v View, c *shardcfg.Config, g JoinGroup) (*Refusal, error) {
	bound := c.Groups[g.ID].Incarnation
	switch {
	case g.Identity == IdentityEmpty && !bound.IsZero():
		return refuse(IncarnationBound, "group %d is %v; the replicas that answered are new and empty: leave the old one first", g.ID, bound), nil
	case g.Identity != IdentityFormed:
		return nil, nil
	case !bound.IsZero() && bound != g.Incarnation:
		return refuse(IncarnationBound, "group %d is %v; the replicas that answered are %v", g.ID, bound, g.Incarnation), nil
	}
	return checkIncarnation(v, c, g.ID, g.Incarnation)
}

// checkIncarnation refuses an incarnation that was retired or belongs to
// another gid, now or in the past.
func checkIncarnation(v View, c *shardcfg.Config, gid shardcfg.GroupID, inc shardcfg.Incarnation) (*Refusal, error) {
	if c.IsRetired(inc) {
		return refuse(IncarnationRetired, "%v was declared destroyed", inc), nil
	}
	if other, listed := c.GroupOf(inc); listed && other != gid {
		return refuse(IncarnationBound, "%v is group %d, not %d", inc, other, gid), nil
	}
	first, known, err := v.Registered(inc)
	if err != nil {
		return nil, err
	}
	if known && first != gid {
		return refuse(IncarnationBound, "%v is group %d, not %d", inc, first, gid), nil
	}
	return nil, nil
}

// joined is how a group stands after a join. One whose replicas said who they
// are is bound by that.
func joined(old shardcfg.Group, listed bool, g JoinGroup) (shardcfg.Group, *Refusal) {
	if !listed {
		return shardcfg.Group{Incarnation: g.Incarnation, Replicas: g.Replicas, Weight: max(g.Weight, 1), State: shardcfg.GroupMember}, nil
	}
	// What the group itself reports of its addresses counts, so a group that is
	// known to be the same one keeps those that are listed, unless it was moved.
	same := g.Identity == IdentityFormed && g.Incarnation == old.Incarnation
	if !same && !sameAddresses(old.Replicas, g.Replicas) {
		return old, refuse(GroupExists, "group %d is listed with other replicas: %v", g.ID, old.Replicas)
	}
	// An address that is new is one that the group's replicas answered at.
	if same && slices.ContainsFunc(g.Replicas, func(a string) bool { return !slices.Contains(old.Replicas, a) }) {
		old.Replicas = g.Replicas
	}
	if g.Weight != 0 {
		old.Weight = g.Weight
	}
	if old.Incarnation.IsZero() {
		old.Incarnation = g.Incarnation
	}
	old.State = shardcfg.GroupMember // which cancels a leave
	return old, nil
}

func checkAddresses(c *shardcfg.Config, gid shardcfg.GroupID, replicas []string) *Refusal {
	for _, other := range c.GroupIDs() {
		if other == gid {
			continue
		}
		for _, a := range replicas {
			if slices.Contains(c.Groups[other].Replicas, a) {
				return refuse(AddressInUse, "%s is a replica of group %d", a, other)
			}
		}
	}
	return nil
}

func sameAddresses(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func planLeave(v View, c *shardcfg.Config, l Leave) (*Refusal, error) {
	if len(l.Groups) == 0 {
		return refuse(BadRequest, "no group to leave"), nil
	}
	for _, gid := range l.Groups {
		if _, listed := c.Groups[gid]; !listed {
			return refuse(UnknownGroup, "group %d is not listed", gid), nil
		}
	}
	changed := false
	for _, gid := range l.Groups {
		g, listed := c.Groups[gid]
		if !listed || g.State == shardcfg.GroupLeaving {
			continue // named twice, or on its way out
		}
		changed = true
		unpinAll(c, gid)
		if g.Incarnation.IsZero() {
			// It never came to life: it holds nothing and never will.
			delete(c.Groups, gid)
			continue
		}
		g.State = shardcfg.GroupLeaving
		c.Groups[gid] = g
	}
	if !changed {
		return nil, nil
	}
	if members(c) == 0 {
		// Once a shard was claimed its token exists for good, at one of these.
		data, err := v.anyClaim()
		if err != nil {
			return nil, err
		}
		if data {
			return refuse(LastGroup, "no group would be left for the shards that hold data"), nil
		}
	}
	c.Shards = shardcfg.Assign(c)
	return nil, nil
}

// unpinAll lets go of all shards that are pinned to a group.
func unpinAll(c *shardcfg.Config, gid shardcfg.GroupID) {
	for _, s := range c.PinnedShards() {
		if c.Pins[s].Group == gid {
			delete(c.Pins, s)
		}
	}
}

func members(c *shardcfg.Config) int {
	n := 0
	for _, g := range c.Groups {
		if g.State == shardcfg.GroupMember {
			n++
		}
	}
	return n
}

func planMove(c *shardcfg.Config, m Move) *Refusal {
	if int(m.Shard) >= len(c.Shards) {
		return refuse(BadRequest, "there is no shard %d of %d", m.Shard, len(c.Shards))
	}
	if m.MaxPauseMS > shardcfg.PauseMSMax {
		return refuse(BadRequest, "a pause of %d ms is over %d", m.MaxPauseMS, shardcfg.PauseMSMax)
	}
	g, listed := c.Groups[m.Group]
	switch {
	case !listed:
		return refuse(UnknownGroup, "group %d is not listed", m.Group)
	case g.State != shardcfg.GroupMember:
		return refuse(GroupLeaving, "group %d is leaving", m.Group)
	}
	c.Pins[m.Shard] = shardcfg.Pin{Group: m.Group, MaxPauseMS: m.MaxPauseMS}
	c.Shards[m.Shard] = m.Group
	return nil
}

func planUnpin(c *shardcfg.Config, u Unpin) *Refusal {
	if int(u.Shard) >= len(c.Shards) {
		return refuse(BadRequest, "there is no shard %d of %d", u.Shard, len(c.Shards))
	}
	if _, pinned := c.Pins[u.Shard]; pinned {
		delete(c.Pins, u.Shard)
		c.Shards = shardcfg.Assign(c)
	}
	return nil
}

func planBind(v View, c *shardcfg.Config, b Bind) (*Refusal, error) {
	g, listed := c.Groups[b.Group]
	switch {
	case b.Incarnation.IsZero():
		return refuse(BadRequest, "group %d names no incarnation", b.Group), nil
	case !listed:
		return refuse(UnknownGroup, "group %d is not listed", b.Group), nil
	case !g.Incarnation.IsZero() && g.Incarnation != b.Incarnation:
		return refuse(IncarnationBound, "group %d is %v, not %v; leave it, and wait until it is drained", b.Group, g.Incarnation, b.Incarnation), nil
	}
	if ref := checkReplicas(b.Group, b.Replicas); ref != nil {
		return ref, nil
	}
	if g.Incarnation.IsZero() {
		// A message may outlast its sender: that of a group that was emptied must not
		// bind the gid of the one that follows. Who comes back is bound by a join
		// that asked its replicas.
		if _, known, err := v.Registered(b.Incarnation); known || err != nil {
			return refuse(IncarnationBound, "%v was bound before group %d was joined without asking its replicas; join it again", b.Incarnation, b.Group), err
		}
	}
	if ref, err := checkIncarnation(v, c, b.Group, b.Incarnation); ref != nil || err != nil {
		return ref, err
	}
	g.Incarnation = b.Incarnation
	if !sameAddresses(g.Replicas, b.Replicas) {
		g.Replicas = b.Replicas
	}
	c.Groups[b.Group] = g
	return checkSize(c), nil
}

func planDrained(v View, c *shardcfg.Config, d Drained) (*Refusal, error) {
	gid, listed := c.GroupOf(d.Incarnation)
	if !listed {
		if _, known, err := v.Registered(d.Incarnation); known || err != nil {
			return nil, err // it is gone already
		}
		return refuse(UnknownGroup, "no group is %v", d.Incarnation), nil
	}
	if c.Groups[gid].State != shardcfg.GroupLeaving {
		return refuse(NotLeaving, "group %d is not leaving", gid), nil
	}
	left, err := v.LeftAt(gid)
	if err != nil {
		return nil, err
	}
	if d.Adopted < left {
		// INV-8: before that config it could still have been handed a shard.
		return refuse(StaleReport, "group %d leaves since config %d, and reports from %d", gid, left, d.Adopted), nil
	}
	delete(c.Groups, gid)
	return nil, nil
}
