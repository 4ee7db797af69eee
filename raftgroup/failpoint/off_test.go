//go:build !failpoints

package failpoint

import "testing"

// Claim: an ordinary build ignores failpoints, whatever the environment says.
func TestHitIsOff(t *testing.T) {
	if Enabled || Hit("anything") != nil {
		t.Fatal("a failpoint acted in an ordinary build")
	}
}
