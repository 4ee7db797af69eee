package handoff_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// pair is a calm world of two or three groups of one shard, led by hand: group 1
// holds the shard, config 2 gives it to group 2.
func pair(t *testing.T, groups int) (w *world, a, b *group) {
	w = newWorld(t, 1, groups, 1)
	w.calm = true
	a, b = w.groups[0], w.groups[1]
	w.ownerIs(a)
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()}, &kvfsm.Create{Claimer: a.id.Peer.Incarnation})
	w.ownerIs(b)
	for _, g := range w.groups {
		w.apply(g, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	}
	return w, a, b
}

// ownerIs makes a config that gives every shard to g.
func (w *world) ownerIs(g *group) {
	w.changeConfig()
	for s := range w.latest().Shards {
		w.latest().Shards[s] = g.id.Peer.Group
	}
}

// apply commits commands as one entry.
func (w *world) apply(g *group, cmds ...kvfsm.Command) {
	w.t.Helper()
	queue := g.queue
	g.queue = cmds
	w.commit(g)
	g.queue = queue
}

// next steps the driver a tick later, without carrying anything out.
func (w *world) next(g *group) handoff.Actions {
	w.t.Helper()
	w.now += 100 * time.Millisecond
	a, err := g.driver.Step(w.now, g.view)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) put(g *group, n int) {
	w.t.Helper()
	var cmds []kvfsm.Command
	for i := range n {
		w.model.token++
		cmds = append(cmds, &kvfsm.Write{Op: kvfsm.OpPut, Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "%d", w.model.token)})
	}
	e := entry.Entry{Index: uint64(len(g.log) + 1), Clock: 1e9}
	for _, c := range cmds {
		e.Commands = append(e.Commands, kvfsm.Encode(c))
	}
	g.log = append(g.log, e)
	applyEntry(w.t, g.machine, g.store, &e)
	w.look(g)
}

func wantProposals(t *testing.T, a handoff.Actions, want ...kvfsm.Command) {
	t.Helper()
	got := proposals(a)
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("proposals are %v, want %v", texts(got), texts(want))
	}
}

func texts(cmds []kvfsm.Command) (list []string) {
	for _, c := range cmds {
		list = append(list, fmt.Sprintf("%T%+v", c, c))
	}
	return list
}

// A holder invites, and starts only once the very group it invited said that it
// is ready: a group that never came to life, or another one at its address,
// changes nothing.
func TestStartNeedsReady(t *testing.T) {
	w, a, b := pair(t, 2)
	acts := w.next(a)
	wantProposals(t, acts)
	if len(acts.Invites) != 1 || acts.Invites[0].To != b.id.Peer || acts.Invites[0].Shards[0].Phase != kvfsm.PhaseServing {
		t.Fatalf("invites are %+v", acts.Invites)
	}
	in := acts.Invites[0]
	reply := handoff.Answer(b.id, &b.view, in)
	impostor := reply
	impostor.From = shardcfg.Incarnation{99}
	a.driver.Answered(w.now, in, impostor)
	wantProposals(t, w.next(a))
	unready := handoff.InviteReply{From: reply.From, Shards: []handoff.Standing{{}}}
	a.driver.Answered(w.now, in, unready)
	wantProposals(t, w.next(a))
	a.driver.Answered(w.now, in, reply)
	a.driver.Hold(true)
	wantProposals(t, w.next(a))
	a.driver.Hold(false)
	wantProposals(t, w.next(a), &kvfsm.Start{Handoff: 2})
	wantProposals(t, w.next(a)) // one at a time
}

// A receiver says "ready" exactly when the guards of Stage hold; a frozen
// holder is not refused by a group that is not the owner.
func TestReady(t *testing.T) {
	w, a, b := pair(t, 3)
	c := w.groups[2]
	invite := func(to *group, phase kvfsm.Phase, epoch uint64, h shardcfg.ConfigNum) handoff.Invite {
		return handoff.Invite{From: a.id, To: to.id.Peer, Shards: []handoff.Invitation{
			{Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: epoch}, Handoff: h}, Phase: phase}}}
	}
	for i, tc := range []struct {
		g    *group
		in   handoff.Invite
		want bool
	}{
		{b, invite(b, kvfsm.PhaseServing, 1, 2), true},
		{b, invite(b, kvfsm.PhaseLeaving, 1, 2), true},
		{b, invite(b, kvfsm.PhaseLeaving, 1, 3), false}, // config not adopted yet
		{b, invite(c, kvfsm.PhaseLeaving, 1, 2), false}, // addressed to another
		{c, invite(c, kvfsm.PhaseLeaving, 1, 2), false}, // not the owner
		{c, invite(c, kvfsm.PhaseFrozen, 1, 2), true},   // but nobody else can
		{a, invite(a, kvfsm.PhaseFrozen, 1, 2), false},  // serves it
	} {
		if got := handoff.Answer(tc.g.id, &tc.g.view, tc.in).Shards[0].Ready; got != tc.want {
			t.Errorf("case %d: ready is %v", i, got)
		}
	}
	b.driver.Invited(w.now, invite(b, kvfsm.PhaseLeaving, 1, 3))
	if got := w.next(b).AdoptAtLeast; got != 3 {
		t.Errorf("asks for config %d", got)
	}
}

// stage brings the handoff to where group 2 has the whole copy.
func (w *world) stage(a, b *group) {
	w.t.Helper()
	w.apply(a, &kvfsm.Start{Handoff: 2})
	w.apply(b, &kvfsm.Stage{Epoch: shardcfg.Epoch{Num: 2}, Handoff: 2, From: a.id.Peer, To: b.id.Peer.Incarnation})
	w.next(a) // makes the memory that wants are told to
	w.fetch(a, b)
}

// fetch carries one page over and tells the holder what was wanted.
func (w *world) fetch(a, b *group) {
	w.t.Helper()
	st := b.view.Records[0].Staging
	want := kvfsm.Want{Mark: st.Wanted(), Cursor: st.Cursor}
	a.driver.Wanted(w.now, b.id.Peer.Incarnation, []kvfsm.Want{want})
	p, err := kvfsm.ReadPage(a.store, b.id.Peer.Incarnation, want, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	if p.Last {
		w.apply(b, &kvfsm.Install{Epoch: st.Epoch, Handoff: st.Handoff, From: st.Cursor, Items: p.Items, Summary: p.Summary})
		return
	}
	w.apply(b, &kvfsm.Chunk{Epoch: st.Epoch, Handoff: st.Handoff, From: st.Cursor, Next: p.Next, Items: p.Items})
}

// Freeze waits for the whole copy, and for a tail that fits the pause budget;
// if the tail does not get short, writes are slowed, more and more, and
// the wait is visible.
func TestFreezeFitsBudget(t *testing.T) {
	w, a, b := pair(t, 2)
	w.put(a, 3000)
	w.stage(a, b)
	wantProposals(t, w.next(a)) // the holder has not heard that the copy is complete
	var delays []time.Duration
	for range 12 {
		w.put(a, 3000)
		w.fetch(a, b)
		w.put(a, 3000)
		acts := w.next(a)
		wantProposals(t, acts)
		if len(acts.Throttles) > 0 {
			delays = append(delays, acts.Throttles[0].Delay)
		}
	}
	if len(delays) < 4 || delays[0] <= 0 || delays[len(delays)-1] <= delays[0] {
		t.Errorf("advised delays are %v", delays)
	}
	if p := a.driver.Progress(w.now); len(p) != 1 || p[0].Waiting == "" || p[0].Tail < 3000 {
		t.Errorf("progress is %+v", p)
	}
	w.fetch(a, b)
	w.put(a, 10)
	w.fetch(a, b)
	acts := w.next(a)
	wantProposals(t, acts, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	if len(acts.Throttles) > 0 {
		t.Errorf("throttles once it fits: %v", acts.Throttles)
	}
}

// The pause budget of a pin counts for the handoff to its group, and for no
// other; a new config may change it while the shard is on its way.
func TestMaxPauseOfAPin(t *testing.T) {
	w, a, b := pair(t, 3)
	w.stage(a, b)
	pin := func(p shardcfg.Pin) {
		w.ownerIs(b)
		w.latest().Pins[0] = p
		w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	}
	w.put(a, 3000) // 150 ms, by the rate that is assumed
	w.fetch(a, b)
	w.put(a, 3000)
	freeze := &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2}
	for _, c := range []struct {
		pin  shardcfg.Pin
		fits bool
	}{
		{shardcfg.Pin{Group: b.id.Peer.Group}, false},
		{shardcfg.Pin{Group: b.id.Peer.Group, MaxPauseMS: 100}, false},
		{shardcfg.Pin{Group: w.groups[2].id.Peer.Group, MaxPauseMS: 1000}, false},
		{shardcfg.Pin{Group: b.id.Peer.Group, MaxPauseMS: 1000}, true},
	} {
		pin(c.pin)
		if acts := w.next(a); c.fits {
			wantProposals(t, acts, freeze)
		} else {
			wantProposals(t, acts)
		}
	}
}

// A slow disk alone may use up the budget; a short tail freezes nevertheless.
func TestFreezeOnSlowDisk(t *testing.T) {
	w, a, b := pair(t, 2)
	w.stage(a, b)
	a.driver.SetRates(handoff.Rates{Commit: time.Second})
	w.fetch(a, b)
	wantProposals(t, w.next(a), &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
}

// A copy that was frozen for a group that is retired is not dropped, whatever that
// group once showed, and serves again by a grant for its epoch.
func TestThawFollowsTheGrant(t *testing.T) {
	w, a, b := pair(t, 3)
	w.stage(a, b)
	w.apply(a, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	a.driver.Heard(0, shardcfg.Epoch{Num: 2}, b.id.Peer.Incarnation)
	for _, in := range w.next(a).Invites { // what b said once it had installed the shard
		a.driver.Answered(w.now, in, handoff.InviteReply{From: b.id.Peer.Incarnation, Shards: []handoff.Standing{{Epoch: shardcfg.Epoch{Num: 2}}}})
	}
	w.ownerIs(w.groups[2])
	c := w.latest()
	delete(c.Groups, b.id.Peer.Group)
	c.Retired = []shardcfg.Incarnation{b.id.Peer.Incarnation}
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: c})
	wantProposals(t, w.next(a))
	if p := a.driver.Progress(w.now); len(p) != 1 || !strings.Contains(p[0].Waiting, "destroyed") {
		t.Errorf("progress is %+v", p)
	}
	a.driver.Granted([]handoff.Grant{{Frozen: shardcfg.Epoch{Num: 3}, Gen: 1}})
	wantProposals(t, w.next(a)) // void: no such copy
	a.driver.Granted([]handoff.Grant{{Frozen: shardcfg.Epoch{Num: 1}, Gen: 5}, {Frozen: shardcfg.Epoch{Num: 1}, Gen: 4}})
	wantProposals(t, w.next(a), &kvfsm.Thaw{Epoch: shardcfg.Epoch{Num: 1}, Gen: 5})
}

// A shard whose data was destroyed is created anew by who is granted that, though
// it once had it, and though the group that was destroyed was heard to hold it.
func TestCreateFollowsTheGrant(t *testing.T) {
	w, a, b := pair(t, 2)
	w.stage(a, b)
	w.apply(a, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	w.fetch(a, b)
	w.apply(a, &kvfsm.Drop{Epoch: shardcfg.Epoch{Num: 1}})
	w.groups = w.groups[:1]
	a.driver.Heard(0, shardcfg.Epoch{Num: 2}, b.id.Peer.Incarnation)
	w.ownerIs(a)
	c := w.latest()
	delete(c.Groups, b.id.Peer.Group)
	c.Retired = []shardcfg.Incarnation{b.id.Peer.Incarnation}
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: c})
	wantProposals(t, w.next(a))
	a.driver.Granted([]handoff.Grant{{Gen: 3}})
	create := &kvfsm.Create{Claimer: a.id.Peer.Incarnation, Gen: 3}
	wantProposals(t, w.next(a), create)
	w.apply(a, create)
	wantProposals(t, w.next(a))
}

// Drop follows any proof of the successor, from the receiver or from anybody,
// and nothing less.
func TestDropNeedsProof(t *testing.T) {
	for _, third := range []bool{false, true} {
		w, a, b := pair(t, 2)
		w.stage(a, b)
		w.apply(a, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
		a.driver.Heard(0, shardcfg.Epoch{Num: 1}, b.id.Peer.Incarnation)
		a.driver.Heard(0, shardcfg.Epoch{Num: 9}, a.id.Peer.Incarnation) // its own report
		acts := w.next(a)
		wantProposals(t, acts)
		if len(acts.Invites) != 1 || acts.Invites[0].Shards[0].Phase != kvfsm.PhaseFrozen {
			t.Fatalf("invites are %+v", acts.Invites)
		}
		in := acts.Invites[0]
		a.driver.Answered(w.now, in, handoff.Answer(b.id, &b.view, in))
		wantProposals(t, w.next(a))
		w.fetch(a, b)
		if third {
			a.driver.Heard(0, shardcfg.Epoch{Num: 2}, shardcfg.Incarnation{3})
		} else {
			a.driver.Answered(w.now, in, handoff.Answer(b.id, &b.view, in))
		}
		wantProposals(t, w.next(a), &kvfsm.Drop{Epoch: shardcfg.Epoch{Num: 1}})
	}
}

// A staging goes only when its own source shows that it moved past it, or when
// another group holds the epoch that it would mint: not on an answer that is
// merely old.
func TestDiscardNeedsProof(t *testing.T) {
	discard := &kvfsm.Discard{Epoch: shardcfg.Epoch{Num: 2}, Handoff: 2}
	for i, tc := range []struct {
		epoch uint64
		h     shardcfg.ConfigNum
		from  int
		want  bool
	}{
		{epoch: 1, h: 1, want: false},
		{epoch: 0, h: 9, want: false},
		{epoch: 1, h: 2, want: false},
		{epoch: 1, h: 3, want: true},
		{epoch: 2, h: 2, want: true},
		{epoch: 1, h: 3, from: 2, want: false}, // another group's mark
	} {
		w, a, b := pair(t, 3)
		w.stage(a, b)
		acts := w.next(b)
		if len(acts.Fetches) != 1 {
			t.Fatalf("fetches are %+v", acts.Fetches)
		}
		f := acts.Fetches[0]
		f.From = w.groups[tc.from].id.Peer
		b.driver.Fetched(w.now, f, []kvfsm.Page{{NotYours: true, Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: tc.epoch}, Handoff: tc.h}}})
		acts = w.next(b)
		if tc.want {
			wantProposals(t, acts, discard)
		} else if got := proposals(acts); len(got) > 0 {
			t.Errorf("case %d: proposals are %v", i, texts(got))
		}
	}
	w, a, b := pair(t, 3)
	w.stage(a, b)
	b.driver.Heard(0, shardcfg.Epoch{Num: 2}, shardcfg.Incarnation{3})
	wantProposals(t, w.next(b), discard)
}

// A staging also goes, whoever leads, once its source is no longer listed: the
// shard went to somebody else, and the source was drained and wiped before the
// receiver could ask it. Kept, the staging would hold up the receiver's own leave
// for ever.
func TestDiscardFromDrainedSource(t *testing.T) {
	w, a, b := pair(t, 3)
	w.stage(a, b)
	w.ownerIs(w.groups[2])
	delete(w.latest().Groups, a.id.Peer.Group)
	for _, reborn := range []bool{false, true} {
		w.elect(b)
		if reborn {
			w.ownerIs(w.groups[2])
			again := w.latest().Groups[a.id.Peer.Group]
			again.Incarnation = shardcfg.Incarnation{99}
			w.latest().Groups[a.id.Peer.Group] = again
		}
		w.apply(b, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
		wantProposals(t, w.next(b), &kvfsm.Discard{Epoch: shardcfg.Epoch{Num: 2}, Handoff: 2})
	}
}

// A new leader of the receiver goes on from the cursor in its log, with the
// addresses of the config; an unanswered Fetch is made again.
func TestNewLeaderGoesOn(t *testing.T) {
	w, a, b := pair(t, 2)
	w.put(a, 5)
	w.stage(a, b)
	w.elect(b)
	acts := w.next(b)
	if len(acts.Fetches) != 1 || !acts.Fetches[0].Wants[0].Cursor.Tail || acts.Fetches[0].Replicas[0] != a.id.Replicas[0] {
		t.Fatalf("fetches are %+v", acts.Fetches)
	}
	if again := w.next(b); len(again.Fetches) != 0 {
		t.Fatalf("fetches twice: %+v", again.Fetches)
	}
	w.now += time.Second
	if again := w.next(b); len(again.Fetches) != 1 {
		t.Fatalf("gives up: %+v", again)
	}
}

// An owner claims what nobody was heard to hold, again after a while, less
// often where another group has the claim; a claimer creates whatever the
// config says.
func TestClaims(t *testing.T) {
	w := newWorld(t, 1, 2, 2)
	a, b := w.groups[0], w.groups[1]
	w.ownerIs(a)
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	a.driver.Heard(1, shardcfg.Epoch{Num: 3}, b.id.Peer.Incarnation)
	if got := w.next(a).Claims; !reflect.DeepEqual(got, []shardcfg.ShardID{0}) {
		t.Fatalf("claims %v", got)
	}
	a.driver.ClaimRefused(w.now, []shardcfg.ShardID{0})
	w.now += 5 * time.Second
	if got := w.next(a).Claims; len(got) != 0 {
		t.Fatalf("claims again: %v", got)
	}
	w.now += 6 * time.Second
	if got := w.next(a).Claims; len(got) != 1 {
		t.Fatalf("never claims again: %v", got)
	}
	w.ownerIs(b)
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	a.driver.Claimed([]shardcfg.ShardID{0})
	wantProposals(t, w.next(a), &kvfsm.Create{Claimer: a.id.Peer.Incarnation})
}

// INV-8: a group is drained once nothing is left and nothing is meant for it.
func TestDrained(t *testing.T) {
	w, a, b := pair(t, 2)
	drained := func(g *group) bool {
		done, why := handoff.Drained(g.id, &g.view, 0)
		if done != (why == "") {
			t.Errorf("drained %v, %q", done, why)
		}
		return done
	}
	if drained(a) || drained(b) {
		t.Errorf("the holder or the owner is drained")
	}
	w.stage(a, b)
	w.apply(a, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	w.fetch(a, b)
	if drained(a) {
		t.Errorf("drained with a frozen copy")
	}
	w.apply(a, &kvfsm.Drop{Epoch: shardcfg.Epoch{Num: 1}})
	if !drained(a) || drained(b) {
		t.Errorf("a tombstone counts, or the holder is drained")
	}
}

// A join of a thousand nearly empty shards settles within two seconds, at five
// ms for a round of messages and for a commit.
func TestThousandShards(t *testing.T) {
	w := newWorld(t, 1, 2, 1024)
	w.calm, w.pageBytes = true, 1<<20
	a, b := w.groups[0], w.groups[1]
	a.driver = handoff.NewDriver(a.id, handoff.DefaultParams())
	b.driver = handoff.NewDriver(b.id, handoff.DefaultParams())
	w.ownerIs(a)
	create := []kvfsm.Command{&kvfsm.Adopt{Cluster: cluster, Config: w.latest()}}
	for s := range w.shards {
		create = append(create, &kvfsm.Create{Shard: shardcfg.ShardID(s), Claimer: a.id.Peer.Incarnation})
	}
	w.apply(a, create...)
	w.put(a, 3000)
	w.ownerIs(b)
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	w.apply(b, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	start := w.now
	for len(handoff.CheckRest(w.states(), w.latest())) > 0 {
		if w.now-start > 2*time.Second {
			t.Fatalf("after %v: %d proposals of a, %d of b", w.now-start, len(a.queue), len(b.queue))
		}
		w.now += 5 * time.Millisecond
		for n := len(w.mail); n > 0; n-- {
			w.deliver()
		}
		for _, g := range w.groups {
			w.step(g)
			w.commit(g)
		}
	}
	t.Logf("settled after %v", w.now-start)
}
