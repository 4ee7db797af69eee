package explore

import (
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A factKind is a kind of knowledge that outlives the state that it was read
// from.
type factKind uint8

const (
	// factImage: a holder once stood Leaving or Frozen with these items; any
	// replica may answer a Fetch from it, ever later. It implies an invite.
	factImage factKind = iota
	// factInvite: a holder once invited.
	factInvite
	// factTail: a receiver once had the whole copy.
	factTail
)

// A fact is a piece of a committed prefix that messages can be computed from.
type fact struct {
	kind     factKind
	from, to incID // the holder and the receiver
	shard    int
	mark     kvfsm.Mark // the holder's (e, h)
	phase    kvfsm.Phase
	rev      shardcfg.Revision // of an image
	store    *store.Mem        // of an image
	sum      sum
	// invite is, of an image, the fact of its invitation.
	invite uint32
}

func (x *explorer) internFact(f fact, content sum) uint32 {
	f.sum = sumOf(fmt.Appendf(nil, "%d %d %d %d %v %d", f.kind, f.from, f.to, f.shard, f.mark, f.phase), content[:])
	if id, ok := x.factIDs[f.sum]; ok {
		return id
	}
	if f.kind == factImage {
		f.invite = x.internFact(fact{kind: factInvite, from: f.from, to: f.to, shard: f.shard, mark: f.mark, phase: f.phase}, sum{})
	}
	id := uint32(len(x.facts))
	x.facts = append(x.facts, f)
	x.factIDs[f.sum] = id
	return id
}

// learn derives the facts of a local.
func (x *explorer) learn(l *local) {
	for i := range l.shards {
		sh := &l.shards[i]
		if sh.phase == kvfsm.PhaseLeaving || sh.phase == kvfsm.PhaseFrozen {
			l.facts = append(l.facts, x.internFact(fact{kind: factImage, from: l.inc, to: sh.to, shard: i,
				mark: sh.offered, phase: sh.phase, rev: sh.rev, store: l.store}, sh.record))
		}
		if sh.staging && sh.st.tail {
			l.facts = append(l.facts, x.internFact(fact{kind: factTail, from: sh.st.from, to: l.inc, shard: i, mark: wanted(sh.st.mark)}, sum{}))
		}
	}
}

// wanted is the holder's mark for a staging's.
func wanted(m kvfsm.Mark) kvfsm.Mark {
	m.Epoch.Num--
	return m
}

// addFact adds to a sorted set.
func addFact(set []uint32, f uint32) []uint32 {
	i, found := slices.BinarySearch(set, f)
	if found {
		return set
	}
	return slices.Insert(set, i, f)
}

// prune drops facts from which nothing can follow any more, and reduces those
// of which only a part matters. Each rule rests on an invariant that is checked
// in every state; a search with Options.Full does without.
func (x *explorer) prune(st *state) {
	kept := x.scratch.facts[:0]
	for _, id := range st.facts {
		f := &x.facts[id]
		holder := x.present(st, f.from)
		receiver := x.present(st, f.to)
		if receiver == nil {
			// No log that it could lead to anything in, but that of a holder that
			// believes it.
			if f.kind == factTail && st.isRetired(f.to) && holder != nil && holder.shards[f.shard].phase == kvfsm.PhaseLeaving &&
				holder.shards[f.shard].to == f.to && holder.shards[f.shard].offered == f.mark {
				kept = addFact(kept, id)
			}
			continue
		}
		if st.isRetired(f.from) {
			kept = x.pruneDestroyed(kept, st, id, receiver)
			continue
		}
		to := &receiver.shards[f.shard]
		// Its marks only grow (INV-4): what it is past never counts again.
		current := holder != nil && holder.shards[f.shard].to == f.to && holder.shards[f.shard].offered == f.mark &&
			(holder.shards[f.shard].phase == kvfsm.PhaseLeaving || holder.shards[f.shard].phase == kvfsm.PhaseFrozen)
		switch f.kind {
		case factTail:
			if current && holder.shards[f.shard].phase == kvfsm.PhaseLeaving {
				kept = addFact(kept, id)
			}
		case factImage:
			if to.epoch > pack8(f.mark.Epoch) {
				continue // Stage, Chunk and Install are refused from now on
			}
			if !current || x.covered(f, to) {
				kept = addFact(kept, f.invite)
			} else {
				kept = addFact(kept, id)
			}
		case factInvite:
			if to.epoch <= pack8(f.mark.Epoch) {
				kept = addFact(kept, id)
			}
		}
	}
	st.facts = append(st.facts[:0], kept...)
	x.scratch.facts = kept
}

// pruneDestroyed is prune for a fact of a holder that was destroyed: what it sent
// may still be under way, for a receiver that has not heard that it is retired.
func (x *explorer) pruneDestroyed(kept []uint32, st *state, id uint32, receiver *local) []uint32 {
	f := &x.facts[id]
	c := receiver.view.Config
	heard := c != nil && c.IsRetired(f.from.peer().Incarnation)
	if f.kind == factTail || heard || receiver.shards[f.shard].epoch > pack8(f.mark.Epoch) {
		return kept
	}
	if f.kind == factImage && st.shownAtEnd(f.from, f.shard) != f.mark {
		id = f.invite // as before it was destroyed
	}
	return addFact(kept, id)
}

// covered reports whether a staging has everything that a Leaving image could
// answer. Without faults a staging of one mark only advances.
func (x *explorer) covered(f *fact, to *shardState) bool {
	return x.bound.Faults == 0 && f.phase == kvfsm.PhaseLeaving && to.staging && to.st.from == f.from &&
		wanted(to.st.mark) == f.mark && to.st.tail && to.st.rev >= f.rev
}

// stale is the set of shards whose staging in l can't be installed any more,
// because its source is past it. What such a staging holds can't matter.
func (x *explorer) stale(st *state, l *local) (set int) {
	for i := range l.shards {
		sh := &l.shards[i]
		if !sh.staging {
			continue
		}
		source := x.present(st, sh.st.from)
		if source == nil {
			// The pages of one that was destroyed in the midst may still come.
			if !st.isRetired(sh.st.from) || st.shownAtEnd(sh.st.from, i) != wanted(sh.st.mark) {
				set |= 1 << i
			}
			continue
		}
		src := &source.shards[i]
		if src.offered != wanted(sh.st.mark) || src.to != l.inc || (src.phase != kvfsm.PhaseLeaving && src.phase != kvfsm.PhaseFrozen) {
			set |= 1 << i
		}
	}
	return set
}

// reduce returns the id of a local without the contents of some stagings.
func (x *explorer) reduce(id uint32, set int) uint32 {
	if set == 0 {
		return id
	}
	l := x.locals[id]
	if l.reduced[set] == 0 {
		whole := x.sumLocal(l, set)
		n, ok := x.reducedIDs[whole]
		if !ok {
			n = uint32(len(x.reducedIDs)) | 1<<31
			x.reducedIDs[whole] = n
		}
		l.reduced[set] = n
	}
	return l.reduced[set]
}

// sumLocal tells locals apart, without the contents of some stagings.
func (x *explorer) sumLocal(l *local, without int) sum {
	parts := [][]byte{{byte(l.inc)}, l.adopted[:]}
	for i := range l.shards {
		sh := &l.shards[i]
		body := sh.body
		if without&(1<<i) != 0 {
			body = sum{}
		}
		parts = append(parts, sh.record[:], sh.mark[:], body[:])
	}
	return sumOf(parts...)
}
