package handoff

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// talk is the conversation of a group 1, with its driver.
func talk() (*Conversation, *Driver, kvfsm.Peer) {
	me := kvfsm.Peer{Group: 1, Incarnation: shardcfg.Incarnation{1}}
	d := NewDriver(Identity{Peer: me}, DefaultParams())
	return NewConversation(d), d, me
}

// Claim: a group reports what it has tokens of, and says that it is drained only
// once an answer was acted on, and not while it owes a shard that it claimed, even
// if the config of that answer was never adopted (INV-8).
func TestReports(t *testing.T) {
	c, _, _ := talk()
	other := &shardcfg.Config{Num: 3, Shards: []shardcfg.GroupID{2, 2}}
	v := &View{Config: other, Records: []kvfsm.Record{
		{Shard: 0, Phase: kvfsm.PhaseFrozen, Epoch: shardcfg.Epoch{Num: 2}}, {Shard: 1, Phase: kvfsm.PhasePassed}}}
	r := c.Report(v)
	if r.Adopted != 3 || r.Drained || len(r.Holdings) != 1 || r.Holdings[0].Epoch.Num != 2 || r.Holdings[0].Serving {
		t.Errorf("report: %+v", r)
	}
	empty := &View{Config: other}
	if c.Report(empty).Drained {
		t.Error("drained before the first answer")
	}
	if adopt, _ := c.Heard(empty, &PollReply{Num: 3}); adopt {
		t.Error("adopts what it has adopted")
	}
	c.Settled()
	if !c.Report(empty).Drained {
		t.Error("not drained, with nothing left")
	}
	if adopt, news := c.Heard(empty, &PollReply{Num: 4, Claimed: []shardcfg.ShardID{1}}); !adopt || !news {
		t.Errorf("a newer config is to be adopted: %v, a claim is news: %v", adopt, news)
	}
	if c.Report(empty).Drained {
		t.Error("drained with a claim that is not created")
	}
}

// Claim: a group that adopted a config of which no answer told it is not drained:
// what it claimed before that is not known (INV-8).
func TestConfigThatNoAnswerBrought(t *testing.T) {
	c, _, _ := talk()
	settle := func(num shardcfg.ConfigNum, r *PollReply) {
		c.Report(&View{Config: &shardcfg.Config{Num: num, Shards: []shardcfg.GroupID{2}}})
		c.Heard(&View{}, r)
		c.Settled()
	}
	drained := func(num shardcfg.ConfigNum) bool {
		return c.Report(&View{Config: &shardcfg.Config{Num: num, Shards: []shardcfg.GroupID{2}}}).Drained
	}
	settle(2, &PollReply{Num: 3})
	if !drained(3) || drained(4) {
		t.Errorf("after an answer with config 3, drained at 3: %v, at 4: %v", drained(3), drained(4))
	}
	settle(4, &PollReply{}) // it has the latest
	if !drained(4) || drained(5) {
		t.Errorf("after an answer to a report at config 4, drained at 4: %v, at 5: %v", drained(4), drained(5))
	}
}

// Claim: a group that was told to create a shard, by a claim or by a repair, is not
// drained before what it reports shows the token; that its driver has seen the
// token and forgot the order is no reason (INV-8).
func TestOwedTokens(t *testing.T) {
	for name, reply := range map[string]PollReply{
		"claimed":  {Num: 3, Claimed: []shardcfg.ShardID{0}},
		"repaired": {Num: 3, Repairs: []Grant{{Shard: 0, Gen: 2}}},
	} {
		c, d, _ := talk()
		leaves := &shardcfg.Config{Num: 3, Shards: []shardcfg.GroupID{2}}
		before := View{Config: leaves}
		made := View{Config: leaves, Records: []kvfsm.Record{{Phase: kvfsm.PhaseServing, Epoch: shardcfg.Epoch{Gen: 2, Num: 1}}}}
		passed := View{Config: leaves, Records: []kvfsm.Record{{Phase: kvfsm.PhasePassed, Epoch: shardcfg.Epoch{Gen: 2, Num: 2}}}}
		c.Heard(&before, &reply)
		c.Settled()
		if _, err := d.Step(time.Second, made); err != nil { // the driver is ahead
			t.Fatal(err)
		}
		if c.Report(&before).Drained {
			t.Errorf("%s: drained by a view that does not show the token", name)
		}
		if c.Report(&made).Drained {
			t.Errorf("%s: drained with the token", name)
		}
		if !c.Report(&passed).Drained {
			t.Errorf("%s: not drained, though the token was passed on", name)
		}
	}
	c, _, _ := talk()
	gone := View{Config: &shardcfg.Config{Num: 3, Shards: []shardcfg.GroupID{2}}}
	c.Heard(&gone, &PollReply{Num: 3, Repairs: []Grant{{Frozen: shardcfg.Epoch{Num: 1}, Gen: 1}}})
	c.Settled()
	if !c.Report(&gone).Drained {
		t.Error("waits for a copy to thaw that is not there")
	}
}

// Claim: claims are asked for until they are granted or refused, each once, and a
// needed config until it is adopted.
func TestClaimsAreAskedFor(t *testing.T) {
	c, d, _ := talk()
	if c.Passed(&Actions{}, 5) {
		t.Error("asks for nothing")
	}
	if !c.Passed(&Actions{AdoptAtLeast: 6}, 5) || c.Waits(6) {
		t.Error("a config is asked for until it is adopted")
	}
	c.Passed(&Actions{Claims: []shardcfg.ShardID{3, 1}}, 5)
	if !c.Passed(&Actions{Claims: []shardcfg.ShardID{1, 2}}, 5) {
		t.Error("does not ask for claims")
	}
	asked := c.Settled()
	if !slices.Equal(asked, []shardcfg.ShardID{1, 2, 3}) {
		t.Errorf("asks for %v", asked)
	}
	v := &View{Config: &shardcfg.Config{Num: 5}, Records: []kvfsm.Record{{Shard: 2, Epoch: shardcfg.Epoch{Num: 1}}}}
	if !c.Granted(time.Second, v, asked, []shardcfg.ShardID{1, 2}) || len(d.claimed) != 1 || !d.claimed[1] {
		t.Errorf("claims to create are %v, want that of shard 1", d.claimed)
	}
	if d.asked[3] != time.Second+claimRefused || len(d.asked) != 1 {
		t.Errorf("refused: %v, want shard 3", d.asked)
	}
	if c.Granted(time.Second, v, asked, nil) {
		t.Error("a refusal is news for the next step")
	}
}

// Claim: hints reach the driver, without those at nobody or at the group itself.
func TestHints(t *testing.T) {
	c, d, me := talk()
	other := kvfsm.Peer{Group: 2, Incarnation: shardcfg.Incarnation{2}}
	r := PollReply{Hints: []placement.Hint{{Shard: 0, Epoch: shardcfg.Epoch{Num: 4}, Holder: other},
		{Shard: 1, Epoch: shardcfg.Epoch{Num: 4}, Holder: me}, {Shard: 2, Epoch: shardcfg.Epoch{Num: 4}}}}
	c.Heard(&View{}, &r)
	if len(r.Hints) != 1 || r.Hints[0].Holder != other || len(d.heard) != 1 {
		t.Errorf("hints %v, the driver heard %v", r.Hints, d.heard)
	}
}
