package raftgroup

import (
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
	for ; len(q.background) > 0; turns++ {
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
