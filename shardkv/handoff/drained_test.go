package handoff_test

import (
	"testing"

	"github.com/shoalkv/shoal/shardkv/handoff"
)

// A group that is staging a shard is not drained, whatever the config says: the
// holder may be frozen towards it (INV-8).
func TestStagingIsNotDrained(t *testing.T) {
	w, a, b := pair(t, 2)
	w.stage(a, b)
	view := b.view
	config := *view.Config
	config.Shards = append(config.Shards[:0:0], config.Shards...)
	for s := range config.Shards {
		config.Shards[s] = a.id.Peer.Group
	}
	view.Config = &config
	if done, why := handoff.Drained(b.id, &view, 0); done || why == "" {
		t.Errorf("drained with a staging: %v, %q", done, why)
	}
}
