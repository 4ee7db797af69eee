package route

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// twoGroups is a table of 4 shards: 0 and 1 owned by group 1, 2 and 3 by group 2.
func twoGroups() *Table {
	t := &Table{}
	t.LearnConfig(&shardcfg.Config{Num: 5, Shards: []shardcfg.GroupID{1, 1, 2, 2}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		1: {Incarnation: shardcfg.Incarnation{1}, Replicas: []string{"a1", "a2", "a3"}},
		2: {Incarnation: shardcfg.Incarnation{2}, Replicas: []string{"b1", "b2", "b3"}},
	}})
	return t
}

func slotOf(shard int) shardcfg.Slot { return shardcfg.Slot(shard * shardcfg.SlotCount / 4) }

func code(c Code) Reply { return Reply{Code: c} }

func redirect(shard int, num uint64, gid byte, replicas ...string) Reply {
	r := code(WrongGroup)
	r.Redirect = &Hint{Shard: shardcfg.ShardID(shard), Epoch: shardcfg.Epoch{Num: num}, GID: shardcfg.GroupID(gid),
		Incarnation: shardcfg.Incarnation{gid}, Replicas: replicas}
	return r
}

func wantSend(t *testing.T, d Decision, addr string) {
	t.Helper()
	if d.Kind != Send || d.Addr != addr {
		t.Fatalf("decision %+v, want a send to %s", d, addr)
	}
}

func wantWait(t *testing.T, d Decision, limitMS uint32, refresh bool) {
	t.Helper()
	if d.Kind != Wait || d.WaitMS != limitMS || d.Refresh != refresh {
		t.Fatalf("decision %+v, want a wait of %d ms, refresh %v", d, limitMS, refresh)
	}
}

// A group that lets an operation wait for ever does not keep it from the owner: the
// shard may have come there another way. A group that was destroyed is not believed
// to hold anything.
func TestBusyIsNotForEver(t *testing.T) {
	table := twoGroups()
	op := NewOp(slotOf(0), true, false, false)
	wantSend(t, table.Start(&op), "a1")
	wantSend(t, table.Reply(&op, redirect(0, 7, 2)), "b1")
	asked := map[string]int{"b1": 1}
	for d := table.Reply(&op, code(Busy)); asked["a"] == 0; d = table.Reply(&op, code(Busy)) {
		if d = table.Tick(&op); asked["b1"] > 10 {
			t.Fatalf("the owner is not asked: %v", asked)
		}
		if d.Addr[0] == 'a' {
			asked["a"]++
			continue
		}
		asked["b1"]++
	}
	if asked["b1"] < busyPatience {
		t.Errorf("the owner is asked after %d waits", asked["b1"])
	}
	table.LearnConfig(&shardcfg.Config{Num: 6, Shards: []shardcfg.GroupID{1, 1, 1, 1}, Retired: []shardcfg.Incarnation{{2}},
		Groups: map[shardcfg.GroupID]shardcfg.Group{1: {Incarnation: shardcfg.Incarnation{1}, Replicas: []string{"a1"}}}})
	table.LearnHint(Hint{Epoch: shardcfg.Epoch{Num: 9}, GID: 2, Incarnation: shardcfg.Incarnation{2}, Replicas: []string{"b1"}})
	if gid, _, _, _, ok := table.Target(0); !ok || gid != 1 {
		t.Errorf("the target is group %d, which was destroyed", gid)
	}
}

// A redirect of a newer epoch is followed at once and remembered; an older one
// changes nothing.
func TestRedirectByEpoch(t *testing.T) {
	table := twoGroups()
	op := NewOp(slotOf(0), true, false, false)
	wantSend(t, table.Start(&op), "a1")
	wantSend(t, table.Reply(&op, redirect(0, 7, 2)), "b1")
	if d := table.Reply(&op, code(OK)); d.Kind != Done {
		t.Fatal(d)
	}
	next := NewOp(slotOf(0), true, false, false)
	wantSend(t, table.Start(&next), "b1")
	// A lagging replica's word of an older epoch does not send it back; that its
	// group did not know better is worth a refresh.
	d := table.Reply(&next, redirect(0, 6, 1))
	wantSend(t, d, "a2") // the owner by the config is still worth a try
	wantWait(t, table.Reply(&next, redirect(0, 6, 1)), backoffMinMS, true)
	wantSend(t, table.Tick(&next), "b1")
	// A group that was never heard of comes with its addresses.
	wantSend(t, table.Reply(&next, redirect(0, 8, 9, "z1")), "z1")
}

// Leader hints are followed, never in circles, and remembered for the next one.
func TestLeaderHints(t *testing.T) {
	table := twoGroups()
	op := NewOp(slotOf(0), true, false, false)
	hint := func(leader string) Reply { r := code(NotLeader); r.Leader = leader; return r }
	wantSend(t, table.Start(&op), "a1")
	wantSend(t, table.Reply(&op, hint("a3")), "a3")
	wantSend(t, table.Reply(&op, hint("a1")), "a2")
	wantWait(t, table.Reply(&op, hint("")), backoffMinMS, true)
	wantSend(t, table.Tick(&op), "a1")
	wantSend(t, table.Reply(&op, hint("a2")), "a2")
	if d := table.Reply(&op, code(NotFound)); d.Kind != Done || op.Unresolved() {
		t.Fatal(d, op.Unresolved())
	}
	next := NewOp(slotOf(1), false, false, false)
	wantSend(t, table.Start(&next), "a2")
}

// A server that names a new leader, or a new holder, in every answer is not followed
// for ever: the round ends.
func TestEndlessHints(t *testing.T) {
	for name, reply := range map[string]func(i int) Reply{
		"leaders": func(i int) Reply { r := code(NotLeader); r.Leader = fmt.Sprintf("x%d", i); return r },
		"holders": func(i int) Reply {
			return redirect(0, uint64(10+i), byte(9+i), fmt.Sprintf("x%d", i))
		},
	} {
		table := twoGroups()
		op := NewOp(slotOf(0), true, false, false)
		d, tries := table.Start(&op), 0
		for ; d.Kind == Send && tries < 200; tries++ {
			d = table.Reply(&op, reply(tries))
		}
		if d.Kind != Wait || tries > triesMax {
			t.Errorf("%s: %+v after %d tries", name, d, tries)
		}
		if d := table.Tick(&op); d.Kind != Send {
			t.Errorf("%s: the next round begins with %+v", name, d)
		}
	}
}

// A silent address is tried last, until it answers again.
func TestSuspects(t *testing.T) {
	table := twoGroups()
	leader := code(NotLeader)
	leader.Leader = "a1"
	op := NewOp(slotOf(0), true, false, false)
	wantSend(t, table.Start(&op), "a1")
	wantSend(t, table.Lost(&op, true, "silent"), "a2")
	if !op.Unresolved() {
		t.Fatal("an attempt that was sent and lost leaves the outcome unknown")
	}
	wantSend(t, table.Reply(&op, leader), "a3")
	wantWait(t, table.Reply(&op, leader), backoffMinMS, true)
	other := NewOp(slotOf(1), false, false, false)
	wantSend(t, table.Start(&other), "a2")
	wantSend(t, table.Reply(&other, leader), "a3")
	wantSend(t, table.Reply(&other, leader), "a1")
	table.Reply(&other, code(OK))
	if other.Unresolved() {
		t.Fatal("a read has no effect")
	}
	wantSend(t, table.Tick(&op), "a1")
}

// What a refusal of the session leads to depends on what the attempts can have
// done: stamp anew, or fail.
func TestSessionRefused(t *testing.T) {
	for _, c := range []Code{SessionExpired, SessionAhead, StaleSequence} {
		table := twoGroups()
		op := NewOp(slotOf(0), true, false, false)
		table.Start(&op)
		if d := table.Reply(&op, code(c)); d.Kind != Restamp || d.WaitMS != 0 || d.Ahead != (c == SessionAhead) {
			t.Errorf("%v on the only attempt: %+v", c, d)
		}
		table.Start(&op)
		if d := table.Reply(&op, code(c)); d.Kind != Restamp || d.WaitMS == 0 {
			t.Errorf("%v again: %+v", c, d)
		}
		table.Start(&op)
		table.Lost(&op, true, "")
		if d := table.Reply(&op, code(c)); d.Kind != Fail || d.Reason != ReasonSession || !op.Unresolved() {
			t.Errorf("%v after a lost attempt: %+v", c, d)
		}
		fixed := NewOp(slotOf(0), true, true, true)
		table.Start(&fixed)
		if d := table.Reply(&fixed, code(c)); d.Kind != Fail || !fixed.Unresolved() {
			t.Errorf("%v for an explicit identity: %+v", c, d)
		}
	}
}

// Only when every server that could be asked is of another cluster, round after
// round, does the operation fail for it.
func TestWrongCluster(t *testing.T) {
	table := twoGroups()
	op := NewOp(slotOf(2), true, false, false)
	wantSend(t, table.Start(&op), "b1")
	wantSend(t, table.Reply(&op, code(WrongCluster)), "b2")
	wantSend(t, table.Reply(&op, code(NotLeader)), "b3")
	wantWait(t, table.Reply(&op, code(WrongCluster)), backoffMinMS, true)
	d := table.Tick(&op)
	for rounds := 1; d.Kind != Fail; {
		switch {
		case d.Kind == Send:
			d = table.Reply(&op, code(WrongCluster))
		case d.Kind == Wait && d.Refresh && rounds < alienRounds:
			rounds++
			d = table.Tick(&op)
		default:
			t.Fatalf("round %d: %+v", rounds, d)
		}
	}
	if d.Reason != ReasonCluster || op.Unresolved() {
		t.Fatal(d)
	}
}

// The addresses of a group that left may be another cluster's by now. An operation
// that meets that one asks for a newer placement before it believes it.
func TestAddressesOfAnotherCluster(t *testing.T) {
	table := twoGroups()
	op := NewOp(slotOf(2), true, false, false)
	d := table.Start(&op)
	for d.Kind == Send {
		d = table.Reply(&op, code(WrongCluster))
	}
	if d.Kind != Wait || !d.Refresh {
		t.Fatalf("after a round of aliens: %+v, want a refresh", d)
	}
	newer := table.Config().Clone()
	newer.Num++
	for s := range newer.Shards {
		newer.Shards[s] = 1
	}
	delete(newer.Groups, 2)
	table.LearnConfig(newer)
	wantSend(t, table.Tick(&op), "a1")
}

// Waits double to their caps: short while someone answers, longer where a server is
// busy, and there at least as long as it says.
func TestBackoff(t *testing.T) {
	table := twoGroups()
	op := NewOp(slotOf(0), true, false, false)
	for _, want := range []uint32{5, 10, 20, 40, 80, 160, 200, 200} {
		table.Tick(&op)
		wantWait(t, table.Reply(&op, code(OutcomeUnknown)), want, false)
	}
	refused := NewOp(slotOf(0), true, false, false)
	for i, want := range []uint32{10, 20, 40, 80, 160, 320, 500, 500, 800, 2 * busyToldMaxMS} {
		table.Tick(&refused)
		busy := code(Busy)
		busy.WaitMS = []uint32{7: 100, 8: 400, 9: 1 << 30}[i]
		wantWait(t, table.Reply(&refused, busy), want, false)
	}
	blind := NewOp(0, true, false, false)
	empty := &Table{}
	for _, want := range []uint32{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		d := empty.Tick(&blind)
		wantWait(t, d, want, true)
		if !d.Blind {
			t.Fatal("a table that knows nothing lets wait for anything new")
		}
	}
}

// A new config replaces gone groups, keeps who still holds something, and never
// gives way to an older one; a retired incarnation is forgotten.
func TestConfigs(t *testing.T) {
	table := twoGroups()
	table.LearnHint(Hint{Shard: 3, Epoch: shardcfg.Epoch{Num: 4}, GID: 1, Incarnation: shardcfg.Incarnation{1}})
	only2 := &shardcfg.Config{Num: 6, Shards: []shardcfg.GroupID{2, 2, 2, 2}, Groups: map[shardcfg.GroupID]shardcfg.Group{
		2: {Incarnation: shardcfg.Incarnation{2}, Replicas: []string{"b4"}},
	}}
	table.LearnConfig(only2)
	table.LearnConfig(twoGroups().config)
	if gid, _, _, epoch, ok := table.Target(3); gid != 1 || epoch.Num != 4 || !ok || table.Config() != only2 {
		t.Errorf("shard 3 is at %d, epoch %v; config %d", gid, epoch, table.Config().Num)
	}
	if gid, _, _, _, _ := table.Target(0); gid != 2 || len(table.Groups()) != 2 || table.Groups()[1].Replicas[0] != "b4" {
		t.Errorf("shard 0 is at %d, groups %+v", gid, table.Groups())
	}
	retired := only2.Clone()
	retired.Num, retired.Retired = 7, []shardcfg.Incarnation{{1}}
	table.LearnConfig(retired)
	if gid, _, _, _, _ := table.Target(3); gid != 2 || len(table.Groups()) != 1 {
		t.Errorf("after it was retired: %d, groups %+v", gid, table.Groups())
	}
}

// Whatever servers say, and however often attempts are lost: within a round no
// address is tried twice, a write that may have been executed is never stamped
// anew or called resolved, and the same events lead to the same decisions.
func TestAnythingGoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := twoGroups(), twoGroups()
		write := rapid.Bool().Draw(rt, "write")
		opA := NewOp(slotOf(rapid.IntRange(0, 3).Draw(rt, "shard")), write, false, false)
		opB := opA
		da, db := a.Start(&opA), b.Start(&opB)
		var round []string
		tainted := false
		for range 60 {
			if da != db {
				rt.Fatalf("decisions differ: %+v, %+v", da, db)
			}
			switch da.Kind {
			case Send:
				if slices.Contains(round, da.Addr) {
					rt.Fatalf("%s twice in a round", da.Addr)
				}
				round = append(round, da.Addr)
				if rapid.IntRange(0, 4).Draw(rt, "lost") == 0 {
					sent := rapid.Bool().Draw(rt, "sent")
					tainted = tainted || sent && write
					da, db = a.Lost(&opA, sent, ""), b.Lost(&opB, sent, "")
					break
				}
				r := drawReply(rt)
				tainted = tainted || write && r.Code == OutcomeUnknown
				da, db = a.Reply(&opA, r), b.Reply(&opB, r)
			case Wait:
				round = nil
				da, db = a.Tick(&opA), b.Tick(&opB)
			case Restamp:
				if tainted {
					rt.Fatal("a write that may have been executed is stamped anew")
				}
				round = nil
				da, db = a.Start(&opA), b.Start(&opB)
			default:
				return
			}
			if tainted != opA.Unresolved() {
				rt.Fatalf("tainted %v, unresolved %v", tainted, opA.Unresolved())
			}
		}
	})
}

func drawReply(rt *rapid.T) Reply {
	c := rapid.SampledFrom([]Code{
		WrongGroup, NotLeader, Busy, SessionExpired,
		WrongCluster, Unavailable, OutcomeUnknown, OK,
	}).Draw(rt, "code")
	r := code(c)
	if c == WrongGroup && rapid.Bool().Draw(rt, "redirected") {
		gid := rapid.IntRange(1, 4).Draw(rt, "gid")
		r = redirect(rapid.IntRange(0, 5).Draw(rt, "shard"), rapid.Uint64Range(0, 9).Draw(rt, "epoch"), byte(gid), fmt.Sprintf("x%d", gid))
	}
	r.Leader = rapid.SampledFrom([]string{"", "a1", "a2", "b3", "y"}).Draw(rt, "leader")
	return r
}

// In a cluster that tells the truth, every operation gets to the leader of the
// holder, in a few rounds, however wrong the table was and whoever is dead.
func TestFindsTheHolder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const groups, shards = 5, 4
		table := twoGroups()
		holder := rapid.IntRange(1, groups).Draw(rt, "holder")
		epoch := rapid.Uint64Range(1, 20).Draw(rt, "epoch")
		addrs := func(g int) (out []string) {
			for i := range 3 {
				out = append(out, fmt.Sprintf("%c%d", 'a'+g-1, i+1))
			}
			return out
		}
		for g := 3; g <= groups; g++ {
			table.LearnReplica(shardcfg.GroupID(g), shardcfg.Incarnation{byte(g)}, addrs(g), "")
		}
		if rapid.Bool().Draw(rt, "hinted") {
			table.LearnHint(Hint{Shard: 0, Epoch: shardcfg.Epoch{Num: rapid.Uint64Range(0, epoch-1).Draw(rt, "hint")}, GID: shardcfg.GroupID(rapid.IntRange(1, groups).Draw(rt, "hinted gid"))})
		}
		leader, dead := rapid.IntRange(0, 2).Draw(rt, "leader"), rapid.IntRange(0, 2).Draw(rt, "dead")
		knowers := rapid.IntRange(0, 1<<groups-1).Draw(rt, "groups that can redirect")
		op := NewOp(0, true, false, false)
		d := table.Start(&op)
		for waits := 0; d.Kind != Done; {
			switch d.Kind {
			case Wait:
				if waits++; waits > 12 {
					rt.Fatalf("not found in %d rounds", waits)
				}
				if d.Refresh {
					table.Refreshed()
				}
				d = table.Tick(&op)
			case Send:
				g, i := int(d.Addr[0]-'a')+1, int(d.Addr[1]-'1')
				switch {
				case i == dead && i != leader:
					d = table.Lost(&op, false, "refused")
				case i != leader:
					r := code(NotLeader)
					r.Leader = addrs(g)[leader]
					d = table.Reply(&op, r)
				case g == holder:
					d = table.Reply(&op, code(OK))
				case knowers>>(g-1)&1 == 1:
					d = table.Reply(&op, redirect(0, epoch, byte(holder), addrs(holder)...))
				default:
					d = table.Reply(&op, code(WrongGroup))
				}
			default:
				rt.Fatalf("decision %+v", d)
			}
		}
		if gid, _, at, _, _ := table.Target(0); int(gid) != holder || at != addrs(holder)[leader] {
			rt.Fatalf("remembered group %d, leader %s", gid, at)
		}
	})
}

// Numbers rise by one; what is below the oldest open one is acknowledged; an
// abandoned one never is, and ends the session for new writes.
func TestSession(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := NewSession(shardcfg.SessionID{1}, 1000, 0, false)
		open := map[uint64]bool{}
		abandoned := false
		for next := uint64(1); next < 50; {
			switch {
			case len(open) == 0 || rapid.Bool().Draw(rt, "begin"):
				if seq := s.Begin(); seq != next {
					rt.Fatalf("began %d, want %d", seq, next)
				}
				open[next] = true
				next++
			default:
				seq := rapid.Uint64Range(1, next-1).Draw(rt, "finish")
				if rapid.IntRange(0, 30).Draw(rt, "abandon") == 0 && open[seq] {
					s.Abandon(seq)
					abandoned = true
				} else {
					s.Finish(seq)
					delete(open, seq)
				}
			}
			want := next
			for seq := range open {
				want = min(want, seq)
			}
			if s.AckedBelow() != want || s.Due(1000) != abandoned {
				rt.Fatalf("acked below %d, want %d; due %v", s.AckedBelow(), want, s.Due(1000))
			}
		}
	})
	s := NewSession(shardcfg.SessionID{1}, 1000, 0, false)
	if s.Due(1000+SessionAgeMaxMS) || !s.Due(1001+SessionAgeMaxMS) {
		t.Error("a session ends after SessionAgeMaxMS")
	}
	for range sessionWindowMax {
		if s.Due(1000) {
			t.Fatal("due within the window")
		}
		s.Begin()
	}
	if !s.Due(1000) {
		t.Error("not due beyond the window")
	}
}
