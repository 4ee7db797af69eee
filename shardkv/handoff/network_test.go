package handoff_test

import (
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

func (w *world) invited(to, from *group, in handoff.Invite) {
	to.driver.Invited(w.now, in)
	v, err := handoff.ReadView(w.replica(to), nil)
	if err != nil {
		w.fatalf("view: %v", err)
	}
	reply := handoff.Answer(to.id, &v, in)
	w.send(from.id.Peer.Incarnation, func(g *group) { g.driver.Answered(w.now, in, reply) })
}

func (w *world) wanted(from, to *group, f handoff.Fetch) {
	if w.rng.IntN(2) == 0 {
		from.driver.Wanted(w.now, f.To, f.Wants)
	}
	bytesMax := w.pageBytes
	if bytesMax == 0 {
		bytesMax = 1 + w.rng.IntN(600)
	}
	pages, err := kvfsm.ReadPages(w.replica(from), f.To, f.Wants, bytesMax)
	if err != nil {
		w.fatalf("pages: %v", err)
	}
	w.send(to.id.Peer.Incarnation, func(g *group) { g.driver.Fetched(w.now, f, pages) })
}

// adopt proposes a config of at least num, maybe the latest.
func (w *world) adopt(g *group, num shardcfg.ConfigNum) {
	if int(num) >= len(w.configs) {
		w.fatalf("asked for config %d of %d", num, len(w.configs)-1)
	}
	if w.calm || w.rng.IntN(2) == 0 {
		num = w.latest().Num
	}
	if num > 0 {
		g.queue = append(g.queue, &kvfsm.Adopt{Cluster: cluster, Config: w.configs[num]})
	}
}

func (w *world) poll(g *group) {
	w.adopt(g, g.view.Adopted()+shardcfg.ConfigNum(w.rng.IntN(len(w.configs)-int(g.view.Adopted()))))
	for s := range w.shards {
		s := shardcfg.ShardID(s)
		if w.claims[s] == g.id.Peer.Incarnation {
			if rec := g.view.Record(s); rec.Epoch.IsZero() {
				g.driver.Claimed([]shardcfg.ShardID{s})
			}
		}
	}
	// Reports of others, third-party proofs.
	for _, o := range w.groups {
		for _, r := range o.view.Records {
			if o != g && (r.Phase.Serves() || r.Phase == kvfsm.PhaseFrozen) && (w.calm || w.rng.IntN(3) == 0) {
				g.driver.Heard(r.Shard, r.Epoch, o.id.Peer.Incarnation)
			}
		}
	}
}

func (w *world) send(to shardcfg.Incarnation, deliver func(*group)) {
	w.mail = append(w.mail, mail{to: to, deliver: deliver})
}

// deliver hands over one message, sometimes keeping it to come again.
func (w *world) deliver() {
	if len(w.mail) == 0 {
		return
	}
	i := 0
	if !w.calm {
		i = w.rng.IntN(len(w.mail))
		if w.rng.IntN(3) > 0 {
			i = len(w.mail) - 1 - w.rng.IntN(min(4, len(w.mail)))
		}
	}
	m := w.mail[i]
	if w.calm || w.rng.IntN(4) > 0 {
		w.mail = slices.Delete(w.mail, i, i+1)
	}
	if len(w.mail) > 60 {
		w.mail = slices.Delete(w.mail, 0, len(w.mail)-60)
	}
	if !w.calm && w.rng.IntN(8) == 0 {
		return
	}
	for _, g := range w.groups {
		if g.id.Peer.Incarnation == m.to {
			m.deliver(g)
		}
	}
}
