package explore

import (
	"maps"
	"strings"
	"testing"
)

// projections searches a bound and returns its states without what may still be
// delivered.
func projections(t *testing.T, b Bound, full bool) (map[uint64]bool, Report) {
	t.Helper()
	s := newSearch(newExplorer(b, Options{Full: full}))
	s.projections = map[uint64]bool{}
	s.run()
	if v := s.report.Violation; v != nil {
		t.Fatalf("%s, full %v: %s\n%v", b.Name, full, v.Text, v.Trace)
	}
	return s.projections, s.report
}

// Claim: what pruning forgets leads nowhere. A search that keeps every committed
// prefix, and lets every leader of the past act on it, reaches the same states
// of groups, controllers and clients as the one that prunes.
func TestPruningLosesNothing(t *testing.T) {
	for _, b := range []Bound{
		{Name: "two groups", Groups: 2, Shards: 1, Keys: 1, Configs: 3, Ops: ops("a0")},
		{Name: "three groups", Groups: 3, Shards: 1, Keys: 1, Configs: 3},
		{Name: "four configs", Groups: 2, Shards: 1, Keys: 1, Configs: 4},
		{Name: "emptied", Groups: 2, Shards: 1, Keys: 1, Configs: 4, Emptied: 1},
		{Name: "two writes", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("a0 a0")},
		{Name: "faults", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("a0"), Faults: 1},
		{Name: "two shards", Groups: 2, Shards: 2, Keys: 1, Configs: 2},
		{Name: "expiry", Groups: 2, Shards: 1, Keys: 1, Configs: 2, Ops: ops("old:a0"), Expiry: true},
	} {
		b.StatesMax = 1_500_000
		pruned, p := projections(t, b, false)
		all, f := projections(t, b, true)
		t.Logf("%-14s pruned %7d states, full %7d, both %6d without messages, complete %v; %v and %v", b.Name, p.States, f.States, len(pruned), f.Complete, p.Elapsed, f.Elapsed)
		if !p.Complete || !f.Complete {
			t.Errorf("%s: cut off at %d states", b.Name, b.StatesMax)
		} else if !maps.Equal(pruned, all) {
			t.Errorf("%s: pruned reaches %d states, full %d", b.Name, len(pruned), len(all))
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
