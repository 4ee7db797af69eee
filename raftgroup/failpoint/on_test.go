//go:build failpoints

package failpoint

import (
	"errors"
	"testing"
	"time"
)

// Claim: an action takes effect on exactly the hits that its prefix names.
func TestHitCounts(t *testing.T) {
	for _, c := range []struct {
		what string
		want []bool // an injected error on the nth hit
	}{
		{"error", []bool{true, true, true}},
		{"2*error", []bool{true, true, false}},
		{"3+error", []bool{false, false, true, true}},
		{"off", []bool{false, false}},
	} {
		if err := Set("test", c.what); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			if got := errors.Is(Hit("test"), ErrInjected); got != want {
				t.Errorf("%s: hit %d injected %v, want %v", c.what, i+1, got, want)
			}
		}
	}
	if err := Set("test", "sleep:20ms"); err != nil {
		t.Fatal(err)
	}
	if start := time.Now(); Hit("test") != nil || time.Since(start) < 20*time.Millisecond {
		t.Error("sleep did not sleep")
	}
	if err := Set("test", "explode"); err == nil {
		t.Error("an unknown action was accepted")
	}
}
