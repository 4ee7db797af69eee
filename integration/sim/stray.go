package sim

import (
	"bytes"
	"slices"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// strays are commands of handoffs that were applied once, by any group: what a
// deposed leader may have proposed and what may yet arrive. To apply one again,
// anywhere, must be harmless: the guards are for that (INV-4).
type strays struct {
	kept []entry.Command
	next int
}

const straysMax = 128

func (s *strays) keep(c entry.Command) {
	c.Body = bytes.Clone(c.Body)
	if len(s.kept) < straysMax {
		s.kept = append(s.kept, c)
		return
	}
	s.kept[s.next%straysMax] = c
	s.next++
}

// stray lets some leader propose an old command, of its own group or of another;
// false: there is none.
func (w *World) stray() bool {
	g := w.anyGroup()
	rng := w.rng.fault
	for _, r := range g.replicas {
		s, isServer := r.top.(*server)
		if !isServer || s.driver == nil || !r.n.up || r.n.paused > 0 || len(w.strays.kept) == 0 {
			continue
		}
		for range 1 + rng.IntN(3) {
			r.propose([]entry.Command{w.strays.kept[rng.IntN(len(w.strays.kept))]}, func([]any, fate) {})
		}
		return true
	}
	return false
}

// garble damages pages on their way, sometimes: a bit of an item, or an item that
// is missing or comes twice.
func (w *World) garble(pages []kvfsm.Page) []kvfsm.Page {
	rng := w.rng.net
	if w.quiet() || !chance(rng, w.p.Garble) {
		return pages
	}
	pages = slices.Clone(pages)
	for i := range pages {
		p := &pages[i]
		if len(p.Items) == 0 {
			continue
		}
		w.stats.happened(KindGarble)
		w.garbled[p.Shard] = true
		p.Items = slices.Clone(p.Items)
		n := rng.IntN(len(p.Items))
		it := &p.Items[n]
		it.Key, it.Value = bytes.Clone(it.Key), bytes.Clone(it.Value)
		switch rng.IntN(4) {
		case 0:
			it.Key[rng.IntN(len(it.Key))] ^= 1 << rng.IntN(8)
		case 1:
			if len(it.Value) > 0 {
				it.Value[rng.IntN(len(it.Value))] ^= 1 << rng.IntN(8)
			}
		case 2:
			p.Items = slices.Delete(p.Items, n, n+1)
		case 3:
			p.Items = slices.Insert(p.Items, n, *it)
		}
	}
	return pages
}
