package shardkv_test

import (
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Claim: one group of one replica creates its shards and executes every
// operation, conditions and repeats included.
func TestOneGroup(t *testing.T) {
	const shards = 16
	c := newCluster(t, 1, shards)
	c.startGroup(1, 1)
	c.join(1)
	c.waitSettled(shards)
	k := c.client(shards)
	if o := k.do(t, get("a")); o.GetCode() != kvpb.Code_NOT_FOUND {
		t.Errorf("get of nothing: %v", o)
	}
	first := k.do(t, put("a", "1"))
	if first.GetCode() != kvpb.Code_OK || first.GetVersion() == 0 {
		t.Fatalf("put: %v", first)
	}
	if o := k.do(t, putIf("a", "2", first.GetVersion()+1)); o.GetCode() != kvpb.Code_VERSION_MISMATCH || o.GetVersion() != first.GetVersion() {
		t.Errorf("put with a wrong version: %v", o)
	}
	if o := k.do(t, putIf("a", "2", first.GetVersion())); o.GetCode() != kvpb.Code_OK || o.GetVersion() <= first.GetVersion() {
		t.Errorf("put with the right version: %v", o)
	}
	if o := k.do(t, appendTo("a", "34")); o.GetCode() != kvpb.Code_OK || o.GetLength() != 3 {
		t.Errorf("append: %v", o)
	}
	if o := k.do(t, get("a")); string(o.GetValue()) != "234" {
		t.Errorf("get: %v", o)
	}
	if o := k.do(t, remove("a")); o.GetCode() != kvpb.Code_OK {
		t.Errorf("delete: %v", o)
	}
	if o := k.do(t, remove("a")); o.GetCode() != kvpb.Code_NOT_FOUND {
		t.Errorf("delete of nothing: %v", o)
	}
}

// Claim: shards move to a joining group, and back when it leaves, under load:
// every acknowledged append is there exactly once, and nothing waits long.
func TestJoinAndLeaveUnderLoad(t *testing.T) {
	const shards = 64
	c := newCluster(t, 3, shards)
	c.startGroup(1, 3)
	c.startGroup(2, 3)
	c.join(1)
	c.waitSettled(shards)
	load := startAppenders(t, c, shards, 4, 32)
	eventually(t, "the load runs", func() bool { return load.count() > 100 })

	begun := time.Now()
	c.join(2)
	c.waitSettled(shards)
	t.Logf("joined in %v", time.Since(begun))
	if st := c.leaderStatus(2); st.GetHolding() != shards/2 {
		t.Errorf("the joined group holds %d shards, want %d", st.GetHolding(), shards/2)
	}
	before := load.count()
	eventually(t, "the load goes on", func() bool { return load.count() > before+100 })

	begun = time.Now()
	c.leave(1)
	c.waitSettled(shards)
	eventually(t, "the group that left is gone", func() bool { return len(c.config().GetGroups()) == 1 })
	t.Logf("left in %v", time.Since(begun))
	load.check(t)
}
