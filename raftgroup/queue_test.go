package raftgroup

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// waiting makes commands of one class; their bodies have the sizes given.
func waiting(class class, sizes ...int) []*pending {
	c := &call{class: class}
	var all []*pending
	for _, n := range sizes {
		all = append(all, &pending{command: entry.Command{Body: make([]byte, n)}, call: c})
	}
	return all
}

// Claim: a client's write stands behind no copy that waits; copies take the room
// that is left, have one place of the window, and are never starved.
func TestBackgroundYields(t *testing.T) {
	const bytesMax = 1000
	classes := func(cut []*pending) (fore, back int) {
		for _, p := range cut {
			if p.call.class == background {
				back++
			} else {
				fore++
			}
		}
		return fore, back
	}
	var q queue
	q.add(waiting(background, 300, 300, 300, 300), false)
	q.add(waiting(foreground, 100), false)
	if fore, back := classes(q.cut(bytesMax, false)); fore != 1 || back != 2 {
		t.Errorf("an entry with room has %d foreground and %d background commands, want 1 and 2", fore, back)
	}
	q.add(waiting(foreground, 100), false)
	if fore, back := classes(q.cut(bytesMax, true)); fore != 1 || back != 0 {
		t.Errorf("while background is in flight: %d and %d, want 1 and 0", fore, back)
	}
	if len(q.cut(bytesMax, true)) != 0 || q.empty() {
		t.Error("background is cut though background is in flight")
	}

	// A command that never fits beside others has its turn all the same.
	q = queue{}
	q.add(waiting(background, 5000), false)
	turns := 0
	for ; q.background.waiting > 0; turns++ {
		q.add(waiting(foreground, 900), false)
		q.cut(bytesMax, false)
	}
	if turns != patience+1 {
		t.Errorf("a large background command waited for %d entries, want %d", turns, patience+1)
	}

	// Within a class, the order is kept; the first command of a leadership leads.
	q = queue{}
	fore, noop := waiting(foreground, 1, 2, 3), waiting(first, 0)
	q.add(fore, false)
	q.add(noop, true)
	if got := q.cut(bytesMax, false); !slices.Equal(got, append(noop, fore...)) {
		t.Errorf("cut %d commands in another order", len(got))
	}
}

// Claim: wherever commands were withdrawn, entries are cut as if those had never been
// there, and what is gone takes no more room than what waits.
func TestCutsPassOverTheWithdrawn(t *testing.T) {
	const bytesMax = 2000
	rng := rand.New(rand.NewPCG(1, 2))
	var q queue
	var waits []*pending // in the order of their arrival; model
	remove := func(p *pending) { waits = slices.Delete(waits, slices.Index(waits, p), slices.Index(waits, p)+1) }
	cuts := 0
	for step := range 20_000 {
		switch rng.IntN(5) {
		case 0, 1:
			sizes := make([]int, 1+rng.IntN(8))
			for i := range sizes {
				sizes[i] = rng.IntN(bytesMax * 5 / 4)
			}
			all := waiting(class(rng.IntN(int(first))), sizes...)
			if rng.IntN(50) == 0 {
				all = waiting(first, 0)
				q.add(all, true)
				waits = append(all, waits...)
				continue
			}
			q.add(all, false)
			waits = append(waits, all...)
		case 2, 3:
			for range min(len(waits), rng.IntN(12)) {
				p := waits[rng.IntN(len(waits))]
				p.settled = true
				q.leave(p)
				remove(p)
			}
		case 4:
			fresh := queue{passed: q.passed}
			for _, p := range waits {
				fresh.add([]*pending{p}, false)
			}
			busy := rng.IntN(2) == 0
			got, want := q.cut(bytesMax, busy), fresh.cut(bytesMax, busy)
			if !slices.Equal(got, want) || q.passed != fresh.passed {
				t.Fatalf("step %d: cut %d commands, want %d of those that wait", step, len(got), len(want))
			}
			for _, p := range got {
				remove(p)
			}
			cuts += len(got)
		}
		if q.empty() != (len(waits) == 0) {
			t.Fatalf("step %d: empty: %v, while %d wait", step, q.empty(), len(waits))
		}
		if room := len(q.foreground.list) + len(q.background.list); room > 2*len(waits) {
			t.Fatalf("step %d: %d places for %d that wait", step, room, len(waits))
		}
	}
	if left := q.takeAll(); len(left) != len(waits) || !q.empty() || cuts < 1000 {
		t.Fatalf("%d commands were left, want %d; %d were cut", len(left), len(waits), cuts)
	}
}
