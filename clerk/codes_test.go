package clerk

import (
	"testing"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A code that only a newer server knows leaves the outcome unknown; it is never
// cut down to one that this version takes for a refusal.
func TestCodesOfNewerServers(t *testing.T) {
	for code, want := range map[kvpb.Code]route.Code{
		kvpb.Code_UNAVAILABLE:       route.Unavailable,
		200:                         200,
		256 + kvpb.Code_UNAVAILABLE: route.OutcomeUnknown,
		1 << 20:                     route.OutcomeUnknown,
		-1:                          route.OutcomeUnknown,
	} {
		if got := codeOf(code); got != want {
			t.Errorf("code %d of the service is %d of the machine, want %d", code, got, want)
		}
	}
}
