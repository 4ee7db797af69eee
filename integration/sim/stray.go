package sim

import (
	"bytes"
	"slices"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
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

// stray lets some leader propose an old command, of its own group or of another,
// or a leader of the controllers one of theirs.
func (w *World) stray() {
	g := w.anyGroup()
	kept := w.strays.kept
	if g == w.controllers.g {
		kept = w.controllers.strays.kept
	}
	rng := w.rng.fault
	if len(kept) == 0 {
		return
	}
	for range 1 + rng.IntN(3) {
		g.stray(kept[rng.IntN(len(kept))])
	}
}

// echo lets a command of a shard's earlier handoffs come late, now that another
// took effect: in the phase for which its guard is there, which seldom lasts.
func (l *life) echo(shard shardcfg.ShardID, cmd kvfsm.Command, c entry.Command) {
	w := l.w
	if w.p.Echo == 0 {
		return
	}
	old := l.echoes[shard]
	if old == nil {
		old = &strays{}
		l.echoes[shard] = old
	}
	if n := len(old.kept); n > 0 && !w.quiet() && chance(w.rng.fault, w.p.Echo) {
		late := old.kept[w.rng.fault.IntN(n)]
		w.later(between(w.rng.fault, 0, 4*w.p.Fsync), func() { l.g.stray(late) })
	}
	if _, page := cmd.(*kvfsm.Chunk); !page || chance(w.rng.fault, 0.1) {
		old.keep(c) // pages are many
	}
}

// stray lets the group's leader propose a command; false: nobody leads.
func (g *raftGroup) stray(c entry.Command) bool {
	for _, r := range g.replicas {
		if r.role == leader && r.n.up && r.n.paused == 0 && !g.w.quiet() {
			g.w.stats.happened(KindStray)
			r.propose([]entry.Command{c}, foreground, func([]any, fate) {})
			return true
		}
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
