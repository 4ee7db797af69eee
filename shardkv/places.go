package shardkv

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// places answers where each shard is, as far as this replica knows: from the
// applied records and config, and from what other groups and the controllers
// said. It only steers requests; whether a shard is served is decided at apply,
// and for reads in the snapshot that is read.
//
// Records and config are written by one goroutine, the one that applies; what
// was heard by any. Safe for concurrent use.
type places struct {
	self kvfsm.Peer
	// records has the applied record of each shard; nil: never met.
	records []atomic.Pointer[kvfsm.Record]
	config  atomic.Pointer[shardcfg.Config]

	heard struct {
		sync.Mutex
		invitations map[shardcfg.ShardID]invitation
		hints       map[shardcfg.ShardID]hint
		addresses   map[shardcfg.Incarnation][]string
	}
}

// An invitation is what a holder last said of a shard that it wants fetched.
type invitation struct {
	from  kvfsm.Peer
	mark  kvfsm.Mark // the holder's
	phase kvfsm.Phase
}

// A hint is what the controllers heard of a shard's holder.
type hint struct {
	holder kvfsm.Peer
	epoch  shardcfg.Epoch
}

// A placing is where a request for a shard should go.
type placing struct {
	// here: this group serves the shard.
	here bool
	// wait: it will soon, or it will soon be known who does.
	wait  bool
	shard shardcfg.ShardID
	// next is who to ask instead; zero: not known.
	next  kvfsm.Peer
	epoch shardcfg.Epoch // of the token at next, or below it; zero: not known
}

func newPlaces(self kvfsm.Peer, shardCount int) *places {
	p := &places{self: self, records: make([]atomic.Pointer[kvfsm.Record], shardCount)}
	p.config.Store(&shardcfg.Config{})
	p.heard.invitations = map[shardcfg.ShardID]invitation{}
	p.heard.hints = map[shardcfg.ShardID]hint{}
	p.heard.addresses = map[shardcfg.Incarnation][]string{}
	return p
}

// of places a shard of the cluster.
func (p *places) of(s shardcfg.ShardID) placing {
	r := p.records[s].Load()
	if r == nil {
		r = &kvfsm.Record{Shard: s}
	}
	if r.Phase.Serves() {
		return placing{here: true, shard: s}
	}
	return p.ofRecord(r)
}

// from places a shard that a command met elsewhere. What the command met may be
// newer than the published record.
func (p *places) from(w kvfsm.Where) placing {
	r := kvfsm.Record{Shard: w.Shard}
	if known := p.records[w.Shard].Load(); known != nil {
		r = *known
	}
	// At one epoch a token goes from Serving over Leaving to Frozen.
	if r.Epoch.Less(w.Epoch) || r.Epoch == w.Epoch && r.Phase < w.Phase {
		r.Phase, r.Epoch = w.Phase, w.Epoch
		if w.Phase == kvfsm.PhaseFrozen || w.Phase == kvfsm.PhasePassed {
			r.To = w.Next
		}
	}
	return p.ofRecord(&r)
}

// ofRecord places a shard by its record.
func (p *places) ofRecord(r *kvfsm.Record) placing {
	s := r.Shard
	switch {
	case r.Phase.Serves():
		return placing{here: true, shard: s}
	case r.Phase == kvfsm.PhaseFrozen:
		return placing{wait: true, shard: s}
	}
	at := placing{shard: s}
	if r.Phase == kvfsm.PhasePassed {
		at.next, at.epoch = r.To, r.Epoch
	}
	p.heard.Lock()
	inv, invited := p.heard.invitations[s]
	h, hinted := p.heard.hints[s]
	p.heard.Unlock()

	if st := r.Staging; st != nil {
		at.next, at.epoch = st.From, st.Wanted().Epoch
	}
	if invited && !inv.mark.Epoch.Less(r.Epoch) {
		if inv.phase == kvfsm.PhaseFrozen {
			return placing{wait: true, shard: s}
		}
		at.next, at.epoch = inv.from, inv.mark.Epoch
	}
	if hinted && at.epoch.Less(h.epoch) {
		at.next, at.epoch = h.holder, h.epoch
	}
	config := p.config.Load()
	owner, incarnation := config.Owner(s)
	if at.next.IsZero() && owner != 0 {
		at.next = kvfsm.Peer{Group: owner, Incarnation: incarnation}
	}
	// It is ours, and nobody else is known to hold it: it is being created, or
	// its holder will invite us. Before the first config nothing is known.
	at.wait = at.next.Incarnation == p.self.Incarnation || owner == p.self.Group && at.next.IsZero() || config.Num == 0
	return at
}

// redirect describes a placing to a client.
func (p *places) redirect(at placing) *kvpb.Redirect {
	r := &kvpb.Redirect{Shard: uint32(at.shard), Gid: uint64(at.next.Group), Epoch: epochMessage(at.epoch)}
	if !at.next.IsZero() {
		r.Incarnation = at.next.Incarnation[:]
	}
	r.Replicas = p.addressesOf(at.next)
	return r
}

// addressesOf returns the addresses of a group, as far as known: by the config,
// else as the group itself or the controllers said.
func (p *places) addressesOf(g kvfsm.Peer) []string {
	if c, ok := p.config.Load().Groups[g.Group]; ok && (g.IsZero() || c.Incarnation == g.Incarnation || c.Incarnation.IsZero()) {
		return c.Replicas
	}
	p.heard.Lock()
	defer p.heard.Unlock()
	return p.heard.addresses[g.Incarnation]
}

// hear remembers the addresses of a group.
func (p *places) hear(g shardcfg.Incarnation, addresses []string) {
	if g.IsZero() || len(addresses) == 0 {
		return
	}
	p.heard.Lock()
	defer p.heard.Unlock()
	if len(p.heard.addresses) >= heardMax {
		clear(p.heard.addresses)
	}
	p.heard.addresses[g] = slices.Clone(addresses)
}

// heardMax bounds the groups whose addresses are remembered beside the config.
const heardMax = 4096

// invite remembers an invitation, unless a newer one for the shard is known,
// and reports whether it says something new.
func (p *places) invite(s shardcfg.ShardID, inv invitation) bool {
	p.heard.Lock()
	defer p.heard.Unlock()
	old, ok := p.heard.invitations[s]
	if ok && inv.mark.Compare(old.mark) < 0 || ok && inv == old {
		return false
	}
	p.heard.invitations[s] = inv
	return true
}

// takeHints replaces what the controllers said of holders.
func (p *places) takeHints(hints map[shardcfg.ShardID]hint) {
	p.heard.Lock()
	defer p.heard.Unlock()
	p.heard.hints = hints
}

// record returns the applied record of a shard; the zero one if it was never
// met.
func (p *places) record(s shardcfg.ShardID) kvfsm.Record {
	if r := p.records[s].Load(); r != nil {
		return *r
	}
	return kvfsm.Record{Shard: s}
}

// known returns the applied records of the shards that were ever met, in
// ascending order of shard. Of a shard that serves, what writes change is as of
// its last change of placement.
func (p *places) known() []kvfsm.Record {
	records := make([]kvfsm.Record, 0, len(p.records))
	for s := range p.records {
		if r := p.records[s].Load(); r != nil {
			records = append(records, *r)
		}
	}
	return records
}

// moving reports whether a shard is on its way from or to this group, or should
// be.
func (p *places) moving() bool {
	config := p.config.Load()
	for s := range p.records {
		r := p.records[s].Load()
		mine := s < len(config.Shards) && config.Shards[s] == p.self.Group
		switch {
		case r == nil:
			if mine {
				return true
			}
		case r.Staging != nil, r.Phase == kvfsm.PhaseLeaving, r.Phase == kvfsm.PhaseFrozen, mine != r.Phase.Serves():
			// A shard without an owner stays where it is.
			if !r.Phase.Serves() || r.Phase == kvfsm.PhaseLeaving || s < len(config.Shards) && config.Shards[s] != 0 {
				return true
			}
		}
	}
	return false
}
