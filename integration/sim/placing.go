package sim

import (
	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// An invitation is what a holder last said of a shard that it wants fetched.
type invitation struct {
	from  kvfsm.Peer
	mark  kvfsm.Mark
	phase kvfsm.Phase
}

// A placing is where a request for a shard should go. This follows shardkv's
// places; it only steers, and decides nothing.
type placing struct {
	here  bool
	wait  bool // it will be here soon, or it will be known who has it
	shard shardcfg.ShardID
	next  kvfsm.Peer
	epoch shardcfg.Epoch
}

func (s *server) noteInvitation(shard shardcfg.ShardID, inv invitation) {
	old, ok := s.invitations[shard]
	if ok && (inv.mark.Compare(old.mark) < 0 || inv == old) {
		return
	}
	s.invitations[shard] = inv
	s.wake()
}

// placeFrom places a shard that a command met elsewhere.
func (s *server) placeFrom(w kvfsm.Where) placing {
	r := s.record(w.Shard)
	if r.Epoch.Less(w.Epoch) || r.Epoch == w.Epoch && r.Phase < w.Phase {
		r.Phase, r.Epoch = w.Phase, w.Epoch
		if w.Phase == kvfsm.PhaseFrozen || w.Phase == kvfsm.PhasePassed {
			r.To = w.Next
		}
	}
	return s.place(&r)
}

func (s *server) place(r *kvfsm.Record) placing {
	switch {
	case r.Phase.Serves():
		return placing{here: true, shard: r.Shard}
	case r.Phase == kvfsm.PhaseFrozen:
		return placing{wait: true, shard: r.Shard}
	}
	at := placing{shard: r.Shard}
	if r.Phase == kvfsm.PhasePassed {
		at.next, at.epoch = r.To, r.Epoch
	}
	if st := r.Staging; st != nil {
		at.next, at.epoch = st.From, st.Wanted().Epoch
	}
	if inv, ok := s.invitations[r.Shard]; ok && !inv.mark.Epoch.Less(r.Epoch) {
		if inv.phase == kvfsm.PhaseFrozen {
			return placing{wait: true, shard: r.Shard}
		}
		at.next, at.epoch = inv.from, inv.mark.Epoch
	}
	if h, ok := s.hints[r.Shard]; ok && at.epoch.Less(h.epoch) {
		at.next, at.epoch = h.by, h.epoch
	}
	config := s.l.config(s.r.machine.at)
	if config == nil {
		at.wait = true
		return at
	}
	owner, inc := config.Owner(r.Shard)
	if at.next.IsZero() && owner != 0 {
		at.next = kvfsm.Peer{Group: owner, Incarnation: inc}
	}
	at.wait = at.next.Incarnation == s.l.self.Incarnation || owner == s.l.self.Group && at.next.IsZero()
	return at
}

// redirect tells a client where a shard is.
func (s *server) redirect(at placing) *route.Hint {
	h := &route.Hint{Shard: at.shard, Epoch: at.epoch, GID: at.next.Group, Incarnation: at.next.Incarnation}
	if config := s.l.config(s.r.machine.at); config != nil {
		if g, ok := config.Groups[at.next.Group]; ok && (at.next.IsZero() || g.Incarnation == at.next.Incarnation || g.Incarnation.IsZero()) {
			h.Replicas = g.Replicas
			return h
		}
	}
	h.Replicas = s.addresses[at.next.Incarnation]
	return h
}
