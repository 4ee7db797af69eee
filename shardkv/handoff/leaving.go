package handoff

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// leaving is what a holder's leader remembers of a shard that should leave.
type leaving struct {
	// Of which handoff the rest is.
	mark kvfsm.Mark
	to   shardcfg.Incarnation

	invited      bool // with sentPhase, at sentAt
	sentPhase    kvfsm.Phase
	sentAt       time.Duration
	standing     *Standing     // the receiver's last answer; nil: none
	heardAt      time.Duration // the receiver's last word on this handoff
	copiedBytes  uint64
	tailRevision shardcfg.Revision // of the receiver's cursor
	inTail       bool              // the receiver copied everything

	// round rises with every new look at the receiver's tail; looked is the one
	// that rest was measured for.
	round, looked int
	tail          int           // changes that the receiver lacks
	rest          time.Duration // that they take, by estimate
	restBest      time.Duration
	roundsWorse   int // rounds since the tail last got shorter

	frozen   bool
	frozenAt time.Duration
	pause    time.Duration // how long it was frozen, once that is known
	waiting  string
}

// receiver returns the group that a shard is to be offered to; zero: none.
func (d *Driver) receiver(v *View, rec *kvfsm.Record) kvfsm.Peer {
	switch rec.Phase {
	case kvfsm.PhaseServing:
		if owner := v.owner(rec.Shard); owner.Incarnation != d.self.Peer.Incarnation {
			return owner
		}
	case kvfsm.PhaseLeaving, kvfsm.PhaseFrozen:
		return rec.To
	}
	return kvfsm.Peer{}
}

// offered returns the holder's mark as it is invited to: of a shard that still
// serves, the handoff that would start.
func offered(v *View, rec *kvfsm.Record) kvfsm.Mark {
	m := rec.Mark()
	if rec.Phase == kvfsm.PhaseServing {
		m.Handoff = v.Adopted()
	}
	return m
}

// invitations are grouped by receiver.
type invitations map[kvfsm.Peer][]Invitation

// stepLeaving decides for one record of the holder.
func (d *Driver) stepLeaving(v *View, rec *kvfsm.Record, out invitations) error {
	to := d.receiver(v, rec)
	if to.IsZero() {
		return nil
	}
	l := d.leavingOf(v, rec, to)
	l.waiting = ""
	d.invite(rec, to, l, out)
	switch rec.Phase {
	case kvfsm.PhaseServing:
		d.stepServing(v, rec, l)
	case kvfsm.PhaseLeaving:
		return d.stepFreeze(v, rec, l)
	case kvfsm.PhaseFrozen:
		d.stepFrozen(v, rec, l)
	}
	return nil
}

// leavingOf returns the memory of this handoff, a fresh one if it is another
// than before.
func (d *Driver) leavingOf(v *View, rec *kvfsm.Record, to kvfsm.Peer) *leaving {
	mark := offered(v, rec)
	l := d.leaving[rec.Shard]
	if l == nil || l.mark != mark || l.to != to.Incarnation {
		l = &leaving{mark: mark, to: to.Incarnation}
		d.leaving[rec.Shard] = l
	}
	return l
}

// invite adds an invitation if one is due: at intervals, and at once when the
// phase changed.
func (d *Driver) invite(rec *kvfsm.Record, to kvfsm.Peer, l *leaving, out invitations) {
	due := l.sentAt + d.p.InviteEvery
	if l.invited && l.sentPhase == rec.Phase && d.now < due {
		d.wake(due)
		return
	}
	l.invited, l.sentPhase, l.sentAt = true, rec.Phase, d.now
	out[to] = append(out[to], Invitation{Shard: rec.Shard, Mark: l.mark, Phase: rec.Phase})
}

// invites makes one Invite for each group whose addresses are known, in a fixed
// order; and one more if some of its shards are frozen. Of those the only news is
// that they were installed: that answer is held back, apart from the others, until
// there is some.
func (d *Driver) invites(v *View, out invitations) []Invite {
	var list []Invite
	peers := slices.SortedFunc(maps.Keys(out), func(a, b kvfsm.Peer) int {
		return cmp.Or(slices.Compare(a.Incarnation[:], b.Incarnation[:]), cmp.Compare(a.Group, b.Group))
	})
	for _, to := range peers {
		replicas := v.replicas(to)
		if len(replicas) == 0 {
			for _, inv := range out[to] {
				d.leaving[inv.Shard].waiting = unlisted(v, to)
			}
			continue
		}
		in := Invite{From: d.self, To: to, Replicas: replicas, Adopted: v.Adopted()}
		held := in
		held.Hold = true
		for _, inv := range out[to] {
			if inv.Phase == kvfsm.PhaseFrozen {
				held.Shards = append(held.Shards, inv)
			} else {
				in.Shards = append(in.Shards, inv)
			}
		}
		for _, in := range []Invite{held, in} {
			if len(in.Shards) > 0 {
				list = append(list, in)
			}
		}
	}
	return list
}

// unlisted says why a receiver can't be invited.
func unlisted(v *View, to kvfsm.Peer) string {
	if v.Config.IsRetired(to.Incarnation) {
		return "the receiver was destroyed; repair the shard"
	}
	return "the receiver is not in the config"
}

// stepServing: Start only once the receiver said it is ready, so that a group
// that never came to life changes nothing.
func (d *Driver) stepServing(v *View, rec *kvfsm.Record, l *leaving) {
	switch {
	case l.standing == nil:
		l.waiting = "the receiver has not answered"
	case d.silent(l):
		l.waiting = "the receiver has fallen silent"
	case !l.standing.Ready:
		l.waiting = "the receiver is not ready"
	case d.held:
		l.waiting = "rebalancing is paused"
	default:
		d.propose(v, rec, &kvfsm.Start{Shard: rec.Shard, Handoff: v.Adopted()})
	}
}

// stepFreeze: Freeze once the receiver has the whole copy for exactly this
// handoff (INV-7), and the rest fits the budget. For a receiver that has fallen
// silent nothing is frozen, as it would stay so until it comes back, and no write is
// slowed: that does not help it to catch up.
func (d *Driver) stepFreeze(v *View, rec *kvfsm.Record, l *leaving) error {
	if !l.inTail {
		l.waiting = "the receiver is copying"
		if l.standing == nil {
			l.waiting = "the receiver has not answered"
		}
		return nil
	}
	if d.silent(l) {
		l.waiting = "the receiver has fallen silent"
		l.restBest, l.roundsWorse = 0, 0
		return nil
	}
	if err := d.measure(v, rec, l); err != nil {
		return err
	}
	if l.rest <= d.restMax(d.budget(v, rec)) {
		d.propose(v, rec, &kvfsm.Freeze{Shard: rec.Shard, Epoch: rec.Epoch, Handoff: rec.Handoff})
		return nil
	}
	l.waiting = "the tail of changes is too long for the pause budget"
	if delay := d.delay(l); delay > 0 {
		l.waiting = "the tail of changes does not get short; writes are slowed"
		d.actions.Throttles = append(d.actions.Throttles, Throttle{Shard: rec.Shard, Delay: delay})
	}
	return nil
}

// silent reports whether the receiver's last word is too old to count.
func (d *Driver) silent(l *leaving) bool { return d.now-l.heardAt > d.p.WordAge }

// fixed is what a pause takes however short the tail is: the invitation and the
// last fetch, the Freeze and the Install.
func (d *Driver) fixed() time.Duration { return 2*d.rates.RoundTrip + 2*d.rates.Commit }

// budget is for how long a shard may be frozen: what an operator who moved it by
// hand allowed, or else what all shards may.
func (d *Driver) budget(v *View, rec *kvfsm.Record) time.Duration {
	pin, pinned := v.Config.Pins[rec.Shard]
	if pinned && pin.MaxPauseMS > 0 && pin.Group == rec.To.Group {
		return time.Duration(pin.MaxPauseMS) * time.Millisecond
	}
	return d.p.PauseBudget
}

// restMax is how long the tail may take for Freeze. Where commits are so slow
// that the fixed part alone uses up the budget, waiting would not help: then a
// quarter of the budget is allowed on top, or nothing would ever move (INV-5).
func (d *Driver) restMax(budget time.Duration) time.Duration {
	return max(budget-d.fixed(), budget/4)
}

// measure estimates how long the tail behind the receiver's cursor takes.
func (d *Driver) measure(v *View, rec *kvfsm.Record, l *leaving) error {
	// Beyond what fits the budget twice, counting on changes nothing.
	limit := 2*int(uint64(d.budget(v, rec))*d.rates.ChangesPerSecond/uint64(time.Second)) + 1
	changes, size, err := kvfsm.ReadTailSize(v.Reader, rec, l.tailRevision, limit)
	if err != nil {
		return err
	}
	l.tail = changes
	l.rest = perSecond(uint64(changes), d.rates.ChangesPerSecond) + perSecond(size, d.rates.BytesPerSecond)
	if changes == limit {
		// More than the limit: compare by revisions, or a tail that grows would
		// look the same.
		l.tail = max(changes, int(rec.Revision-l.tailRevision))
		l.rest = max(l.rest, perSecond(uint64(l.tail), d.rates.ChangesPerSecond))
	}
	if l.looked == l.round {
		return nil
	}
	l.looked = l.round
	if l.restBest == 0 || l.rest < l.restBest*3/4 {
		l.restBest, l.roundsWorse = l.rest, 0
	} else {
		l.roundsWorse++
	}
	return nil
}

// perSecond returns how long n takes at a rate.
func perSecond(n, rate uint64) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

// delay is the advised delay of writes: none for the first rounds, then it
// doubles every four.
func (d *Driver) delay(l *leaving) time.Duration {
	over := l.roundsWorse - d.p.ThrottleRounds
	if over <= 0 {
		return 0
	}
	delay := time.Millisecond
	for i := 4; i < over && delay < d.p.ThrottleDelayMax; i += 4 {
		delay *= 2
	}
	return min(delay, d.p.ThrottleDelayMax)
}

// stepFrozen: Drop on any proof that epoch e+1 was installed, from the receiver
// or from anybody: the receiver may have passed it on and be gone.
func (d *Driver) stepFrozen(v *View, rec *kvfsm.Record, l *leaving) {
	if !l.frozen {
		l.frozen, l.frozenAt = true, d.now
	}
	proof, destroyed := d.heardOf(v, rec.Shard), v.Config.IsRetired(rec.To.Incarnation)
	if l.standing != nil && !destroyed && proof.Less(l.standing.Epoch) {
		proof = l.standing.Epoch
	}
	if proof.Less(rec.Epoch.Next()) {
		l.waiting = "the receiver is fetching the last changes"
		if destroyed {
			l.waiting = unlisted(v, rec.To)
		}
		return
	}
	if l.pause == 0 {
		l.pause = d.now - l.frozenAt
	}
	d.propose(v, rec, &kvfsm.Drop{Shard: rec.Shard, Epoch: rec.Epoch})
}

// Answered takes in a receiver's reply to an Invite. Replies may be old or come
// twice.
func (d *Driver) Answered(now time.Duration, in Invite, reply InviteReply) {
	if len(reply.Shards) != len(in.Shards) {
		return
	}
	for i := range reply.Shards {
		st, inv := reply.Shards[i], in.Shards[i]
		l := d.leaving[inv.Shard]
		// If another incarnation answers at that address, it says nothing about the
		// receiver: an emptied group that came back is a different group.
		if st.Shard != inv.Shard || l == nil || l.to != reply.From || l.mark != inv.Mark {
			continue
		}
		if l.standing != nil && st.Epoch.Less(l.standing.Epoch) {
			continue // a replica that lags behind the last one
		}
		l.standing, l.heardAt = &st, now
		if l.frozen && l.pause == 0 && !st.Epoch.Less(inv.Epoch.Next()) {
			l.pause = now - l.frozenAt
		}
		if st.Staging == nil || st.Staging.Mark != (kvfsm.Mark{Epoch: inv.Epoch.Next(), Handoff: inv.Handoff}) {
			continue
		}
		l.copiedBytes = max(l.copiedBytes, st.Staging.Bytes)
		l.see(st.Staging.Cursor)
	}
}

// Wanted takes in the wants of a receiver's Fetch, if the replica that answers
// it is the leader: they show the receiver's cursors sooner than its next
// answer does.
func (d *Driver) Wanted(now time.Duration, from shardcfg.Incarnation, wants []kvfsm.Want) {
	for _, w := range wants {
		if l := d.leaving[w.Shard]; l != nil && l.to == from && l.mark == w.Mark {
			l.heardAt = now
			l.see(w.Cursor)
		}
	}
}

// see takes in a cursor that the receiver's log once had for this handoff. The
// newest counts; a staging that was lost and begun again is slower than this
// says, which costs a longer pause and nothing else.
func (l *leaving) see(c kvfsm.Cursor) {
	if !c.Tail || (l.inTail && c.Revision < l.tailRevision) {
		return
	}
	l.inTail, l.tailRevision = true, c.Revision
	l.round++
}

// Progress describes the handoffs away from this group that are under way or
// just ended, in ascending order of shard.
func (d *Driver) Progress(now time.Duration) []Progress {
	var list []Progress
	for _, s := range slices.Sorted(maps.Keys(d.leaving)) {
		l := d.leaving[s]
		p := Progress{Shard: s, CopiedBytes: l.copiedBytes, Tail: uint64(l.tail), Pause: l.pause, Waiting: l.waiting}
		if l.frozen && l.pause == 0 {
			p.Pause = now - l.frozenAt
		}
		list = append(list, p)
	}
	return list
}
