package handoff

import (
	"fmt"

	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Drained reports whether the group holds nothing and is meant to hold nothing,
// at the adopted config (INV-8); if not, it says what is left, in words. Only
// the controllers know whether that config is the one that the group left with.
//
// owed is the number of tokens that it was told to create, and v does not show yet.
func Drained(self Identity, v *View, owed int) (bool, string) {
	if v.Config == nil {
		return false, "no config is adopted"
	}
	for s, gid := range v.Config.Shards {
		if gid == self.Peer.Group && v.Config.Groups[gid].Incarnation == self.Peer.Incarnation {
			return false, fmt.Sprintf("config %d gives it shard %d", v.Config.Num, s)
		}
	}
	if owed > 0 {
		return false, fmt.Sprintf("%d claimed shards are not created", owed)
	}
	for i := range v.Records {
		r := &v.Records[i]
		switch {
		case r.Phase.Serves() || r.Phase == kvfsm.PhaseFrozen:
			return false, fmt.Sprintf("shard %d is %v", r.Shard, r.Phase)
		case r.Staging != nil:
			return false, fmt.Sprintf("shard %d is being staged", r.Shard)
		}
	}
	return true, ""
}
