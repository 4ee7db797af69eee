package shardkv_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv"
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
	t.Logf("joined in %v; pauses of %v", time.Since(begun), pauses(c.leaderStatus(1)))
	eventually(t, "the joined group holds half of the shards", func() bool { return c.leaderStatus(2).GetHolding() == shards/2 })
	before := load.count()
	eventually(t, "the load goes on", func() bool { return load.count() > before+100 })

	begun = time.Now()
	c.leave(1)
	c.waitSettled(shards)
	t.Logf("settled in %v; pauses of %v", time.Since(begun), pauses(c.leaderStatus(1)))
	eventually(t, "the group that left is gone", func() bool { return len(c.config().GetGroups()) == 1 })
	t.Logf("left in %v", time.Since(begun))
	load.check(t)
}

// Claim: without any controller reads and writes go on, and so does a restart of
// a whole group; with everything stopped and started again all data is there.
func TestControllersAndEverythingLost(t *testing.T) {
	const shards = 16
	c := newCluster(t, 1, shards)
	c.startGroup(1, 3)
	c.startGroup(2, 1)
	c.join(1)
	c.join(2)
	c.waitSettled(shards)
	k := c.client(shards)
	want := map[string]string{}
	write := func(round string) {
		for i := range 20 {
			key := fmt.Sprintf("key-%d", i)
			k.do(t, appendTo(key, round))
			want[key] += round
		}
	}
	check := func(when string) {
		t.Helper()
		for key, value := range want {
			if o := k.do(t, get(key)); string(o.GetValue()) != value {
				t.Errorf("%s: %s holds %q, want %q", when, key, o.GetValue(), value)
			}
		}
	}
	write("a")
	c.stop(c.controllers[0])
	write("b")
	check("without controllers")
	c.stop(c.groups[2][0])
	c.restart(c.groups[2][0])
	write("c")
	check("after the restart of a group without controllers")
	for _, p := range c.groups[1] {
		c.stop(p)
	}
	c.restart(c.controllers[0])
	for _, p := range c.groups[1] {
		c.restart(p)
	}
	write("d")
	check("after the restart of everything")
	c.move(0, 1)
	c.waitSettled(shards)
	check("after a move")
}

// Claim: a write that is retried after its shard has moved is answered with the
// first result, and a request at the old holder is redirected to the new one.
func TestRepeatAfterMove(t *testing.T) {
	const shards = 4
	c := newCluster(t, 1, shards)
	c.startGroup(1, 1)
	c.startGroup(2, 1)
	c.join(1)
	c.waitSettled(shards)
	k := c.client(shards)
	// Held handoffs do not begin; released, they do.
	if _, err := kvpb.NewKVClient(c.conn(c.addresses(1)[0])).Rebalance(context.Background(), &kvpb.RebalanceRequest{Paused: proto.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	op := appendTo("k", "once")
	first := k.do(t, op)
	shard := shardcfg.ShardOf([]byte("k"), shards)
	c.join(2)
	eventually(t, "a held handoff says that it is", func() bool {
		return slices.ContainsFunc(c.leaderStatus(1).GetShards(), func(s *kvpb.Shard) bool { return s.GetWaiting() == "rebalancing is paused" })
	})
	if c.leaderStatus(2).GetHolding() != 0 {
		t.Error("a held handoff began")
	}
	if _, err := kvpb.NewKVClient(c.conn(c.addresses(1)[0])).Rebalance(context.Background(), &kvpb.RebalanceRequest{Paused: proto.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	for _, to := range []uint64{2, 1, 2} {
		c.move(uint32(shard), to)
		c.waitSettled(shards)
	}
	execute := func(gid uint64) *kvpb.Outcome {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r, err := kvpb.NewKVClient(c.conn(c.addresses(gid)[0])).Execute(ctx,
			&kvpb.ExecuteRequest{Session: k.session, Operations: []*kvpb.Operation{op}})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetOutcomes()[0]
	}
	old := execute(1)
	if r := old.GetRedirect(); old.GetCode() != kvpb.Code_WRONG_GROUP || r.GetGid() != 2 ||
		len(r.GetReplicas()) != 1 || r.GetReplicas()[0] != c.addresses(2)[0] || r.GetEpoch().GetNum() != 4 {
		t.Errorf("the old holder says %v, want a redirect to group 2 at epoch 4", old)
	}
	if o := execute(2); o.GetCode() != kvpb.Code_OK || o.GetVersion() != first.GetVersion() || o.GetLength() != 4 {
		t.Errorf("the repeat says %v, the first attempt said %v", o, first)
	}
	if o := k.do(t, get("k")); string(o.GetValue()) != "once" {
		t.Errorf("the key holds %q after a repeat", o.GetValue())
	}
}

// Claim: sessions are forgotten once they are old, in all shards, and a write of
// a forgotten session is refused.
func TestSessionsExpire(t *testing.T) {
	const shards = 4
	c := newCluster(t, 1, shards)
	c.tune = func(o *shardkv.Options) { o.SessionAge = 300 * time.Millisecond }
	c.startGroup(1, 1)
	c.join(1)
	c.waitSettled(shards)
	k := c.client(shards)
	k.fixed = true
	for i := range 8 {
		if o := k.do(t, put(fmt.Sprint("k", i), "v")); o.GetCode() != kvpb.Code_OK {
			t.Fatalf("a young session's write: %v", o)
		}
	}
	for i := range 8 {
		eventually(t, "the session is refused", func() bool {
			return k.do(t, put(fmt.Sprint("k", i), "w")).GetCode() == kvpb.Code_SESSION_EXPIRED
		})
	}
	if o := k.do(t, get("k0")); o.GetCode() != kvpb.Code_OK {
		t.Errorf("a read needs no session: %v", o)
	}
}

// Claim: every bad request gets a typed refusal, on a stream as in a call, and
// the other operations of the same request are executed.
func TestBadRequests(t *testing.T) {
	const shards = 4
	c := newCluster(t, 1, shards)
	c.startGroup(1, 1)
	c.join(1)
	c.waitSettled(shards)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	api := kvpb.NewKVClient(c.conn(c.addresses(1)[0]))
	session := &kvpb.Session{Id: random16(), BirthMs: uint64(time.Now().UnixMilli()), AckedBelow: 5}
	with := func(op *kvpb.Operation, seq uint64) *kvpb.Operation { op.Sequence = seq; return op }
	huge := string(make([]byte, shardcfg.ValueBytesMax+1))
	ops := []*kvpb.Operation{
		put("good", "v"), {Key: []byte("k")}, get(""), get(huge[:shardcfg.KeyBytesMax+1]), put("k", huge),
		with(get("k"), 7), with(put("k", "v"), 4), with(put("k", "v"), 8), with(put("k", "v"), 8), get("good"),
	}
	want := []kvpb.Code{kvpb.Code_OK, kvpb.Code_INVALID, kvpb.Code_INVALID, kvpb.Code_INVALID, kvpb.Code_INVALID,
		kvpb.Code_INVALID, kvpb.Code_STALE_SEQUENCE, kvpb.Code_OK, kvpb.Code_INVALID, -1}
	request := &kvpb.ExecuteRequest{Session: session, Operations: ops}
	check := func(r *kvpb.ExecuteResponse) {
		t.Helper()
		for i, o := range r.GetOutcomes() {
			if want[i] >= 0 && o.GetCode() != want[i] || o.GetCode() >= kvpb.Code_WRONG_GROUP && o.GetMessage() == "" {
				t.Errorf("operation %d: %v %q, want %v with a message", i, o.GetCode(), o.GetMessage(), want[i])
			}
		}
	}
	r, err := api.Execute(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	check(r)
	stream, err := api.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&kvpb.StreamRequest{Id: 9, Request: request}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || answer.GetId() != 9 {
		t.Fatalf("stream answered %v, %v", answer, err)
	}
	check(answer.GetResponse())
	for _, bad := range []*kvpb.ExecuteRequest{
		{Cluster: []byte("short"), Operations: ops[:1]},
		{Session: &kvpb.Session{Id: []byte("short"), BirthMs: 1}, Operations: ops[:1]},
		{Session: &kvpb.Session{Id: random16()}, Operations: ops[:1]},
	} {
		if r, err := api.Execute(ctx, bad); err != nil || r.GetOutcomes()[0].GetCode() != kvpb.Code_INVALID {
			t.Errorf("%v: %v, %v", bad, r, err)
		}
	}
	if r, err := api.Execute(ctx, &kvpb.ExecuteRequest{Cluster: random16(), Operations: ops[:1]}); err != nil ||
		r.GetOutcomes()[0].GetCode() != kvpb.Code_WRONG_CLUSTER {
		t.Errorf("another cluster: %v, %v", r, err)
	}
	if s, err := api.Scan(ctx, &kvpb.ScanRequest{From: []*kvpb.ScanFrom{{Shard: shards}}}); err != nil || s.GetOutcome().GetCode() != kvpb.Code_INVALID {
		t.Errorf("scan of a shard that does not exist: %v, %v", s, err)
	}
}

// Claim: scanning every shard in small pages returns each key once, in order
// within its shard.
func TestScan(t *testing.T) {
	const shards = 4
	c := newCluster(t, 1, shards)
	c.startGroup(1, 1)
	c.join(1)
	c.waitSettled(shards)
	k := c.client(shards)
	for i := range 40 {
		k.do(t, put(fmt.Sprintf("p/%02d", i), fmt.Sprint(i)))
		k.do(t, put(fmt.Sprintf("q/%02d", i), "other"))
	}
	api := kvpb.NewKVClient(c.conn(c.addresses(1)[0]))
	seen := map[string]string{}
	for shard := range uint32(shards) {
		var after []byte
		for end := false; !end; {
			r, err := api.Scan(context.Background(), &kvpb.ScanRequest{Prefix: []byte("p/"), Limit: 3,
				From: []*kvpb.ScanFrom{{Shard: shard, After: after}}})
			if err != nil || r.GetOutcome().GetCode() != kvpb.Code_OK || len(r.GetPages()) != 1 ||
				r.GetPages()[0].GetOutcome().GetCode() != kvpb.Code_OK {
				t.Fatalf("scan: %v, %v", r, err)
			}
			for _, rec := range r.GetPages()[0].GetRecords() {
				if string(rec.Key) <= string(after) {
					t.Errorf("%q comes after %q", rec.Key, after)
				}
				after = rec.Key
				seen[string(rec.Key)] += string(rec.Value)
			}
			end = r.GetPages()[0].GetEnd()
		}
	}
	for i := range 40 {
		if key := fmt.Sprintf("p/%02d", i); seen[key] != fmt.Sprint(i) {
			t.Errorf("%s was seen as %q", key, seen[key])
		}
	}
	if len(seen) != 40 {
		t.Errorf("%d keys seen, want 40", len(seen))
	}
}

// Claim: every replica of both groups may be restarted while shards move, and
// all of them arrive, with every acknowledged append.
func TestReplicasRestartWhileMoving(t *testing.T) {
	const shards = 128
	c := newCluster(t, 1, shards)
	c.startGroup(1, 3)
	c.startGroup(2, 3)
	c.join(1)
	c.waitSettled(shards)
	load := startAppenders(t, c, shards, 2, 32)
	eventually(t, "the load runs", func() bool { return load.count() > 50 })
	c.join(2)
	for i := range 3 {
		for gid := range c.groups {
			c.stop(c.groups[gid][i])
			c.restart(c.groups[gid][i])
		}
	}
	c.waitSettled(shards)
	load.check(t)
}

// pauses returns for how long each shard was frozen that a group passed on.
func pauses(st *kvpb.StatusResponse) (list []time.Duration) {
	for _, s := range st.GetShards() {
		if s.GetPhase() == kvpb.Phase_PASSED {
			list = append(list, time.Duration(s.GetPauseUs())*time.Microsecond)
		}
	}
	slices.Sort(list)
	return list
}
