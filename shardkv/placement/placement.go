package placement

import (
	"cmp"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A Placing is where a request for a shard should go.
type Placing struct {
	// Here: this group serves the shard.
	Here bool
	// Wait: it will soon, or it will soon be known who does.
	Wait  bool
	Shard shardcfg.ShardID
	// Next is who to ask instead; zero: not known.
	Next  kvfsm.Peer
	Epoch shardcfg.Epoch // of the token at Next, or below it; zero: not known
}

// An Invitation is what a holder last said of a shard that it wants fetched.
type Invitation struct {
	From  kvfsm.Peer
	Mark  kvfsm.Mark // the holder's
	Phase kvfsm.Phase
}

// Before reports whether i says less of a shard than k does: it is older. At one
// epoch nothing comes after Frozen, whichever config an offer of a shard that still
// serves names.
func (i Invitation) Before(k Invitation) bool {
	if i.Mark.Epoch == k.Mark.Epoch && i.Phase != k.Phase {
		if i.Phase == kvfsm.PhaseFrozen || k.Phase == kvfsm.PhaseFrozen {
			return k.Phase == kvfsm.PhaseFrozen
		}
	}
	return cmp.Or(i.Mark.Compare(k.Mark), cmp.Compare(i.Phase, k.Phase)) < 0
}

// A Hint is what the controllers heard of a shard's holder.
type Hint struct {
	Shard  shardcfg.ShardID
	Epoch  shardcfg.Epoch
	Holder kvfsm.Peer
	// Replicas are the addresses of a holder that the config does not list.
	Replicas []string
}

// Heard is what others said of one shard.
type Heard struct {
	invited, hinted bool
	invitation      Invitation
	hint            Hint
}

// Place places a shard: self is this group, r the shard's applied record, c the
// adopted config; number 0 stands for none.
func Place(self kvfsm.Peer, c *shardcfg.Config, r *kvfsm.Record, h Heard) Placing {
	s := r.Shard
	switch {
	case r.Phase.Serves():
		return Placing{Here: true, Shard: s}
	case r.Phase == kvfsm.PhaseFrozen:
		return Placing{Wait: true, Shard: s}
	}
	at := Placing{Shard: s, Epoch: r.Epoch}
	if r.Phase == kvfsm.PhasePassed && !c.IsRetired(r.To.Incarnation) {
		at.Next = r.To
	}
	if st := r.Staging; st != nil {
		at.Next, at.Epoch = st.From, st.Wanted().Epoch
	}
	// What a group once said that was destroyed leads nowhere.
	if h.invited && !c.IsRetired(h.invitation.From.Incarnation) && !h.invitation.Mark.Epoch.Less(r.Epoch) {
		if h.invitation.Phase == kvfsm.PhaseFrozen && !(h.hinted && h.invitation.Mark.Epoch.Next().Less(h.hint.Epoch)) {
			return Placing{Wait: true, Shard: s}
		}
		at.Next, at.Epoch = h.invitation.From, h.invitation.Mark.Epoch
	}
	if h.hinted && at.Epoch.Less(h.hint.Epoch) && !c.IsRetired(h.hint.Holder.Incarnation) {
		at.Next, at.Epoch = h.hint.Holder, h.hint.Epoch
	}
	owner, incarnation := c.Owner(s)
	if at.Next.IsZero() && owner != 0 {
		at.Next = kvfsm.Peer{Group: owner, Incarnation: incarnation}
	}
	// It is ours, and nobody else is known to hold it: it is being created, or
	// its holder will invite us. Before the first config nothing is known.
	at.Wait = at.Next.Incarnation == self.Incarnation || owner == self.Group && at.Next.IsZero() || c.Num == 0
	return at
}

// Newer brings a record up to what a command met at apply, which may be newer
// than the published record, or older.
func Newer(r kvfsm.Record, met kvfsm.Where) kvfsm.Record {
	// At one epoch a token goes from Serving over Leaving to Frozen.
	if r.Epoch.Less(met.Epoch) || r.Epoch == met.Epoch && r.Phase < met.Phase {
		r.Phase, r.Epoch = met.Phase, met.Epoch
		if met.Phase == kvfsm.PhaseFrozen || met.Phase == kvfsm.PhasePassed {
			r.To = met.Next
		}
	}
	return r
}

// Moves reports whether a shard is on its way from or to group self, or should
// be, by the adopted config. r is its applied record; nil: it was never met.
func Moves(self shardcfg.GroupID, c *shardcfg.Config, s shardcfg.ShardID, r *kvfsm.Record) bool {
	var owner shardcfg.GroupID
	if int(s) < len(c.Shards) {
		owner = c.Shards[s]
	}
	switch {
	case r == nil:
		return owner == self
	case r.Staging != nil, r.Phase == kvfsm.PhaseLeaving, r.Phase == kvfsm.PhaseFrozen:
		return true
	case r.Phase.Serves():
		// A shard without an owner stays where it is.
		return owner != self && owner != 0
	}
	return owner == self
}

// A Memory is what other groups and the controllers said: memory that a restart
// may lose.
type Memory struct {
	invitations map[shardcfg.ShardID]Invitation
	hints       map[shardcfg.ShardID]Hint
	addresses   map[shardcfg.Incarnation][]string
}

// heardMax bounds the groups whose addresses are remembered beside the config.
const heardMax = 4096

// NewMemory returns one that has heard nothing.
func NewMemory() *Memory {
	return &Memory{invitations: map[shardcfg.ShardID]Invitation{}, hints: map[shardcfg.ShardID]Hint{},
		addresses: map[shardcfg.Incarnation][]string{}}
}

// Of returns what was said of a shard.
func (m *Memory) Of(s shardcfg.ShardID) (h Heard) {
	h.invitation, h.invited = m.invitations[s]
	h.hint, h.hinted = m.hints[s]
	return h
}

// Invited remembers an invitation, unless a newer one for the shard is known,
// and reports whether it says something new.
func (m *Memory) Invited(s shardcfg.ShardID, inv Invitation) bool {
	old, ok := m.invitations[s]
	if ok && (inv.Before(old) || inv == old) {
		return false
	}
	m.invitations[s] = inv
	return true
}

// Hinted replaces what the controllers said of holders, and returns the shards of
// which that says something new.
func (m *Memory) Hinted(hints []Hint) (told []shardcfg.ShardID) {
	before := m.hints
	m.hints = make(map[shardcfg.ShardID]Hint, len(hints))
	for _, h := range hints {
		m.hints[h.Shard] = h
		m.Hear(h.Holder.Incarnation, h.Replicas)
		if old, known := before[h.Shard]; !known || old.Epoch != h.Epoch || old.Holder != h.Holder {
			told = append(told, h.Shard)
		}
	}
	return told
}

// Hear remembers the addresses of a group.
func (m *Memory) Hear(g shardcfg.Incarnation, addresses []string) {
	if g.IsZero() || len(addresses) == 0 {
		return
	}
	if len(m.addresses) >= heardMax {
		clear(m.addresses)
	}
	m.addresses[g] = slices.Clone(addresses)
}

// Addresses returns the addresses of a group, as far as known: by the config,
// else as the group itself or the controllers said. They are not to be changed.
func (m *Memory) Addresses(c *shardcfg.Config, g kvfsm.Peer) []string {
	if l, ok := c.Groups[g.Group]; ok && (g.IsZero() || l.Incarnation == g.Incarnation || l.Incarnation.IsZero()) {
		return l.Replicas
	}
	return m.addresses[g.Incarnation]
}
