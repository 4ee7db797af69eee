package placement

import (
	"slices"
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func TestPreferenceOrder(t *testing.T) {
	var p Preference
	group := shardcfg.Incarnation{1}
	addresses := []string{"a:1", "b:1", "c:1"}
	want := func(first ...string) {
		t.Helper()
		if got := p.Order(group, addresses); !slices.Equal(got, first) {
			t.Errorf("order %v, want %v", got, first)
		}
	}
	want("a:1", "b:1", "c:1")
	p.Prefer(group, "c:1")
	want("c:1", "a:1", "b:1")
	p.Follow(group, addresses, "c:1", "")
	want("a:1", "b:1", "c:1")
	p.Follow(group, addresses, "a:1", "d:1") // a leader that the list does not have yet
	want("d:1", "a:1", "b:1", "c:1")
	p.Follow(group, addresses, "d:1", "")
	want("a:1", "b:1", "c:1")
	p.Follow(group, nil, "a:1", "")
	p.Forget(group)
	want("a:1", "b:1", "c:1")
	if got := p.Order(shardcfg.Incarnation{2}, addresses); !slices.Equal(got, addresses) {
		t.Errorf("another group's order: %v", got)
	}
}

// Calls that run side by side do not pass over a replica together: whoever asks
// next asks the one after the last that was of no help.
func TestPreferenceInStep(t *testing.T) {
	var p Preference
	group := shardcfg.Incarnation{1}
	addresses := []string{"a:1", "b:1", "c:1"}
	asked := map[string]bool{}
	for range 3 {
		// Three calls begin before the first of them is answered.
		first := p.Order(group, addresses)[0]
		asked[first] = true
		for range 3 {
			p.Follow(group, addresses, first, "")
		}
	}
	if len(asked) != len(addresses) {
		t.Errorf("asked only %v", asked)
	}
}
