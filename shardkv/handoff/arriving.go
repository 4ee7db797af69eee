package handoff

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Answer returns a receiver's answer to an Invite: its applied state, nothing
// else. Any replica may give it.
func Answer(self Identity, v *View, in Invite) InviteReply {
	reply := InviteReply{From: self.Peer.Incarnation, Adopted: v.Adopted()}
	for _, inv := range in.Shards {
		rec := v.Record(inv.Shard)
		st := Standing{Shard: inv.Shard, Epoch: rec.Epoch}
		if s := rec.Staging; s != nil {
			st.Staging = &StagingState{Mark: s.Mark(), Cursor: s.Cursor, Bytes: s.Bytes}
		}
		st.Ready = in.To.Incarnation == self.Peer.Incarnation &&
			ready(v, self.Peer.Incarnation, &rec, in.From.Peer.Incarnation, inv)
		reply.Shards = append(reply.Shards, st)
	}
	return reply
}

// ready reports whether the guards of Stage hold, or the staging exists. A
// receiver refuses a shard that its config does not give it, unless the holder
// is frozen: then nobody else can serve it.
func ready(v *View, self shardcfg.Incarnation, rec *kvfsm.Record, from shardcfg.Incarnation, inv Invitation) bool {
	mark := kvfsm.Mark{Epoch: inv.Epoch.Next(), Handoff: inv.Handoff}
	return v.Config != nil && v.Adopted() >= inv.Handoff &&
		!rec.Phase.Serves() && rec.Epoch.Less(mark.Epoch) &&
		!v.Config.IsRetired(from) &&
		(inv.Phase == kvfsm.PhaseFrozen || v.owner(rec.Shard).Incarnation == self) &&
		(rec.Staging == nil || rec.Staging.Mark().Compare(mark) <= 0)
}

// arriving is what a receiver's leader remembers of a shard that it was invited
// to, or is staging.
type arriving struct {
	// The newest invitation, at: by whom, when. invited is false if there is none.
	invited bool
	inv     Invitation
	from    Identity
	at      time.Duration

	// fetch is the number of the Fetch that asks for this shard now; 0: none.
	fetch uint64
	// page is at hand: it was fetched, and is not in the log yet; nil: none.
	page *atHand
	// notBefore is when to fetch again at the earliest.
	notBefore time.Duration
	// shown is the greatest mark that the source of the present staging, shownBy,
	// has shown.
	shown   kvfsm.Mark
	shownBy shardcfg.Incarnation
}

// invitationTTL is after how long an invitation that is not repeated is
// forgotten, in invitation intervals.
const invitationTTL = 30

func (d *Driver) arrivingOf(s shardcfg.ShardID) *arriving {
	a := d.arriving[s]
	if a == nil {
		a = &arriving{}
		d.arriving[s] = a
	}
	return a
}

// Invited takes in an Invite; answer it with Answer.
func (d *Driver) Invited(now time.Duration, in Invite) {
	if in.To.Incarnation != d.self.Peer.Incarnation || in.From.Peer.IsZero() || in.From.Peer.Incarnation == in.To.Incarnation {
		return
	}
	in.From.Replicas = slices.Clone(in.From.Replicas)
	if src := d.sources[in.From.Peer.Incarnation]; src != nil {
		src.heardAt = now
	}
	for _, inv := range in.Shards {
		a := d.arrivingOf(inv.Shard)
		if inv.Phase != kvfsm.PhaseServing {
			a.show(in.From.Peer.Incarnation, inv.Mark)
		}
		if a.invited && inv.By(in.From.Peer).Before(a.inv.By(a.from.Peer)) {
			continue // an old message
		}
		if inv.Phase == kvfsm.PhaseFrozen && (!a.invited || a.inv != inv) {
			a.notBefore = 0 // its clients wait
		}
		a.invited, a.inv, a.from, a.at = true, inv, in.From, now
	}
}

// show takes in the mark of a holder's record. Marks only grow (INV-4), so that
// old messages say nothing wrong. What is offered of a shard that still serves is no
// mark of a record: were it taken for one, a late offer could give up a staging that
// the holder has frozen its shard for.
func (a *arriving) show(by shardcfg.Incarnation, m kvfsm.Mark) {
	if a.shownBy != by {
		a.shownBy, a.shown = by, kvfsm.Mark{}
	}
	if a.shown.Compare(m) < 0 {
		a.shown = m
	}
}

// stepArriving decides for each shard that this group was invited to, or is
// staging.
func (d *Driver) stepArriving(v *View) {
	for i := range v.Records {
		if v.Records[i].Staging != nil {
			d.arrivingOf(v.Records[i].Shard)
		}
	}
	d.expireFetches()
	d.hand = hand{}
	due := map[shardcfg.Incarnation][]want{}
	for _, s := range slices.Sorted(maps.Keys(d.arriving)) {
		rec, a := v.Record(s), d.arriving[s]
		if a.invited && (!rec.Epoch.Less(a.inv.Epoch.Next()) || d.now-a.at > invitationTTL*d.p.InviteEvery) {
			a.invited = false // installed, or not repeated
		}
		if !a.invited && rec.Staging == nil {
			delete(d.arriving, s)
			continue
		}
		if d.stepStage(v, &rec, a) || rec.Staging == nil || d.stepDiscard(v, &rec, a) {
			continue
		}
		if w, ok := d.stepPage(v, &rec, a); ok {
			from := rec.Staging.From.Incarnation
			due[from] = append(due[from], w)
		}
	}
	d.fetch(v, due)
}

// stepStage: on an invitation that the guards allow, stage. It reports whether
// a Stage is under way.
func (d *Driver) stepStage(v *View, rec *kvfsm.Record, a *arriving) bool {
	if !a.invited {
		return false
	}
	if v.Adopted() < a.inv.Handoff {
		d.actions.AdoptAtLeast = max(d.actions.AdoptAtLeast, a.inv.Handoff)
		return false
	}
	mark := kvfsm.Mark{Epoch: a.inv.Epoch.Next(), Handoff: a.inv.Handoff}
	// An invitation of a shard that still serves only asks; and one that its own
	// sender, or the token, has moved past is not worth a staging that must go
	// again.
	if a.inv.Phase == kvfsm.PhaseServing || !d.heardOf(v, rec.Shard).Less(mark.Epoch) || (a.shownBy == a.from.Peer.Incarnation && a.inv.Mark.Compare(a.shown) < 0) ||
		!ready(v, d.self.Peer.Incarnation, rec, a.from.Peer.Incarnation, a.inv) ||
		(rec.Staging != nil && rec.Staging.Mark() == mark) {
		return false
	}
	return d.propose(v, rec, &kvfsm.Stage{
		Shard: rec.Shard, Epoch: mark.Epoch, Handoff: mark.Handoff,
		From: a.from.Peer, To: d.self.Peer.Incarnation, Frozen: a.inv.Phase == kvfsm.PhaseFrozen,
	})
}

// stepDiscard: Discard once the source shows (epoch, h) above the staging's
// (e, h), or somebody else was heard to hold e+1 or more: an epoch is minted
// once (INV-1), so that this staging can never be installed. Nor can it once the
// config lists the source no more: a holder is listed until it is drained, so
// this one has passed the token on, and may be gone for good (INV-8, INV-9). It
// reports whether that is so.
func (d *Driver) stepDiscard(v *View, rec *kvfsm.Record, a *arriving) bool {
	st := rec.Staging
	past := a.shownBy == st.From.Incarnation && a.shown.Compare(st.Wanted()) > 0
	// The config is not older than the handoff: Stage required that.
	past = past || v.Config.Groups[st.From.Group].Incarnation != st.From.Incarnation
	if !past && d.heardOf(v, rec.Shard).Less(st.Epoch) {
		return false
	}
	if a.invited && a.from.Peer.Incarnation == st.From.Incarnation && a.inv.Mark.Compare(st.Wanted()) <= 0 {
		a.invited = false
	}
	d.propose(v, rec, &kvfsm.Discard{Shard: rec.Shard, Epoch: st.Epoch, Handoff: st.Handoff})
	return true
}

// stepPage proposes the page that is at hand, or says what to fetch.
func (d *Driver) stepPage(v *View, rec *kvfsm.Record, a *arriving) (want, bool) {
	st := rec.Staging
	w := want{Want: kvfsm.Want{Shard: rec.Shard, Mark: st.Wanted(), Cursor: st.Cursor}, urgent: a.invited && a.inv.Phase == kvfsm.PhaseFrozen}
	if a.page != nil {
		if sameWant(a.page.wanted, w.Want) {
			d.hand[w.kind()] += a.page.bytes
			d.propose(v, rec, pageCommand(st, &a.page.Page))
			return want{}, false
		}
		a.page = nil // the cursor has moved on
	}
	if a.fetch != 0 {
		return want{}, false
	}
	if d.now < a.notBefore {
		d.wake(a.notBefore)
		return want{}, false
	}
	return w, true
}

func sameWant(a, b kvfsm.Want) bool {
	return a.Shard == b.Shard && a.Mark == b.Mark && a.Cursor.Equal(b.Cursor)
}

// pageCommand returns the proposal that a page becomes: an Install if it is the
// last and the copy is complete, else a Chunk.
func pageCommand(st *kvfsm.Staging, p *kvfsm.Page) kvfsm.Command {
	if p.Last && st.Cursor.Tail {
		return &kvfsm.Install{Shard: p.Shard, Epoch: st.Epoch, Handoff: st.Handoff,
			From: st.Cursor, Items: p.Items, Summary: p.Summary}
	}
	return &kvfsm.Chunk{Shard: p.Shard, Epoch: st.Epoch, Handoff: st.Handoff,
		From: st.Cursor, Next: p.Next, Items: p.Items}
}

// refused gives up the page at hand of a shard: if it was damaged on its way, only
// another one can be accepted.
func (d *Driver) refused(s shardcfg.ShardID) {
	if a := d.arriving[s]; a != nil {
		a.page = nil
	}
}
