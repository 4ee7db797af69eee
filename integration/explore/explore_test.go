package explore

import (
	"slices"
	"strings"
	"testing"
)

// Claim: every state within these bounds keeps the invariants; every kind of step
// is taken on the way; and the same search finds the same states again.
func TestBoundsHold(t *testing.T) {
	for _, name := range []string{"small", "g2c3-emptied", "g3c3-emptied"} {
		b, ok := FindBound(name)
		if !ok {
			t.Fatalf("no bound %s", name)
		}
		first, second := newSearch(newExplorer(b, Options{})), newSearch(newExplorer(b, Options{}))
		first.run()
		r := first.report
		if r.Violation != nil || !r.Complete {
			t.Fatalf("%s: %+v", name, r.Violation)
		}
		t.Logf("%s: %d states, %d transitions, depth %d, %v", name, r.States, r.Transitions, r.Depth, r.Elapsed)
		for _, kind := range []string{"Write", "Adopt", "Create", "Start", "Stage", "Chunk", "Install", "Freeze", "Drop", "Discard", "claim"} {
			if r.Steps[kind] == 0 {
				t.Errorf("%s: no %s ever had an effect", name, kind)
			}
		}
		if r.States > 5000 {
			continue
		}
		second.run()
		if !slices.Equal(first.prints, second.prints) {
			t.Errorf("%s: a second search finds other states, or in another order", name)
		}
	}
}

// Claim: a search that is cut off says so.
func TestLimits(t *testing.T) {
	b, _ := FindBound("g3c4")
	b.Live, b.StatesMax = 0, 1000
	if r := Run(b, Options{}); r.Complete || r.CutOff == "" || r.Violation != nil {
		t.Errorf("cut off at %d states: %+v", b.StatesMax, r)
	}
	b.StatesMax = 0
	if r := Run(b, Options{TimeMax: 1}); r.Complete || r.CutOff == "" {
		t.Errorf("cut off by time: %+v", r)
	}
	if r := Run(b, Options{BytesMax: 1}); r.Complete || r.CutOff == "" {
		t.Errorf("cut off by memory: %+v", r)
	}
}

// Claim: what pruning forgets leads nowhere. A search that keeps every committed
// prefix, and lets every leader of the past act on it, reaches the same states
// of groups, controllers and clients as the one that prunes.
func TestPruningLosesNothing(t *testing.T) {
	for _, b := range []Bound{
		{Name: "two groups", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0")},
		{Name: "three groups", Groups: 3, Shards: 1, Keys: 1, Configs: 3},
		{Name: "emptied", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Emptied: 1},
		{Name: "two writes", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("a0 a0")},
		{Name: "faults", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("a0"), Faults: 1},
		{Name: "two shards", Groups: 2, Shards: 2, Keys: 1, Configs: 2},
		{Name: "destroyed", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0"), Destroyed: 1},
		{Name: "destroyed, three", Groups: 3, Shards: 1, Keys: 1, Configs: 3, Destroyed: 1},
		{Name: "destroyed, emptied", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Destroyed: 1, Emptied: 1},
		{Name: "expiry", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("old:a0"), Expiry: true},
	} {
		pruned, full, same := Prove(b, Options{})
		t.Logf("%-14s pruned %7d states, full %7d; %v and %v", b.Name, pruned.States, full.States, pruned.Elapsed, full.Elapsed)
		switch {
		case pruned.Violation != nil || full.Violation != nil:
			t.Errorf("%s: pruned %+v, full %+v", b.Name, pruned.Violation, full.Violation)
		case !same:
			t.Errorf("%s: the two reach different states", b.Name)
		}
	}
}

// Claim: a search finds each known mistake, and says how it comes about.
func TestPlantsAreCaught(t *testing.T) {
	for _, p := range Plants {
		t.Run(p.Name, func(t *testing.T) {
			b := p.Bound
			b.StatesMax = 1_000_000
			r := Run(b, Options{Plant: &p, Full: p.Full})
			v := r.Violation
			if v == nil {
				t.Fatalf("not caught in %d states (complete: %v): %s", r.States, r.Complete, p.About)
			}
			if !strings.HasPrefix(v.Text, p.Catches) {
				t.Errorf("caught as %q, want %s", v.Text, p.Catches)
			}
			bad, err := Replay(b, Options{Plant: &p, Full: p.Full}, v.Keys, func(string, string) {})
			if err != nil || bad != v.Text {
				t.Errorf("replay gives %q, %v; want %q", bad, err, v.Text)
			}
			t.Logf("%d states, %v, %d steps: %s", r.States, r.Elapsed, len(v.Trace), v.Text)
			for i, step := range v.Trace {
				t.Logf("%3d. %s", i+1, step)
			}
		})
	}
}

// Claim: a group that begins with the disk of a destroyed one, as it was at any moment
// of its past, breaks no invariant: nothing is served twice, no epoch is minted twice,
// what the thawed copy shows is what was executed until then, and no old session's
// write is executed again.
func TestReformed(t *testing.T) {
	r := Run(tinyReformed, Options{Full: true})
	if r.Violation != nil || !r.Complete {
		t.Errorf("complete: %v, %+v", r.Complete, r.Violation)
	}
	t.Logf("%d states, %v", r.States, r.Elapsed)
}
