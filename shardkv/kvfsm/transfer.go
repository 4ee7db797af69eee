package kvfsm

import (
	"bytes"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// create: not serving, and the controllers granted us the claim, of a generation
// above all that we know. The config does not matter: it may have moved on, and
// nobody else ever creates this token, so the claimer creates it and hands it
// off. An older copy is one whose successor was destroyed.
func (m *Machine) create(sh *shard, c *Create) (Verdict, error) {
	r := &sh.rec
	switch {
	case c.Claimer != m.self.Incarnation:
		return refuse(ReasonNotUs), nil
	case r.Phase.Serves():
		return refuse(ReasonPhase), nil
	case !r.Epoch.IsZero() && c.Gen <= r.Epoch.Gen:
		return refuse(ReasonCreated), nil
	}
	if r.Staging != nil {
		if err := m.dropStaging(sh); err != nil {
			return Verdict{}, err
		}
	}
	if err := m.deleteCopy(r.held()); err != nil {
		return Verdict{}, err
	}
	*r = Record{Shard: r.Shard, Phase: PhaseServing, Epoch: shardcfg.Epoch{Gen: c.Gen, Num: 1}, Handoff: r.Handoff,
		CopyLast: r.CopyLast + 1, Revision: revisionOf(c.Gen), RemovalRevision: revisionOf(c.Gen)}
	r.Copy = r.CopyLast
	sh.floorKnown = false
	m.touch(sh)
	if c.Gen == 0 {
		return done, nil
	}
	return done, m.expireSessions(sh)
}

// revisionOf is the revision that a token of a repair's generation begins at. It
// is above all that tokens of earlier generations gave out, those that were
// destroyed with their groups included, so that versions never repeat; and it
// counts as a removal, because keys may be gone.
func revisionOf(gen uint32) shardcfg.Revision { return shardcfg.Revision(gen) << 40 }

// thaw: Frozen at exactly e, for a group that is retired, and the generation is
// above ours. A late Drop, or a late Thaw of another generation, finds another
// epoch.
func (m *Machine) thaw(sh *shard, c *Thaw) (Verdict, error) {
	r := &sh.rec
	switch {
	case r.Phase != PhaseFrozen:
		return refuse(ReasonPhase), nil
	case r.Epoch != c.Epoch || c.Gen <= r.Epoch.Gen:
		return refuse(ReasonEpoch), nil
	case m.adopted == nil || !m.adopted.IsRetired(r.To.Incarnation):
		return refuse(ReasonNotAdopted), nil
	}
	if r.Staging != nil {
		if err := m.dropStaging(sh); err != nil {
			return Verdict{}, err
		}
	}
	if err := m.clearLog(sh); err != nil {
		return Verdict{}, err
	}
	r.Phase, r.Epoch, r.Handoff = PhaseServing, shardcfg.Epoch{Gen: c.Gen, Num: 1}, m.adopted.Num
	r.To, r.Start = Peer{}, 0
	r.Revision = max(r.Revision, revisionOf(c.Gen))
	r.RemovalRevision = r.Revision
	m.touch(sh)
	return done, m.expireSessions(sh)
}

// start: Serving; exactly this config is adopted, and names another owner. A
// late Start of an older config would reuse a handoff's number (INV-4).
func (m *Machine) start(sh *shard, c *Start) (Verdict, error) {
	r := &sh.rec
	if r.Phase != PhaseServing {
		return refuse(ReasonPhase), nil
	}
	if m.adopted == nil || m.adopted.Num != c.Handoff {
		return refuse(ReasonNotAdopted), nil
	}
	owner := m.owner(r.Shard)
	if owner.IsZero() || owner.Incarnation == m.self.Incarnation {
		return refuse(ReasonOwner), nil
	}
	r.Phase, r.To, r.Handoff, r.Start = PhaseLeaving, owner, c.Handoff, r.Revision
	m.touch(sh)
	return done, nil
}

// stage: not serving; addressed to us; would be our newest token, and a newer
// staging than the present one; our config is not older than the handoff's
// (else we might hand straight back); the source was not destroyed; and the
// shard is meant for us, or the source is frozen towards us: then nobody else
// can serve it (a frozen source may need its shard staged again).
func (m *Machine) stage(sh *shard, c *Stage) (Verdict, error) {
	r := &sh.rec
	mark := Mark{c.Epoch, c.Handoff}
	switch {
	case r.Phase.Serves():
		return refuse(ReasonPhase), nil
	case c.To != m.self.Incarnation:
		return refuse(ReasonNotUs), nil
	case c.Epoch.Num < 2 || !r.Epoch.Less(c.Epoch):
		return refuse(ReasonEpoch), nil
	case m.adopted == nil || m.adopted.Num < c.Handoff:
		return refuse(ReasonNotAdopted), nil
	case c.From.IsZero() || c.From.Incarnation == m.self.Incarnation:
		return refuse(ReasonNotUs), nil
	case m.adopted.IsRetired(c.From.Incarnation):
		return refuse(ReasonRetired), nil
	case !c.Frozen && m.owner(r.Shard).Incarnation != m.self.Incarnation:
		return refuse(ReasonOwner), nil
	}
	if r.Staging != nil {
		switch order := mark.Compare(r.Staging.Mark()); {
		case order == 0:
			return refuse(ReasonKept), nil
		case order < 0:
			return refuse(ReasonOlderStaging), nil
		}
		if err := m.dropStaging(sh); err != nil {
			return Verdict{}, err
		}
	}
	m.freshStaging(sh, Staging{Epoch: c.Epoch, Handoff: c.Handoff, From: c.From})
	return done, nil
}

// freshStaging begins st in a copy that was never used.
func (m *Machine) freshStaging(sh *shard, st Staging) {
	sh.rec.CopyLast++
	st.Copy = sh.rec.CopyLast
	sh.rec.Staging = &st
	m.touch(sh)
}

// dropStaging deletes the staging.
func (m *Machine) dropStaging(sh *shard) error {
	st := sh.rec.Staging
	sh.rec.Staging = nil
	m.touch(sh)
	return m.deleteCopy(copyID{sh.rec.Shard, st.Copy})
}

// staging checks what Chunk and Install have in common: it is exactly this
// staging, its source lives, and it stands where the page begins. Of two equal
// pages, one therefore is a no-op.
func (m *Machine) staging(sh *shard, mark Mark, from Cursor) (*Staging, Reason) {
	st := sh.rec.Staging
	switch {
	case st == nil || st.Mark() != mark:
		return nil, ReasonNoStaging
	case m.adopted != nil && m.adopted.IsRetired(st.From.Incarnation):
		return nil, ReasonRetired
	case !st.Cursor.Equal(from):
		return nil, ReasonCursor
	}
	return st, ReasonNone
}

// chunk: the staging stands where the page begins.
func (m *Machine) chunk(sh *shard, c *Chunk) (Verdict, error) {
	st, why := m.staging(sh, Mark{c.Epoch, c.Handoff}, c.From)
	if why != ReasonNone {
		return refuse(why), nil
	}
	if !advances(c.From, c.Next) || !pageFits(c.From, c.Next, c.Items) {
		return refuse(ReasonItems), nil
	}
	if err := m.writeItems(sh.rec.Shard, st, c.Items); err != nil {
		return Verdict{}, err
	}
	st.Cursor = Cursor{Tail: c.Next.Tail, Key: bytes.Clone(c.Next.Key), Revision: c.Next.Revision}
	m.touch(sh)
	return done, nil
}

// install: as chunk, in the tail, and the token would be our newest. If the
// copy is what the holder froze, it serves from now on; the older copy, if one
// was still here, has a successor by that and goes (INV-2). If not, which only
// damaged storage explains (INV-6), it is fetched again from the start: the
// holder is frozen and will answer.
func (m *Machine) install(sh *shard, c *Install) (Verdict, error) {
	r := &sh.rec
	st, why := m.staging(sh, Mark{c.Epoch, c.Handoff}, c.From)
	switch {
	case why != ReasonNone:
		return refuse(why), nil
	case !c.From.Tail:
		return refuse(ReasonCursor), nil
	case !r.Epoch.Less(c.Epoch):
		return refuse(ReasonEpoch), nil
	case !pageFits(c.From, c.From, c.Items) || c.Summary.Revision < c.From.Revision:
		return refuse(ReasonItems), nil
	}
	if err := m.writeItems(r.Shard, st, c.Items); err != nil {
		return Verdict{}, err
	}
	if st.Content != c.Summary.Content {
		again := Staging{Epoch: st.Epoch, Handoff: st.Handoff, From: st.From}
		if err := m.dropStaging(sh); err != nil {
			return Verdict{}, err
		}
		m.freshStaging(sh, again)
		return refuse(ReasonDigest), nil
	}
	if err := m.deleteCopy(r.held()); err != nil {
		return Verdict{}, err
	}
	r.Phase, r.Epoch, r.Handoff = PhaseServing, c.Epoch, c.Handoff
	r.To, r.Start = Peer{}, 0
	r.Copy, r.Content = st.Copy, st.Content
	r.Revision, r.RemovalRevision = c.Summary.Revision, c.Summary.RemovalRevision
	r.Staging = nil
	sh.floorKnown = false
	m.touch(sh)
	return done, nil
}

// freeze: Leaving at exactly (e, h). Were the handoff not compared, an older
// one's copy could satisfy it (INV-7).
func (m *Machine) freeze(sh *shard, c *Freeze) (Verdict, error) {
	r := &sh.rec
	switch {
	case r.Phase != PhaseLeaving:
		return refuse(ReasonPhase), nil
	case r.Epoch != c.Epoch:
		return refuse(ReasonEpoch), nil
	case r.Handoff != c.Handoff:
		return refuse(ReasonHandoff), nil
	}
	r.Phase = PhaseFrozen
	m.touch(sh)
	return done, nil
}

// drop: Frozen at exactly e. The proposer saw proof of e+1; a late Drop after
// the shard came back finds another epoch.
func (m *Machine) drop(sh *shard, c *Drop) (Verdict, error) {
	r := &sh.rec
	switch {
	case r.Phase != PhaseFrozen:
		return refuse(ReasonPhase), nil
	case r.Epoch != c.Epoch:
		return refuse(ReasonEpoch), nil
	}
	if err := m.deleteCopy(r.held()); err != nil {
		return Verdict{}, err
	}
	r.Phase, r.Epoch = PhasePassed, c.Epoch.Next()
	r.Copy, r.Start, r.Revision, r.RemovalRevision, r.Content = 0, 0, 0, 0, Content{}
	sh.floorKnown = false
	m.touch(sh)
	return done, nil
}

// discard: exactly this staging. The proposer saw that the source moved past
// it.
func (m *Machine) discard(sh *shard, c *Discard) (Verdict, error) {
	st := sh.rec.Staging
	if st == nil || st.Mark() != (Mark{c.Epoch, c.Handoff}) {
		return refuse(ReasonNoStaging), nil
	}
	return done, m.dropStaging(sh)
}

// advances reports whether next is a place behind from: a staging's cursor
// never falls.
func advances(from, next Cursor) bool {
	switch {
	case from.Tail:
		return next.Tail && next.Revision >= from.Revision
	case next.Tail:
		return true
	}
	return bytes.Compare(next.Key, from.Key) > 0
}

// pageFits reports whether items are what a page between two cursors may hold:
// well formed; in the copy ascending, present, behind from and not behind next.
func pageFits(from, next Cursor, items []Item) bool {
	last := from.Key
	for _, it := range items {
		if !itemFits(it) {
			return false
		}
		if from.Tail {
			continue
		}
		if it.Deleted || bytes.Compare(it.Key, last) <= 0 {
			return false
		}
		last = it.Key
	}
	if !from.Tail && !next.Tail {
		return bytes.Compare(last, next.Key) <= 0
	}
	return true
}

// itemFits reports whether an item is one that a shard may have: of a kind that
// is passed on, and such that a replica can read it. One that it can't read would be
// found once it is served, and stop every replica of the group.
func itemFits(it Item) bool {
	if len(it.Key) < 2 || it.Key[0] == 0 || it.Key[0] >= KindLocalMin {
		return false
	}
	if it.Deleted {
		return true
	}
	var err error
	switch rest := it.Key[1:]; it.Key[0] {
	case kindMeta:
		if bytes.Equal(it.Key, metaFloor) {
			_, err = parseFloor(it.Value)
		}
	case kindSession:
		if len(rest) != session.KeyBytes {
			return false
		}
		_, err = session.Decode(it.Value)
	case kindRecord:
		if len(rest) > shardcfg.KeyBytesMax || len(it.Value) > valueHeaderBytes+shardcfg.ValueBytesMax {
			return false
		}
		_, _, err = parseValue(it.Value)
	}
	return err == nil
}

// writeItems writes the items of a page into a staging and counts them. In the
// copy nothing behind the cursor has been written, so nothing is read.
func (m *Machine) writeItems(s shardcfg.ShardID, st *Staging, items []Item) error {
	c := copyID{s, st.Copy}
	for _, it := range items {
		key := c.key(m.scratch.key[:0], it.Key)
		m.scratch.key = key
		if st.Cursor.Tail {
			old, ok, err := m.batch.Get(key)
			if err != nil {
				return err
			}
			if ok {
				m.hasher.remove(&st.Content, it.Key, old)
			}
		}
		if it.Deleted {
			if err := m.batch.Delete(key); err != nil {
				return err
			}
			continue
		}
		m.hasher.add(&st.Content, it.Key, it.Value)
		if err := m.batch.Set(key, it.Value); err != nil {
			return err
		}
	}
	return nil
}
