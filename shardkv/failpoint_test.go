//go:build failpoints

package shardkv_test

import (
	"testing"

	"github.com/shoalkv/shoal/raftgroup/failpoint"
)

// Claim: a handoff survives a failure before and after each of its durable
// steps: every shard arrives, with every acknowledged append.
func TestEveryStepFails(t *testing.T) {
	const shards = 8
	c := newCluster(t, 1, shards)
	c.startGroup(1, 1)
	c.startGroup(2, 1)
	for _, step := range []string{"adopt", "create", "start", "stage", "chunk", "freeze", "install", "drop"} {
		for _, when := range []string{"before", "after"} {
			if err := failpoint.Set("handoff/"+step+"/"+when, "2*error"); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.join(1)
	c.waitSettled(shards)
	load := startAppenders(t, c, shards, 2, 8)
	eventually(t, "the load runs", func() bool { return load.count() > 20 })
	c.join(2)
	c.waitSettled(shards)
	c.leave(1)
	c.waitSettled(shards)
	load.check(t)
}
