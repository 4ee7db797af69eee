package placement

import (
	"slices"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

var (
	self  = kvfsm.Peer{Group: 1, Incarnation: shardcfg.Incarnation{1}}
	other = kvfsm.Peer{Group: 2, Incarnation: shardcfg.Incarnation{2}}
	third = kvfsm.Peer{Group: 3, Incarnation: shardcfg.Incarnation{3}}
)

// config gives shard 0 to a group.
func config(owner shardcfg.GroupID) *shardcfg.Config {
	c := &shardcfg.Config{Num: 7, Shards: []shardcfg.GroupID{owner}, Groups: map[shardcfg.GroupID]shardcfg.Group{}}
	for _, p := range []kvfsm.Peer{self, other} {
		c.Groups[p.Group] = shardcfg.Group{Incarnation: p.Incarnation, Replicas: []string{"listed:1"}}
	}
	return c
}

func epoch(n uint64) shardcfg.Epoch { return shardcfg.Epoch{Num: n} }

// Claim: what serves is here; what will soon be served here, or is about to be
// known, waits; everything else goes to the newest holder that was heard of.
func TestPlace(t *testing.T) {
	invited := func(by kvfsm.Peer, e uint64, p kvfsm.Phase) func(*Memory) {
		return func(m *Memory) { m.Invited(0, Invitation{From: by, Mark: kvfsm.Mark{Epoch: epoch(e)}, Phase: p}) }
	}
	hinted := func(at kvfsm.Peer, e uint64) func(*Memory) {
		return func(m *Memory) { m.Hinted([]Hint{{Holder: at, Epoch: epoch(e)}}) }
	}
	passed := kvfsm.Record{Phase: kvfsm.PhasePassed, Epoch: epoch(4), To: other}
	staging := kvfsm.Record{Phase: kvfsm.PhasePassed, Epoch: epoch(4), To: other, Staging: &kvfsm.Staging{From: third, Epoch: epoch(6)}}
	here, wait := Placing{Here: true}, Placing{Wait: true}
	for name, c := range map[string]struct {
		config *shardcfg.Config
		record kvfsm.Record
		heard  []func(*Memory)
		want   Placing
	}{
		"serving":                       {config(1), kvfsm.Record{Phase: kvfsm.PhaseServing}, nil, here},
		"leaving":                       {config(2), kvfsm.Record{Phase: kvfsm.PhaseLeaving}, nil, here},
		"frozen":                        {config(2), kvfsm.Record{Phase: kvfsm.PhaseFrozen, To: other}, nil, wait},
		"passed on":                     {config(2), passed, nil, Placing{Next: other, Epoch: epoch(4)}},
		"passed on, older hint":         {config(2), passed, []func(*Memory){hinted(third, 3)}, Placing{Next: other, Epoch: epoch(4)}},
		"passed on, newer hint":         {config(2), passed, []func(*Memory){hinted(third, 5)}, Placing{Next: third, Epoch: epoch(5)}},
		"staged":                        {config(1), staging, nil, Placing{Next: third, Epoch: epoch(5)}},
		"staged, holder frozen":         {config(1), staging, []func(*Memory){invited(third, 5, kvfsm.PhaseFrozen)}, wait},
		"staged, an old invitation":     {config(1), staging, []func(*Memory){invited(other, 3, kvfsm.PhaseFrozen)}, Placing{Next: third, Epoch: epoch(5)}},
		"invited":                       {config(1), kvfsm.Record{}, []func(*Memory){invited(other, 1, kvfsm.PhaseLeaving)}, Placing{Next: other, Epoch: epoch(1)}},
		"to be created":                 {config(1), kvfsm.Record{}, nil, Placing{Wait: true, Next: self}},
		"the owner's, nobody heard of":  {config(2), kvfsm.Record{}, nil, Placing{Next: other}},
		"nobody's":                      {config(0), kvfsm.Record{}, nil, Placing{}},
		"before the first config":       {&shardcfg.Config{}, kvfsm.Record{}, nil, wait},
		"ours, hinted at its old place": {config(1), kvfsm.Record{}, []func(*Memory){hinted(third, 1)}, Placing{Next: third, Epoch: epoch(1)}},
	} {
		m := NewMemory()
		for _, hear := range c.heard {
			hear(m)
		}
		if got := Place(self, c.config, &c.record, m.Of(0)); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// Claim: to place a request takes no memory.
func TestPlaceIsFree(t *testing.T) {
	c, m := config(2), NewMemory()
	m.Hinted([]Hint{{Holder: third, Epoch: epoch(5)}})
	r := kvfsm.Record{Phase: kvfsm.PhasePassed, Epoch: epoch(4), To: other}
	if n := testing.AllocsPerRun(100, func() {
		if at := Place(self, c, &r, m.Of(0)); at.Next != third {
			t.Fatal(at)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Claim: what a command met counts where it is newer than the published record.
func TestNewer(t *testing.T) {
	record := kvfsm.Record{Phase: kvfsm.PhaseLeaving, Epoch: epoch(4), To: third}
	for _, c := range []struct {
		met   kvfsm.Where
		phase kvfsm.Phase
		to    kvfsm.Peer
	}{
		{kvfsm.Where{Phase: kvfsm.PhaseServing, Epoch: epoch(3)}, kvfsm.PhaseLeaving, third},
		{kvfsm.Where{Phase: kvfsm.PhaseServing, Epoch: epoch(4)}, kvfsm.PhaseLeaving, third},
		{kvfsm.Where{Phase: kvfsm.PhaseFrozen, Epoch: epoch(4), Next: other}, kvfsm.PhaseFrozen, other},
		{kvfsm.Where{Phase: kvfsm.PhasePassed, Epoch: epoch(5), Next: other}, kvfsm.PhasePassed, other},
		{kvfsm.Where{Phase: kvfsm.PhaseServing, Epoch: epoch(6)}, kvfsm.PhaseServing, third},
	} {
		if r := Newer(record, c.met); r.Phase != c.phase || r.To != c.to {
			t.Errorf("met %+v: %v to %v, want %v to %v", c.met, r.Phase, r.To, c.phase, c.to)
		}
	}
}

// Claim: a shard moves while its place and its owner differ, and on its way.
func TestMoves(t *testing.T) {
	for _, c := range []struct {
		owner  shardcfg.GroupID
		record *kvfsm.Record
		want   bool
	}{
		{1, nil, true}, {2, nil, false}, {0, nil, false},
		{1, &kvfsm.Record{Phase: kvfsm.PhaseServing}, false},
		{2, &kvfsm.Record{Phase: kvfsm.PhaseServing}, true},
		{0, &kvfsm.Record{Phase: kvfsm.PhaseServing}, false},
		{0, &kvfsm.Record{Phase: kvfsm.PhaseLeaving}, true},
		{2, &kvfsm.Record{Phase: kvfsm.PhaseFrozen}, true},
		{2, &kvfsm.Record{Phase: kvfsm.PhasePassed}, false},
		{1, &kvfsm.Record{Phase: kvfsm.PhasePassed}, true},
		{2, &kvfsm.Record{Phase: kvfsm.PhasePassed, Staging: &kvfsm.Staging{}}, true},
	} {
		if got := Moves(1, config(c.owner), 0, c.record); got != c.want {
			t.Errorf("owner %d, %+v: %v", c.owner, c.record, got)
		}
	}
	if Moves(1, &shardcfg.Config{}, 0, nil) {
		t.Error("moves before the first config")
	}
}

// Claim: invitations go forward only, and say whether they are news; addresses of
// the config count before those that were heard of, which are copied.
func TestMemory(t *testing.T) {
	m := NewMemory()
	inv := Invitation{From: other, Mark: kvfsm.Mark{Epoch: epoch(2), Handoff: 3}, Phase: kvfsm.PhaseLeaving}
	older := inv
	older.Mark.Handoff = 2
	frozen := inv
	frozen.Phase = kvfsm.PhaseFrozen
	for i, c := range []struct {
		inv  Invitation
		news bool
	}{{inv, true}, {inv, false}, {older, false}, {frozen, true}} {
		if m.Invited(0, c.inv) != c.news {
			t.Errorf("invitation %d is news: %v", i, !c.news)
		}
	}
	heard := []string{"heard:1"}
	m.Hear(third.Incarnation, heard)
	m.Hear(other.Incarnation, heard)
	m.Hear(other.Incarnation, nil)
	heard[0] = "mangled"
	for _, c := range []struct {
		of   kvfsm.Peer
		want string
	}{{other, "listed:1"}, {third, "heard:1"}, {kvfsm.Peer{Group: 2, Incarnation: third.Incarnation}, "heard:1"}} {
		if got := m.Addresses(config(1), c.of); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v is at %v, want %s", c.of, got, c.want)
		}
	}
	for i := range heardMax + 1 {
		m.Hear(shardcfg.Incarnation{9, byte(i), byte(i >> 8)}, []string{"a:1"})
	}
	if n := len(m.addresses); n > heardMax {
		t.Errorf("%d groups are remembered", n)
	}
}

// Claim: at one epoch, Frozen is the last that a holder says, whatever handoff an offer
// names; else the greater mark, then the later phase, is newer.
func TestBefore(t *testing.T) {
	said := func(e uint64, h shardcfg.ConfigNum, p kvfsm.Phase) Invitation {
		return Invitation{From: other, Mark: kvfsm.Mark{Epoch: epoch(e), Handoff: h}, Phase: p}
	}
	inOrder := []Invitation{
		said(1, 2, kvfsm.PhaseServing), said(1, 2, kvfsm.PhaseLeaving), said(1, 3, kvfsm.PhaseServing),
		said(1, 4, kvfsm.PhaseLeaving), said(1, 2, kvfsm.PhaseFrozen), said(2, 1, kvfsm.PhaseServing),
	}
	for i, a := range inOrder {
		for k, b := range inOrder {
			if got := a.Before(b); got != (i < k) {
				t.Errorf("%+v before %+v: %v", a, b, got)
			}
		}
	}
}

// Claim: commands that change a placement are noted, and no others.
func TestChanges(t *testing.T) {
	done, refused := kvfsm.Verdict{Done: true}, kvfsm.Verdict{Why: kvfsm.ReasonPhase}
	var c Changes
	for _, quiet := range []struct {
		cmd    entry.Command
		result any
	}{
		{kvfsm.Encode(&kvfsm.Write{Key: []byte("k")}), kvfsm.Outcome{}},
		{kvfsm.Encode(&kvfsm.Prune{Shard: 1}), done},
		{entry.Command{Kind: entry.KindNoop}, nil},
		{kvfsm.Encode(&kvfsm.Freeze{Shard: 1}), refused},
		{kvfsm.Encode(&kvfsm.Adopt{Config: config(1)}), refused},
	} {
		if c.Note(quiet.cmd, quiet.result); c.Any() {
			t.Fatalf("kind %d is noted: %+v", quiet.cmd.Kind, c)
		}
	}
	c.Note(kvfsm.Encode(&kvfsm.Freeze{Shard: 1}), done)
	c.Note(kvfsm.Encode(&kvfsm.Install{Shard: 2}), kvfsm.Verdict{Why: kvfsm.ReasonDigest})
	if !slices.Equal(c.Shards, []shardcfg.ShardID{1, 2}) || c.Adopted {
		t.Errorf("noted: %+v", c)
	}
	c.Note(kvfsm.Encode(&kvfsm.Adopt{Config: config(1)}), done)
	if !c.Adopted {
		t.Error("an adopted config is not noted")
	}
	if c.Clear(); c.Any() {
		t.Errorf("after Clear: %+v", c)
	}
}

// Claim: a lot wakes those who wait for a shard, in the order in which they came,
// within its bounds.
func TestLot(t *testing.T) {
	l := NewLot[string](3, 10)
	enter := func(name string, n int64, shards ...shardcfg.ShardID) *Ticket[string] {
		ticket, ok := l.Enter(name, shards, n)
		if !ok {
			return nil
		}
		return ticket
	}
	var woken []string
	wake := func(name string) { woken = append(woken, name) }
	want := func(what string, names ...string) {
		t.Helper()
		if !slices.Equal(woken, names) {
			t.Errorf("%s: %v are woken, want %v", what, woken, names)
		}
		woken = nil
	}
	big := enter("big", 1000, 1)
	if big == nil || enter("no room", 1, 1) != nil {
		t.Error("a single request of any size has room, and then no other")
	}
	l.Leave(big)
	a, b, c := enter("a", 4, 2, 1), enter("b", 4, 1), enter("c", 1, 2)
	if a == nil || b == nil || c == nil || enter("d", 1, 2) != nil || l.Count() != 3 {
		t.Fatalf("%d requests are parked", l.Count())
	}
	l.Wake([]shardcfg.ShardID{1, 9}, wake)
	want("shard 1", "a", "b")
	l.WakeAll(wake)
	want("all", "a", "b", "c")
	l.Leave(a)
	l.Wake([]shardcfg.ShardID{2, 1}, wake)
	want("shards 2 and 1 without a", "c", "b")
	l.Leave(b)
	l.Leave(c)
	if l.Count() != 0 || len(l.shards) != 0 || l.bytes != 0 {
		t.Errorf("an empty lot has %d requests of %d bytes, on %d shards", l.Count(), l.bytes, len(l.shards))
	}
}

// What groups said, or got, that were destroyed leads nowhere, and is not waited
// for; nor is a frozen shard whose token was heard to be beyond the receiver.
func TestDestroyedGroupsLeadNowhere(t *testing.T) {
	gone := kvfsm.Peer{Group: 4, Incarnation: shardcfg.Incarnation{4}}
	c := config(2)
	c.Retired = []shardcfg.Incarnation{gone.Incarnation}
	_, owner := c.Owner(0)
	passed := kvfsm.Record{Phase: kvfsm.PhasePassed, Epoch: epoch(2), To: gone}
	m := NewMemory()
	m.Invited(0, Invitation{From: gone, Mark: kvfsm.Mark{Epoch: epoch(3)}, Phase: kvfsm.PhaseFrozen})
	if at := Place(self, c, &passed, m.Of(0)); at.Wait || at.Next.Incarnation != owner {
		t.Errorf("with an invitation and a tombstone of a destroyed group: %+v", at)
	}
	m.Hinted([]Hint{{Holder: gone, Epoch: epoch(3)}})
	if at := Place(self, c, &passed, m.Of(0)); at.Wait || at.Next.Incarnation != owner {
		t.Errorf("with a hint at it: %+v", at)
	}
	repaired := shardcfg.Epoch{Gen: 1, Num: 1}
	m.Hinted([]Hint{{Holder: third, Epoch: repaired}})
	if at := Place(self, c, &passed, m.Of(0)); at.Wait || at.Next != third || at.Epoch != repaired {
		t.Errorf("with a hint at a repaired shard: %+v", at)
	}
	c.Retired = nil
	m.Invited(0, Invitation{From: gone, Mark: kvfsm.Mark{Epoch: epoch(2)}, Phase: kvfsm.PhaseFrozen})
	if at := Place(self, c, &passed, m.Of(0)); at.Wait || at.Next != third {
		t.Errorf("frozen for this group, and heard to be beyond it: %+v", at)
	}
}
