package handoff_test

import (
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A staging that its holder has frozen the shard for is kept, and gets its last
// pages, whatever offer of a shard that "serves" comes late, or from a view that was
// never one state.
func TestOfferShowsNothing(t *testing.T) {
	w, a, b := pair(t, 2)
	w.put(a, 10)
	w.stage(a, b)
	w.apply(a, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	invite := func(h shardcfg.ConfigNum, phase kvfsm.Phase) {
		b.driver.Invited(w.now, handoff.Invite{From: a.id, To: b.id.Peer, Shards: []handoff.Invitation{
			{Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 1}, Handoff: h}, Phase: phase}}})
	}
	invite(2, kvfsm.PhaseFrozen)
	w.next(b)
	invite(3, kvfsm.PhaseServing)
	acts := w.next(b)
	wantProposals(t, acts)
	invite(2, kvfsm.PhaseFrozen)
	w.now += time.Second // the Fetch of before is lost
	for _, f := range append(acts.Fetches, w.next(b).Fetches...) {
		w.wanted(a, b, f)
		for len(w.mail) > 0 {
			w.deliver()
		}
	}
	acts = w.next(b)
	if len(acts.Proposals) != 1 {
		t.Fatalf("proposals are %v, want an Install", texts(acts.Proposals))
	}
	if _, ok := acts.Proposals[0].(*kvfsm.Install); !ok {
		t.Errorf("it proposes %v, want an Install", texts(acts.Proposals))
	}
}
