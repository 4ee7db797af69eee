package handoff

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A Conversation is a leader's with the controllers: what it reports, and what
// follows from the answer, in an order that counts. The turns of one poll are
// Report, Heard, then, once the config that Heard returned is adopted, Settled,
// and, if that returned shards to claim, Granted. Any turn may fail; the next poll
// begins with Report. It shares a Driver's lock, or goroutine.
type Conversation struct {
	d *Driver
	// claims are to be asked for, ascending. A config of at least want is needed.
	claims []shardcfg.ShardID
	want   shardcfg.ConfigNum
	// owed are the tokens that this group was told to create, by generation, until a
	// report shows that it has. The Driver may have seen that sooner than the view
	// which is reported, so that its own memory does not count.
	owed map[shardcfg.ShardID]uint32
	// reported, heard and settled are configs: the one that the last report named, the
	// newest that the controllers had when they answered it, and that of the last
	// answer that was acted on. What was claimed before settled is known, so that the
	// group can't call itself drained by a newer one, however it came to adopt that.
	reported, heard, settled shardcfg.ConfigNum
}

// NewConversation returns that of a leader that was just elected, which decides
// by d.
func NewConversation(d *Driver) *Conversation {
	return &Conversation{d: d, owed: map[shardcfg.ShardID]uint32{}}
}

// A Holding is what a group reports of a shard whose token it has.
type Holding struct {
	Shard   shardcfg.ShardID
	Epoch   shardcfg.Epoch
	Serving bool // else it is frozen
	Content kvfsm.Content
}

// A Report is what a group says of itself.
type Report struct {
	Adopted  shardcfg.ConfigNum
	Holdings []Holding
	// Drained says that it holds nothing and is meant to hold nothing (INV-8).
	Drained bool
}

// Passed takes in what a pass of the Driver wants of the controllers, and reports
// whether they are to be asked now. Claims are asked for again and again while no
// controller answers.
func (c *Conversation) Passed(a *Actions, adopted shardcfg.ConfigNum) bool {
	c.claims = append(c.claims, a.Claims...)
	slices.Sort(c.claims)
	c.claims = slices.Compact(c.claims)
	c.want = a.AdoptAtLeast
	return c.Waits(adopted)
}

// Waits reports whether the Driver needs something of the controllers.
func (c *Conversation) Waits(adopted shardcfg.ConfigNum) bool {
	return len(c.claims) > 0 || c.want > adopted
}

// Report describes the group, by its applied state.
func (c *Conversation) Report(v *View) Report {
	r := Report{Adopted: v.Adopted()}
	c.reported = r.Adopted
	for i := range v.Records {
		rec := &v.Records[i]
		if rec.Phase.Serves() || rec.Phase == kvfsm.PhaseFrozen {
			r.Holdings = append(r.Holdings, Holding{Shard: rec.Shard, Epoch: rec.Epoch, Serving: rec.Phase.Serves(), Content: rec.Content})
		}
	}
	owed := c.owes(v)
	if r.Adopted <= c.settled {
		r.Drained, _ = Drained(c.d.self, v, owed)
	}
	return r
}

// owes returns how many of the tokens that the group was told to create a view
// does not show yet.
func (c *Conversation) owes(v *View) int {
	maps.DeleteFunc(c.owed, func(s shardcfg.ShardID, gen uint32) bool {
		rec := v.Record(s)
		return !rec.Epoch.IsZero() && rec.Epoch.Gen >= gen
	})
	return len(c.owed)
}

// A PollReply is what the controllers say to a report.
type PollReply struct {
	Hints []placement.Hint
	// Claimed are shards whose first token is this group's to create.
	Claimed []shardcfg.ShardID
	// Repairs are tokens of new generations that are this group's to make.
	Repairs []Grant
	// Num is their latest config; 0: none.
	Num shardcfg.ConfigNum
}

// Heard takes in an answer, and reports whether its config is to be adopted, and
// whether there is news for the Driver's next Step. v is the group's applied
// state; what is older errs on the side of doing things twice. Hints at nobody or
// at the group itself are removed from r.
//
// Claims and repairs come before the config (INV-8): once a config that lets the
// group go is adopted, even by a proposal whose outcome is unknown, the next
// report says drained unless an uncreated claim is known. Creating is legal
// whatever the config says.
func (c *Conversation) Heard(v *View, r *PollReply) (adopt, news bool) {
	r.Hints = slices.DeleteFunc(r.Hints, func(h placement.Hint) bool {
		return h.Holder.IsZero() || h.Holder.Incarnation == c.d.self.Peer.Incarnation
	})
	// Who knows less than the group does not answer it.
	c.heard = max(c.reported, r.Num)
	for _, h := range r.Hints {
		c.d.Heard(h.Shard, h.Epoch, h.Holder.Incarnation)
	}
	return r.Num > v.Adopted(), c.claimed(v, r.Claimed, r.Repairs)
}

// claimed passes on the claims to shards that were never created here, and the
// repairs of a generation above what is known here.
func (c *Conversation) claimed(v *View, granted []shardcfg.ShardID, repairs []Grant) (news bool) {
	list := slices.DeleteFunc(slices.Clone(granted), func(s shardcfg.ShardID) bool {
		rec := v.Record(s)
		return !rec.Epoch.IsZero()
	})
	grants := slices.DeleteFunc(slices.Clone(repairs), func(g Grant) bool {
		rec := v.Record(g.Shard)
		return rec.Epoch.Gen >= g.Gen
	})
	for _, s := range list {
		c.owed[s] = max(c.owed[s], 0)
	}
	for _, g := range grants {
		// A copy that shall thaw is still here, or is not waited for.
		if g.Frozen.IsZero() {
			c.owed[g.Shard] = max(c.owed[g.Shard], g.Gen)
		}
	}
	c.d.Claimed(list)
	c.d.Granted(grants)
	return len(list)+len(grants) > 0
}

// Settled ends a poll whose config, if it was to be adopted, is. It returns the
// shards to claim.
func (c *Conversation) Settled() (claim []shardcfg.ShardID) {
	c.settled = c.heard
	claim, c.claims = c.claims, nil
	return claim
}

// Granted takes in which of the asked claims were granted; the others are
// another group's. It reports whether there is news for the Driver's next Step.
func (c *Conversation) Granted(now time.Duration, v *View, asked, granted []shardcfg.ShardID) (news bool) {
	ours := make(map[shardcfg.ShardID]bool, len(granted))
	for _, s := range granted {
		ours[s] = true
	}
	c.d.ClaimRefused(now, slices.DeleteFunc(slices.Clone(asked), func(s shardcfg.ShardID) bool { return ours[s] }))
	return c.claimed(v, granted, nil)
}

// Idle reports whether a pass decided nothing.
func (a *Actions) Idle() bool {
	return len(a.Invites)+len(a.Fetches)+len(a.Proposals)+len(a.Copies)+len(a.Claims)+len(a.Throttles) == 0 && a.AdoptAtLeast == 0
}
