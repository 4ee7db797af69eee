package clerk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// frozenMax is for how long a shard may be frozen, on its way to a group that
// lives, before it counts as unavailable: many times the budget of a handoff.
const frozenMax = time.Second

// The states of a cluster, best first.
const (
	StateHealthy     = "healthy"     // every shard is served, and everybody answers
	StateDegraded    = "degraded"    // every shard is served; another loss may change that
	StateUnavailable = "unavailable" // some shards are served by nobody, or by nobody who could be asked
)

// Health is what a Status comes to.
type Health struct {
	State string
	// Outages are the shards that nobody serves, as far as those know who were asked.
	Outages []Outage
	// Reasons say in words why the state is not StateHealthy, the outages first.
	Reasons []string
}

// An Outage is a number of shards that nobody serves, all for one reason.
type Outage struct {
	// GID is the group that it is up to; 0: none.
	GID    shardcfg.GroupID
	Shards int
	// Ranges are those shards, in ascending order, as long as possible each.
	Ranges []ShardRange
	Reason string
}

// A ShardRange is the shards from First to Last.
type ShardRange struct{ First, Last shardcfg.ShardID }

// Health judges the status.
func (s *Status) Health() Health {
	h := Health{State: StateHealthy, Outages: s.outages()}
	for _, o := range h.Outages {
		noun := "shards"
		if o.Shards == 1 {
			noun = "shard"
		}
		what := "UNAVAILABLE"
		if s.Config == nil && s.group(o.GID) == nil { // somebody may serve them, who was not asked
			what = "NOT KNOWN TO BE SERVED"
		}
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d %s %s: %s", o.Shards, noun, what, o.Reason))
	}
	h.Reasons = append(h.Reasons, s.losses()...)
	switch {
	case len(h.Outages) > 0:
		h.State = StateUnavailable
	case len(h.Reasons) > 0:
		h.State = StateDegraded
	}
	return h
}

// count counts the shards.
func (s *Status) count() {
	for _, sh := range s.Shards {
		_, reason := s.outageOf(sh)
		switch {
		case reason != "":
			s.Unavailable++
		case s.Config == nil && sh.Phase == phaseServing || s.Config != nil && sh.Settled():
			s.Settled++
		default:
			s.Moving++
		}
	}
}

// outages puts the shards that nobody serves together by reason.
func (s *Status) outages() (list []Outage) {
	for _, sh := range s.Shards {
		gid, reason := s.outageOf(sh)
		if reason == "" {
			continue
		}
		i := slices.IndexFunc(list, func(o Outage) bool { return o.GID == gid && o.Reason == reason })
		if i < 0 {
			i, list = len(list), append(list, Outage{GID: gid, Reason: reason})
		}
		o := &list[i]
		o.Shards++
		if n := len(o.Ranges); n > 0 && o.Ranges[n-1].Last+1 == sh.Shard {
			o.Ranges[n-1].Last = sh.Shard
		} else {
			o.Ranges = append(o.Ranges, ShardRange{sh.Shard, sh.Shard})
		}
	}
	return list
}

// outageOf says why nobody serves a shard, and which group that is up to; the
// reason is empty if somebody does, or is about to within a handoff's pause.
func (s *Status) outageOf(sh ShardStatus) (gid shardcfg.GroupID, reason string) {
	switch {
	case sh.Holder != 0 && !s.led(sh.Holder):
		return sh.Holder, s.leaderless(sh.Holder)
	case sh.Holder != 0 && sh.Phase != phaseFrozen:
		return 0, ""
	case sh.To != 0 && sh.ToRetired:
		return sh.Holder, fmt.Sprintf("their receiver, group %d, was declared destroyed, and they wait for a repair", sh.To)
	case sh.To != 0 && !s.led(sh.To):
		return sh.To, s.leaderless(sh.To)
	case sh.To != 0 && sh.Pause > frozenMax:
		return sh.To, fmt.Sprintf("they have been frozen for over %v on their way from group %d to group %d", frozenMax, sh.Holder, sh.To)
	case sh.To != 0:
		return 0, ""
	case s.Config == nil:
		return 0, "none of the replicas that were asked knows who holds them, and no configuration is known (name a replica of every group as a seed)"
	case sh.Owner == 0 && len(s.Groups) == 0:
		return 0, "no group has joined"
	case sh.Owner == 0:
		return 0, "no group owns them"
	case !s.led(sh.Owner):
		return sh.Owner, s.leaderless(sh.Owner)
	}
	return sh.Owner, fmt.Sprintf("group %d owns them and has not created them; they may wait for a repair", sh.Owner)
}

func (s *Status) group(gid shardcfg.GroupID) *GroupStatus {
	for i := range s.Groups {
		if s.Groups[i].GID == gid {
			return &s.Groups[i]
		}
	}
	return nil
}

func (s *Status) led(gid shardcfg.GroupID) bool {
	g := s.group(gid)
	return g != nil && g.Led
}

// leaderless says why a group that nobody leads can't serve.
func (s *Status) leaderless(gid shardcfg.GroupID) string {
	g := s.group(gid)
	switch {
	case g == nil && s.Config == nil:
		return fmt.Sprintf("they went to group %d, of which no replica was asked, because no configuration is known (name one of its replicas as a seed)", gid)
	case g == nil:
		return fmt.Sprintf("group %d is not listed", gid)
	}
	answer := 0
	for _, r := range g.Replicas {
		if r.Answers {
			answer++
		}
	}
	return fmt.Sprintf("group %d has no leader (%d of its %d replicas answer)", gid, answer, len(g.Replicas))
}

// losses are the reasons for which less than everything is well, though shards may
// be served.
func (s *Status) losses() (list []string) {
	if s.ConfigErr != nil {
		list = append(list, "no majority of the controllers answers: the configuration can't change")
	}
	for _, r := range s.Controllers {
		if !r.Healthy {
			list = append(list, describe("controller", r))
		}
	}
	for _, g := range s.Groups {
		for _, r := range g.Replicas {
			if !r.Healthy {
				list = append(list, describe(fmt.Sprintf("replica of group %d,", g.GID), r))
			}
		}
	}
	return list
}

// describe says what is wrong with a replica.
func describe(noun string, r ReplicaStatus) string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s at %s: %s", noun, r.ID, r.Address, r.Problem)), " ")
}
