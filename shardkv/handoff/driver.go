package handoff

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A Driver decides the next steps of one group's leader; see the package
// comment. Its memory is bounded by the number of shards.
type Driver struct {
	self  Identity
	p     Params
	rates Rates
	// held says that handoffs that have not begun must wait.
	held bool

	leaving  map[shardcfg.ShardID]*leaving    // shards that should go to another group
	arriving map[shardcfg.ShardID]*arriving   // shards that were offered to this one, or are staged
	sources  map[shardcfg.Incarnation]*source // the groups that shards are fetched from
	pending  map[shardcfg.ShardID]pending     // proposals whose effect has not been seen
	// claimed are the shards whose first token this group must create; asked
	// says when a claim may be asked for (again).
	claimed map[shardcfg.ShardID]bool
	asked   map[shardcfg.ShardID]time.Duration
	// granted are the repairs that this group must carry out.
	granted map[shardcfg.ShardID]Grant
	// heard is the greatest epoch at which another group was heard to hold each
	// shard.
	heard map[shardcfg.ShardID]hearsay

	fetches uint64 // how many were ever made
	// lastSource is the one that was asked for pages last: the others have their turn.
	lastSource shardcfg.Incarnation

	// Of the present Step:

	now     time.Duration
	actions Actions
	hand    hand
}

// NewDriver returns the memory of a leader that was just elected.
func NewDriver(self Identity, p Params) *Driver {
	return &Driver{
		self: self, p: p, rates: p.Rates,
		leaving:  map[shardcfg.ShardID]*leaving{},
		arriving: map[shardcfg.ShardID]*arriving{},
		sources:  map[shardcfg.Incarnation]*source{},
		pending:  map[shardcfg.ShardID]pending{},
		claimed:  map[shardcfg.ShardID]bool{},
		asked:    map[shardcfg.ShardID]time.Duration{},
		granted:  map[shardcfg.ShardID]Grant{},
		heard:    map[shardcfg.ShardID]hearsay{},
	}
}

// SetRates replaces the assumed rates by measured ones. Zero fields stay as
// they were.
func (d *Driver) SetRates(r Rates) {
	if r.RoundTrip > 0 {
		d.rates.RoundTrip = r.RoundTrip
	}
	if r.Commit > 0 {
		d.rates.Commit = r.Commit
	}
	if r.BytesPerSecond > 0 {
		d.rates.BytesPerSecond = r.BytesPerSecond
	}
	if r.ChangesPerSecond > 0 {
		d.rates.ChangesPerSecond = r.ChangesPerSecond
	}
}

// SetReplicas replaces the addresses that other groups may use.
func (d *Driver) SetReplicas(replicas []string) { d.self.Replicas = slices.Clone(replicas) }

// Hold holds back handoffs that have not begun, or lets them go. Those that
// have begun go on.
func (d *Driver) Hold(held bool) { d.held = held }

// Claimed says for which shards the controllers granted this group the claim.
// A claimer creates, whatever configs say later; it is forgotten once created.
func (d *Driver) Claimed(shards []shardcfg.ShardID) {
	for _, s := range shards {
		d.claimed[s] = true
	}
}

// claimRetry is after how long a claim is asked for again, claimRefused after
// how long one that another group has.
const (
	claimRetry   = time.Second
	claimRefused = 10 * time.Second
)

// ClaimRefused says which claims the controllers answered with no: another
// group creates, or created, those shards, and will invite.
func (d *Driver) ClaimRefused(now time.Duration, shards []shardcfg.ShardID) {
	for _, s := range shards {
		d.asked[s] = now + claimRefused
	}
}

// Granted says which repairs the controllers granted this group. Like a claimer
// it carries them out whatever configs say later; they are forgotten once done.
func (d *Driver) Granted(grants []Grant) {
	for _, g := range grants {
		if d.granted[g.Shard].Gen < g.Gen {
			d.granted[g.Shard] = g
		}
	}
}

// hearsay is what was heard of a shard's holder.
type hearsay struct {
	epoch  shardcfg.Epoch
	holder shardcfg.Incarnation
}

// Heard says that a group other than this one was reported to hold a shard, or
// to have held it, at an epoch. Such reports only grow true, so they may be old.
func (d *Driver) Heard(s shardcfg.ShardID, e shardcfg.Epoch, holder shardcfg.Incarnation) {
	if holder != d.self.Peer.Incarnation && d.heard[s].epoch.Less(e) {
		d.heard[s] = hearsay{e, holder}
	}
}

// heardOf returns the greatest epoch at which another group was heard to hold a
// shard; zero: none was. A group that was destroyed holds nothing, and what it
// held is no reason to give up a copy that may be the last.
func (d *Driver) heardOf(v *View, s shardcfg.ShardID) shardcfg.Epoch {
	h := d.heard[s]
	if v.Config.IsRetired(h.holder) {
		return shardcfg.Epoch{}
	}
	return h.epoch
}

// Step says what to do next. v is the group's newest applied state. An error is
// the store's.
func (d *Driver) Step(now time.Duration, v View) (Actions, error) {
	d.now = now
	d.actions = Actions{Wait: d.p.InviteEvery}
	if v.Config == nil {
		return d.actions, nil
	}
	d.forget(&v)
	out := invitations{}
	for i := range v.Records {
		if err := d.stepLeaving(&v, &v.Records[i], out); err != nil {
			return Actions{}, err
		}
	}
	d.actions.Invites = d.invites(&v, out)
	d.stepArriving(&v)
	d.stepClaims(&v)
	d.stepGrants(&v)
	a := d.actions
	d.actions = Actions{}
	return a, nil
}

// forget drops memories that the applied state has overtaken.
func (d *Driver) forget(v *View) {
	for s, p := range d.pending {
		rec := v.Record(s)
		if p.overtaken(stateOf(v, &rec)) {
			delete(d.pending, s)
		}
	}
	for s := range d.leaving {
		rec := v.Record(s)
		if d.receiver(v, &rec).IsZero() && rec.Phase != kvfsm.PhasePassed {
			delete(d.leaving, s)
		}
	}
}

// stepClaims: an owner whose shard was never created here creates it if it has
// the claim, and claims it if nobody was heard to hold it.
func (d *Driver) stepClaims(v *View) {
	for _, s := range slices.Sorted(maps.Keys(d.claimed)) {
		rec := v.Record(s)
		if !rec.Epoch.IsZero() {
			delete(d.claimed, s)
			continue
		}
		d.propose(v, &rec, &kvfsm.Create{Shard: s, Claimer: d.self.Peer.Incarnation})
	}
	for i := range v.Config.Shards {
		s := shardcfg.ShardID(i)
		if v.Config.Shards[i] != d.self.Peer.Group || d.claimed[s] || !d.heardOf(v, s).IsZero() || d.arriving[s] != nil {
			continue
		}
		rec := v.Record(s)
		if v.owner(s).Incarnation != d.self.Peer.Incarnation || rec.Phase != kvfsm.PhaseAbsent || !rec.Epoch.IsZero() || rec.Staging != nil {
			delete(d.asked, s)
			continue
		}
		if at, ok := d.asked[s]; ok && d.now < at {
			d.wake(at)
			continue
		}
		d.asked[s] = d.now + claimRetry
		d.wake(d.now + claimRetry)
		d.actions.Claims = append(d.actions.Claims, s)
	}
}

// stepGrants: a shard whose receiver was destroyed serves again, and one whose
// data was destroyed begins anew. A grant for a frozen copy that is not there any
// more is void: the controllers will see that, and grant another.
func (d *Driver) stepGrants(v *View) {
	for _, s := range slices.Sorted(maps.Keys(d.granted)) {
		rec, g := v.Record(s), d.granted[s]
		switch {
		case rec.Epoch.Gen >= g.Gen:
			delete(d.granted, s)
		case g.Frozen.IsZero():
			d.propose(v, &rec, &kvfsm.Create{Shard: s, Claimer: d.self.Peer.Incarnation, Gen: g.Gen})
		case rec.Phase == kvfsm.PhaseFrozen && rec.Epoch == g.Frozen:
			d.propose(v, &rec, &kvfsm.Thaw{Shard: s, Epoch: g.Frozen, Gen: g.Gen})
		default:
			delete(d.granted, s)
		}
	}
}

// pending is a proposal whose effect has not been seen.
type pending struct {
	state state
	// until is when it may be repeated.
	until  time.Duration
	failed int // how often it failed in this state
}

// state is the part of the applied state that proposals for a shard depend on.
type state struct {
	adopted    shardcfg.ConfigNum
	phase      kvfsm.Phase
	mark       kvfsm.Mark
	staging    kvfsm.Mark
	cursorTail bool
	cursorKey  string
	cursorRev  shardcfg.Revision
}

func stateOf(v *View, r *kvfsm.Record) state {
	st := state{adopted: v.Adopted(), phase: r.Phase, mark: r.Mark()}
	if r.Staging != nil {
		st.staging = r.Staging.Mark()
		st.cursorTail, st.cursorKey = r.Staging.Cursor.Tail, string(r.Staging.Cursor.Key)
		st.cursorRev = r.Staging.Cursor.Revision
	}
	return st
}

func (p *pending) overtaken(now state) bool { return p.state != now }

// propose adds a proposal unless one for the shard is under way in the same
// state, or this Step has enough. It reports whether one is under way now.
func (d *Driver) propose(v *View, rec *kvfsm.Record, c kvfsm.Command) bool {
	p, ok := d.pending[rec.Shard]
	if ok && d.now < p.until {
		d.wake(p.until)
		return true
	}
	if len(d.actions.Proposals)+len(d.actions.Copies) >= d.p.ProposalsMax {
		d.wake(d.now)
		return false
	}
	p.state, p.until = stateOf(v, rec), d.now+d.p.ProposeTimeout
	d.pending[rec.Shard] = p
	d.wake(p.until)
	if isCopy(c) {
		d.actions.Copies = append(d.actions.Copies, c)
	} else {
		d.actions.Proposals = append(d.actions.Proposals, c)
	}
	return true
}

// isCopy tells pages of a copy from everything else.
func isCopy(c kvfsm.Command) bool {
	page, ok := c.(*kvfsm.Chunk)
	return ok && !page.From.Tail
}

// Proposed says how a proposal ended. After an error it is repeated, whether it
// took effect or not: guards make that harmless; but the more often it failed, the
// later, for who refuses has too much to do. One whose guard failed is repeated after
// a while, if the state still asks for it.
func (d *Driver) Proposed(now time.Duration, c kvfsm.Command, v kvfsm.Verdict, err error) {
	s, ok := kvfsm.HandoffShard(c)
	if !ok {
		return
	}
	if err == nil && !v.Done {
		d.refused(s)
	}
	p, waiting := d.pending[s]
	switch {
	case !waiting || err == nil && v.Done:
		return
	case err != nil:
		restMax := d.p.InviteEvery
		if isCopy(c) {
			restMax = d.p.RefusedRestMax
		}
		p.until = min(p.until, now+min(d.p.RefusedRest<<min(p.failed, 16), restMax))
		p.failed++
	default:
		p.until = min(p.until, now+d.p.InviteEvery)
	}
	d.pending[s] = p
}

// wake asks for a Step at a time or before.
func (d *Driver) wake(at time.Duration) {
	d.actions.Wait = min(d.actions.Wait, max(at-d.now, time.Millisecond))
}
