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
	// page is the last page, and wanted what it was asked for; nil: none.
	page   *kvfsm.Page
	wanted kvfsm.Want
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
	w := kvfsm.Want{Shard: rec.Shard, Mark: st.Wanted(), Cursor: st.Cursor}
	if a.page != nil {
		if sameWant(a.wanted, w) {
			d.propose(v, rec, pageCommand(st, a.page))
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
	return want{Want: w, urgent: a.invited && a.inv.Phase == kvfsm.PhaseFrozen}, true
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

// want is a Want with its priority.
type want struct {
	kvfsm.Want
	urgent bool // the holder is frozen
}

// source is what a receiver's leader remembers of a group that it fetches from.
type source struct {
	// lanes hold the number and deadline of the Fetch under way: one for frozen
	// shards, whose clients wait, and one for the others, so that a long copy
	// does not stand in their way.
	lanes [2]lane
	// after is the last shard that the slow lane asked for: the next Fetch goes on
	// behind it, so that shards take turns.
	after shardcfg.ShardID
}

type lane struct {
	fetch uint64 // 0: none under way
	until time.Duration
}

// Lanes of a source.
const (
	laneCopy = iota
	laneFrozen
)

// fetch makes at most one Fetch per source and lane, in a fixed order.
func (d *Driver) fetch(v *View, due map[shardcfg.Incarnation][]want) {
	for _, inc := range slices.SortedFunc(maps.Keys(due), shardcfg.Incarnation.Compare) {
		src := d.sources[inc]
		if src == nil {
			src = &source{}
			d.sources[inc] = src
		}
		var lanes [len(src.lanes)][]want
		for _, w := range due[inc] {
			n := laneCopy
			if w.urgent {
				n = laneFrozen
			}
			lanes[n] = append(lanes[n], w)
		}
		for n, wants := range lanes {
			if src.lanes[n].fetch == 0 && len(wants) > 0 {
				d.fetchLane(v, inc, src, n, wants)
			}
		}
	}
}

// fetchLane makes one Fetch.
func (d *Driver) fetchLane(v *View, from shardcfg.Incarnation, src *source, n int, wants []want) {
	first, _ := slices.BinarySearchFunc(wants, src.after, func(w want, after shardcfg.ShardID) int {
		return int(w.Shard) - int(after) - 1
	})
	wants = slices.Concat(wants[first:], wants[:first])
	wants = wants[:min(len(wants), d.p.FetchShardsMax)]
	rec := v.Record(wants[0].Shard)
	f := Fetch{From: rec.Staging.From, To: d.self.Peer.Incarnation}
	if f.Replicas = d.addresses(v, f.From, wants); len(f.Replicas) == 0 {
		return
	}
	d.fetches++
	f.Number = d.fetches
	for _, w := range wants {
		f.Wants = append(f.Wants, w.Want)
		d.arriving[w.Shard].fetch = f.Number
	}
	src.after = wants[len(wants)-1].Shard
	src.lanes[n] = lane{fetch: f.Number, until: d.now + d.p.FetchTimeout}
	d.wake(d.now + d.p.FetchTimeout)
	d.actions.Fetches = append(d.actions.Fetches, f)
}

// addresses returns those of a source: as its newest invitation says, else by
// the config. A source that is in neither has nothing to hand over, or will
// invite.
func (d *Driver) addresses(v *View, from kvfsm.Peer, wants []want) []string {
	for _, w := range wants {
		if a := d.arriving[w.Shard]; a.invited && a.from.Peer.Incarnation == from.Incarnation && len(a.from.Replicas) > 0 {
			return a.from.Replicas
		}
	}
	return v.replicas(from)
}

// expireFetches gives up fetches that were not answered.
func (d *Driver) expireFetches() {
	for _, src := range d.sources {
		for n := range src.lanes {
			if l := src.lanes[n]; l.fetch != 0 && d.now >= l.until {
				d.endFetch(src, n)
			}
		}
	}
}

// endFetch frees a lane and its shards.
func (d *Driver) endFetch(src *source, n int) {
	number := src.lanes[n].fetch
	src.lanes[n] = lane{}
	for _, a := range d.arriving {
		if a.fetch == number {
			a.fetch = 0
		}
	}
}

// endOf frees the lane that a Fetch used, if it still does.
func (d *Driver) endOf(f Fetch) {
	src := d.sources[f.From.Incarnation]
	if src == nil {
		return
	}
	for n := range src.lanes {
		if src.lanes[n].fetch == f.Number && f.Number != 0 {
			d.endFetch(src, n)
			return
		}
	}
}

// FetchFailed says that a Fetch will not be answered.
func (d *Driver) FetchFailed(now time.Duration, f Fetch) {
	d.endOf(f)
	for _, w := range f.Wants {
		if a := d.arriving[w.Shard]; a != nil {
			a.notBefore = max(a.notBefore, now+d.p.InviteEvery)
		}
	}
}

// Fetched takes in the pages that answer a Fetch. Pages may be old or come
// twice: they are proposed only where the cursor is the one that was asked for.
// The slices of pages are kept.
func (d *Driver) Fetched(now time.Duration, f Fetch, pages []kvfsm.Page) {
	d.endOf(f)
	for i := range pages[:min(len(pages), len(f.Wants))] {
		p, w := pages[i], f.Wants[i]
		a := d.arriving[p.Shard]
		if p.Shard != w.Shard || a == nil {
			continue
		}
		a.show(f.From.Incarnation, p.Mark)
		switch {
		case p.NotYours, p.Mark != w.Mark:
			// Past it, which show notes; or a replica that has not got there yet.
			a.notBefore = max(a.notBefore, now+d.p.TailPoll)
		case !p.Last && len(p.Items) == 0 && p.Next.Equal(w.Cursor):
			// The tail is empty. Look again soon, or when an invitation says that the
			// holder froze: unless it did so while this page travelled.
			a.notBefore = now + d.p.TailPoll
			if a.invited && a.inv.Phase == kvfsm.PhaseFrozen {
				a.notBefore = now + time.Millisecond
			}
		default:
			a.page, a.wanted = &p, w
		}
	}
}
