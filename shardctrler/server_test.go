package shardctrler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const testShards = 16

// A cluster is three controllers in this process, on loopback.
type cluster struct {
	t      *testing.T
	hosts  []*host.Host
	conns  []*grpc.ClientConn
	leader int // the one to ask first
	ids    byte
}

func startCluster(t *testing.T) *cluster {
	c := &cluster{t: t}
	peers := map[string]string{}
	for i := range 3 {
		h, err := host.New(host.Options{Listen: "127.0.0.1:0", DataDir: t.TempDir(), Version: "test"})
		if err != nil {
			t.Fatal(err)
		}
		c.hosts = append(c.hosts, h)
		peers[fmt.Sprintf("c%d", i)] = h.Addr()
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i, h := range c.hosts {
		s := New(h, Options{Label: fmt.Sprintf("c%d", i), Peers: peers, ShardCount: testShards, Timeout: 200 * time.Millisecond})
		h.Serve()
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("controller c%d: %v", i, err)
			}
		})
		conn, err := grpc.NewClient(h.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		c.conns = append(c.conns, conn)
	}
	t.Cleanup(func() {
		stop()
		running.Wait()
		for i := range c.hosts {
			c.kill(i)
		}
		for _, conn := range c.conns {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

func (c *cluster) kill(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.hosts[i].Close(ctx); err != nil {
		c.t.Errorf("close c%d: %v", i, err)
	}
}

func (c *cluster) client(i int) ctrlpb.ControllerClient {
	return ctrlpb.NewControllerClient(c.conns[i])
}

// do asks the leader, following hints, until it gets a definite answer.
func do[Q, A any](c *cluster, call func(ctrlpb.ControllerClient, context.Context, *Q, ...grpc.CallOption) (*A, error), q *Q) (*A, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for {
		one, done := context.WithTimeout(ctx, 5*time.Second)
		a, err := call(c.client(c.leader), one, q)
		done()
		if code := status.Code(err); code != codes.Unavailable && code != codes.Aborted {
			return a, err
		}
		next := (c.leader + 1) % len(c.hosts)
		if hint, ok := detail[*ctrlpb.LeaderHint](err); ok && hint.GetLeader() != "" {
			next = slices.IndexFunc(c.hosts, func(h *host.Host) bool { return h.Addr() == hint.GetLeader() })
		}
		c.leader = next
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("no definite answer: %w", err)
		}
	}
}

func detail[D any](err error) (d D, ok bool) {
	for _, any := range status.Convert(err).Details() {
		if d, ok = any.(D); ok {
			return d, true
		}
	}
	return d, false
}

func must[A any](a A, err error) func(*testing.T) A {
	return func(t *testing.T) A {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

// refusedFor checks that err is a definite refusal for a reason.
func refusedFor(t *testing.T, err error, code codes.Code, want ctrlpb.Reason) {
	t.Helper()
	ref, ok := detail[*ctrlpb.Refusal](err)
	if !ok || ref.GetReason() != want || status.Code(err) != code {
		t.Fatalf("got %v (%v), want %v with %v", err, ref, code, want)
	}
}

func (c *cluster) request() *ctrlpb.RequestID {
	c.ids++
	id := make([]byte, 16)
	id[0] = c.ids
	return &ctrlpb.RequestID{Id: id, BirthMs: uint64(time.Now().UnixMilli())}
}

func (c *cluster) latest() *shardcfg.Config {
	c.t.Helper()
	a := must(do(c, ctrlpb.ControllerClient.Query, &ctrlpb.QueryRequest{}))(c.t)
	return must(ctrlpb.ToConfig(a.GetConfig()))(c.t)
}

func (c *cluster) join(gid uint64, force bool, addrs ...string) (*ctrlpb.ChangeReply, error) {
	return do(c, ctrlpb.ControllerClient.Join, &ctrlpb.JoinRequest{
		Request: c.request(), Force: force, Groups: []*ctrlpb.JoinGroup{{Gid: gid, Replicas: addrs}}})
}

// A fakeReplica answers Hello only.
type fakeReplica struct {
	raftpb.UnimplementedFormationServer
	reply *raftpb.HelloReply
}

func (f fakeReplica) Hello(context.Context, *raftpb.HelloRequest) (*raftpb.HelloReply, error) {
	return f.reply, nil
}

func startReplica(t *testing.T, reply *raftpb.HelloReply) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	raftpb.RegisterFormationServer(g, fakeReplica{reply: reply})
	var served sync.WaitGroup
	served.Go(func() {
		if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { g.Stop(); served.Wait() })
	return l.Addr().String()
}

func inc(letter byte) []byte { return append([]byte{letter}, make([]byte, 15)...) }

// TestJoinAsksTheReplicasWhoTheyAre: replicas that do not answer, or are of
// another gid, cluster or incarnation, are refused, unless the join is forced.
func TestJoinAsksTheReplicasWhoTheyAre(t *testing.T) {
	c := startCluster(t)
	info := must(do(c, ctrlpb.ControllerClient.Query, &ctrlpb.QueryRequest{}))(t)
	formed := func(gid uint64, server string, cluster []byte, incarnation byte) *raftpb.HelloReply {
		return &raftpb.HelloReply{Group: gid, Formed: true, ServerId: server,
			Identity: &raftpb.Identity{Cluster: cluster, Group: gid, Incarnation: inc(incarnation), ShardCount: testShards}}
	}
	good := startReplica(t, formed(1, "s1", info.GetCluster(), 'A'))
	good2 := startReplica(t, formed(1, "s2", info.GetCluster(), 'A'))
	empty := startReplica(t, &raftpb.HelloReply{Group: 2, ServerId: "s3"})
	for name, addrs := range map[string][]string{
		"nobody there":        {good, "127.0.0.1:1"},
		"another gid":         {good, empty},
		"another cluster":     {good, startReplica(t, formed(1, "s4", inc('Z'), 'A'))},
		"another incarnation": {good, startReplica(t, formed(1, "s5", info.GetCluster(), 'B'))},
		"the same twice":      {good, startReplica(t, formed(1, "s1", info.GetCluster(), 'A'))},
		"a controller":        {good, c.hosts[0].Addr()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.join(1, false, addrs...)
			refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_REPLICA_MISMATCH)
		})
	}
	if num := c.latest().Num; num != 0 {
		t.Fatalf("refused joins led to config %d", num)
	}
	if a := must(c.join(1, false, good, good2))(t); a.GetNum() != 1 || !a.GetChanged() || len(a.GetMoves()) != testShards {
		t.Fatalf("join of group 1: %v", a)
	}
	if a := must(c.join(2, false, empty))(t); a.GetNum() != 2 || len(a.GetMoves()) != testShards/2 {
		t.Fatalf("join of group 2: %v", a)
	}
	if a := must(c.join(3, true, "127.0.0.1:1"))(t); a.GetNum() != 3 {
		t.Fatalf("forced join of a ghost: %v", a)
	}
	// The same join again succeeds although nobody answers there.
	if a := must(c.join(3, false, "127.0.0.1:1"))(t); a.GetNum() != 3 || a.GetChanged() {
		t.Fatalf("the same join again: %v", a)
	}
	// Nor does it matter, to leave it again, that it never lived.
	for _, changed := range []bool{true, false, false} {
		a, err := do(c, ctrlpb.ControllerClient.Leave, &ctrlpb.LeaveRequest{Request: c.request(), Gids: []uint64{3}})
		if err != nil || a.GetChanged() != changed {
			t.Fatalf("leave of a ghost: %v, %v; want a change: %v", a, err, changed)
		}
	}
	if a := must(c.join(3, true, "127.0.0.1:1"))(t); !a.GetChanged() {
		t.Fatalf("a ghost that comes again: %v", a)
	}
	_, err := c.join(4, true, good)
	refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_ADDRESS_IN_USE)
	many := make([]string, shardcfg.ReplicasMax+1)
	for i := range many {
		many[i] = fmt.Sprintf("127.0.0.1:%d", i+1)
	}
	_, err = c.join(4, true, many...)
	refusedFor(t, err, codes.InvalidArgument, ctrlpb.Reason_BAD_REQUEST)
	_, err = c.join(4, true, "no port")
	refusedFor(t, err, codes.InvalidArgument, ctrlpb.Reason_BAD_REQUEST)
	_, err = do(c, ctrlpb.ControllerClient.Leave, &ctrlpb.LeaveRequest{Request: c.request(), Gids: []uint64{9}})
	refusedFor(t, err, codes.NotFound, ctrlpb.Reason_UNKNOWN_GROUP)
	_, err = do(c, ctrlpb.ControllerClient.Query, &ctrlpb.QueryRequest{Cluster: inc('Z')})
	refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_CLUSTER_MISMATCH)
}

// TestGroupsLiveTheirLifeThroughPolls: bound at first contact, told of their
// claims, hinted at holders, dropped once drained; another incarnation is
// refused.
func TestGroupsLiveTheirLifeThroughPolls(t *testing.T) {
	c := startCluster(t)
	must(c.join(1, true, "127.0.0.1:11"))(t)
	poll := func(q *ctrlpb.PollRequest) *ctrlpb.PollReply {
		t.Helper()
		return must(do(c, ctrlpb.ControllerClient.Poll, q))(t)
	}
	// An empty group only asks which cluster this is.
	a := poll(&ctrlpb.PollRequest{Gid: 1})
	if len(a.GetCluster()) != 16 || a.GetShardCount() != testShards || a.GetNum() != 1 || a.GetConfig().GetNum() != 1 {
		t.Fatalf("poll of an unformed group: %v", a)
	}
	a = poll(&ctrlpb.PollRequest{Gid: 1, Incarnation: inc('A'), Adopted: 1, Replicas: []string{"127.0.0.1:11", "127.0.0.1:12"}})
	if a.GetNum() != 2 || a.GetConfig().GetNum() != 2 || len(a.GetClaimed()) != 0 {
		t.Fatalf("first contact: %v", a)
	}
	// A controller that knows less than the group must not speak of claims.
	_, err := c.client(c.leader).Poll(t.Context(), &ctrlpb.PollRequest{Gid: 1, Incarnation: inc('A'), Adopted: 3})
	if _, hinted := detail[*ctrlpb.LeaderHint](err); !hinted || status.Code(err) != codes.Unavailable {
		t.Fatalf("poll of a group that is ahead: %v", err)
	}
	if g := c.latest().Groups[1]; g.Incarnation != shardcfg.Incarnation(inc('A')) || len(g.Replicas) != 2 {
		t.Fatalf("group 1 is listed as %+v", g)
	}
	_, err = do(c, ctrlpb.ControllerClient.Poll, &ctrlpb.PollRequest{Gid: 1, Incarnation: inc('B')})
	refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_INCARNATION_BOUND)
	_, err = do(c, ctrlpb.ControllerClient.Bind, &ctrlpb.BindRequest{Gid: 1, Incarnation: inc('B'), Replicas: []string{"127.0.0.1:13"}})
	refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_INCARNATION_BOUND)

	all := make([]uint32, testShards)
	for s := range all {
		all[s] = uint32(s)
	}
	if got := must(do(c, ctrlpb.ControllerClient.Claim, &ctrlpb.ClaimRequest{Incarnation: inc('A'), Shards: all}))(t); !slices.Equal(got.GetClaimed(), all) {
		t.Fatalf("group 1 claimed %v", got.GetClaimed())
	}
	if a = poll(&ctrlpb.PollRequest{Gid: 1, Incarnation: inc('A'), Adopted: 2}); !slices.Equal(a.GetClaimed(), all) || a.GetConfig() != nil {
		t.Fatalf("after the claim: %v", a)
	}
	var held []*ctrlpb.Holding
	for _, s := range all[:testShards-1] {
		held = append(held, &ctrlpb.Holding{Shard: s, EpochNum: 1, Serving: true, Keys: 1, Bytes: 100 + uint64(s)})
	}
	if a = poll(&ctrlpb.PollRequest{Gid: 1, Incarnation: inc('A'), Adopted: 2, Holdings: held}); !slices.Equal(a.GetClaimed(), all[testShards-1:]) {
		t.Fatalf("with one shard left to create: %v", a.GetClaimed())
	}
	_, err = do(c, ctrlpb.ControllerClient.Leave, &ctrlpb.LeaveRequest{Request: c.request(), Gids: []uint64{1}})
	refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_LAST_GROUP)

	c.grow(t)
	c.drain(t)
}

// grow plans the join of group 2, and makes it, while group 1 holds all shards
// but the last.
func (c *cluster) grow(t *testing.T) {
	plan := must(do(c, ctrlpb.ControllerClient.Join, &ctrlpb.JoinRequest{Plan: true, Force: true,
		Groups: []*ctrlpb.JoinGroup{{Gid: 2, Replicas: []string{"127.0.0.1:21"}}}}))(t)
	if len(plan.GetMoves()) != testShards/2 || plan.GetNum() != 2 || plan.GetChanged() || c.latest().Num != 2 {
		t.Fatalf("plan: %v, config %d", plan, c.latest().Num)
	}
	for _, m := range plan.GetMoves() {
		if want := 100 + uint64(m.GetShard()); m.GetShard() != testShards-1 && (m.GetBytes() != want || m.GetFrom() != 1 || m.GetTo() != 2) {
			t.Fatalf("planned move %v, want %d bytes", m, want)
		}
	}
	made := must(c.join(2, true, "127.0.0.1:21"))(t)
	if len(made.GetMoves()) != len(plan.GetMoves()) {
		t.Fatalf("made %v, planned %v", made.GetMoves(), plan.GetMoves())
	}
	// Group 1 holds what group 2 should have: a cold clerk is hinted there.
	q := must(do(c, ctrlpb.ControllerClient.Query, &ctrlpb.QueryRequest{}))(t)
	hinted := 0
	for _, h := range q.GetHints() {
		if h.GetGid() != 1 || q.GetConfig().GetNum() != 3 {
			t.Fatalf("hint %v", h)
		}
		hinted++
	}
	if hinted < testShards/2-1 {
		t.Fatalf("%d hints for %d moving shards", hinted, testShards/2)
	}
}

// drain lets group 1 leave to group 2.
func (c *cluster) drain(t *testing.T) {
	must(do(c, ctrlpb.ControllerClient.Bind, &ctrlpb.BindRequest{Gid: 2, Incarnation: inc('B'), Replicas: []string{"127.0.0.1:21"}}))(t)
	request := c.request()
	left := must(do(c, ctrlpb.ControllerClient.Leave, &ctrlpb.LeaveRequest{Request: request, Gids: []uint64{1}}))(t)
	_, err := do(c, ctrlpb.ControllerClient.Drained, &ctrlpb.DrainedRequest{Incarnation: inc('A'), Adopted: left.GetNum() - 1})
	refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_STALE_REPORT)
	// Drained, but of an older config: not yet.
	must(do(c, ctrlpb.ControllerClient.Poll, &ctrlpb.PollRequest{Gid: 1, Incarnation: inc('A'), Adopted: left.GetNum() - 1, Drained: true}))(t)
	if _, listed := c.latest().Groups[1]; !listed {
		t.Fatal("group 1 is gone by a report that was too old")
	}
	must(do(c, ctrlpb.ControllerClient.Poll, &ctrlpb.PollRequest{Gid: 1, Incarnation: inc('A'), Adopted: left.GetNum(), Drained: true}))(t)
	if g, listed := c.latest().Groups[1]; listed {
		t.Fatalf("group 1 is drained, and listed as %+v", g)
	}
	again := must(do(c, ctrlpb.ControllerClient.Drained, &ctrlpb.DrainedRequest{Incarnation: inc('A'), Adopted: left.GetNum()}))(t)
	if again.GetNum() != left.GetNum()+1 {
		t.Fatalf("drained again: config %d after %d", again.GetNum(), left.GetNum())
	}
	c.leaveAgain(t, request, left)
}

// leaveAgain repeats the leave of group 1, which is gone: the same request has its
// answer, another is a success that changes nothing. Only a gid under which no
// group ever lived is unknown.
func (c *cluster) leaveAgain(t *testing.T, request *ctrlpb.RequestID, left *ctrlpb.ChangeReply) {
	leave := func(id *ctrlpb.RequestID, plan bool, gids ...uint64) (*ctrlpb.ChangeReply, error) {
		return do(c, ctrlpb.ControllerClient.Leave, &ctrlpb.LeaveRequest{Request: id, Gids: gids, Plan: plan})
	}
	if got := must(leave(request, false, 1))(t); got.GetNum() != left.GetNum() || !got.GetChanged() {
		t.Fatalf("the same leave: %v after %v", got, left)
	}
	num := uint64(c.latest().Num)
	for _, plan := range []bool{false, true} {
		if got := must(leave(c.request(), plan, 1))(t); got.GetNum() != num || got.GetChanged() || len(got.GetMoves()) > 0 {
			t.Fatalf("a second leave, plan %v: %v", plan, got)
		}
		_, err := leave(c.request(), plan, 1, 99)
		refusedFor(t, err, codes.NotFound, ctrlpb.Reason_UNKNOWN_GROUP)
		_, err = leave(c.request(), plan, 1, 2)
		refusedFor(t, err, codes.FailedPrecondition, ctrlpb.Reason_LAST_GROUP)
		_, err = leave(c.request(), plan)
		refusedFor(t, err, codes.InvalidArgument, ctrlpb.Reason_BAD_REQUEST)
	}
}

// TestChangesSurviveTheLeader: a change made before the leader dies is there
// after it, once; watches on the others go on; history is the same everywhere.
func TestChangesSurviveTheLeader(t *testing.T) {
	c := startCluster(t)
	first := &ctrlpb.JoinRequest{Request: c.request(), Force: true, Groups: []*ctrlpb.JoinGroup{{Gid: 1, Replicas: []string{"127.0.0.1:11"}}}}
	must(do(c, ctrlpb.ControllerClient.Join, first))(t)
	old := c.leader
	follower := (old + 1) % 3
	_, err := c.client(follower).Query(t.Context(), &ctrlpb.QueryRequest{})
	if hint, ok := detail[*ctrlpb.LeaderHint](err); !ok || status.Code(err) != codes.Unavailable || hint.GetLeader() != c.hosts[old].Addr() {
		t.Fatalf("a follower answered %v, hint %v", err, hint)
	}
	watch, err := c.client(follower).Watch(t.Context(), &ctrlpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{stream: watch}
	w.until(t, 1)
	must(c.join(2, true, "127.0.0.1:21"))(t)
	w.until(t, 2)

	c.kill(old)
	again := must(do(c, ctrlpb.ControllerClient.Join, first))(t)
	if again.GetNum() != 1 || !again.GetChanged() || c.leader == old {
		t.Fatalf("the first join again, at c%d: %v", c.leader, again)
	}
	must(do(c, ctrlpb.ControllerClient.Leave, &ctrlpb.LeaveRequest{Request: c.request(), Gids: []uint64{1}}))(t)
	w.until(t, 3)
	if w.deltas == 0 {
		t.Error("no change came as a delta")
	}
	if latest := c.latest(); !latest.Equal(w.have) || latest.Num != 3 {
		t.Fatalf("watched %+v, latest is %+v", w.have, latest)
	}
	for num := range uint64(4) {
		var seen *shardcfg.Config
		for i := range c.hosts {
			if i == old {
				continue
			}
			got := c.numbered(i, num)
			if seen != nil && !got.Equal(seen) {
				t.Fatalf("config %d at c%d: %+v, elsewhere %+v", num, i, got, seen)
			}
			seen = got
		}
	}
	_, err = do(c, ctrlpb.ControllerClient.Query, &ctrlpb.QueryRequest{Num: new(uint64(99))})
	refusedFor(t, err, codes.NotFound, ctrlpb.Reason_UNKNOWN_CONFIG)
	info := must(c.client(c.leader).Info(t.Context(), &ctrlpb.InfoRequest{}))(t)
	if info.GetNum() != 3 || info.GetLeader() != c.hosts[c.leader].Addr() || len(info.GetMembers()) != 3 {
		t.Fatalf("info: %v", info)
	}
}

// TestConcurrentAdminsEachTakeEffectOnce: ten admins join and leave a group
// each, sending every request twice; a number is made for each request, and the
// history is sound at every step.
func TestConcurrentAdminsEachTakeEffectOnce(t *testing.T) {
	const admins = 10
	c := startCluster(t)
	var wg sync.WaitGroup
	for i := range byte(admins) {
		wg.Go(func() {
			own := *c // with its own idea of who leads
			own.ids = 20 * i
			gid := uint64(i) + 1
			join := &ctrlpb.JoinRequest{Request: own.request(), Force: true,
				Groups: []*ctrlpb.JoinGroup{{Gid: gid, Replicas: []string{fmt.Sprintf("127.0.0.1:%d", gid)}}}}
			leave := &ctrlpb.LeaveRequest{Request: own.request(), Gids: []uint64{gid}}
			for range 2 {
				if a, err := do(&own, ctrlpb.ControllerClient.Join, join); err != nil || !a.GetChanged() {
					t.Errorf("join of %d: %v, %v", gid, a, err)
				}
			}
			for range 2 {
				if a, err := do(&own, ctrlpb.ControllerClient.Leave, leave); err != nil || !a.GetChanged() {
					t.Errorf("leave of %d: %v, %v", gid, a, err)
				}
			}
			// A late copy of the join must not bring the group back.
			if a, err := do(&own, ctrlpb.ControllerClient.Join, join); err != nil || !a.GetChanged() {
				t.Errorf("late join of %d: %v, %v", gid, a, err)
			}
		})
	}
	wg.Wait()
	if latest := c.latest(); latest.Num != 2*admins || len(latest.Groups) != 0 {
		t.Fatalf("%d requests led to config %d with groups %v", 2*admins, latest.Num, latest.GroupIDs())
	}
	for num := range uint64(2*admins + 1) {
		cfg := c.numbered(c.leader, num)
		if err := cfg.Check(); err != nil {
			t.Error(err)
		}
		if again := shardcfg.Assign(cfg); !slices.Equal(again, cfg.Shards) {
			t.Errorf("config %d is not balanced: %v", num, cfg.Shards)
		}
	}
}

// numbered asks one controller for a config, until it has applied it.
func (c *cluster) numbered(i int, num uint64) *shardcfg.Config {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	for {
		a, err := c.client(i).Query(ctx, &ctrlpb.QueryRequest{Num: &num})
		if status.Code(err) != codes.Unavailable {
			return must(ctrlpb.ToConfig(must(a, err)(c.t).GetConfig()))(c.t)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			c.t.Fatalf("config %d at c%d: %v", num, i, err)
		}
	}
}

// A watcher follows one stream.
type watcher struct {
	stream grpc.ServerStreamingClient[ctrlpb.WatchReply]
	have   *shardcfg.Config
	deltas int
}

func (w *watcher) until(t *testing.T, num shardcfg.ConfigNum) {
	t.Helper()
	for w.have == nil || w.have.Num < num {
		a, err := w.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				t.Fatal("the watch ended")
			}
			t.Fatal(err)
		}
		if a.GetDelta() == nil {
			w.have = must(ctrlpb.ToConfig(a.GetConfig()))(t)
			continue
		}
		w.deltas++
		d := must(ctrlpb.ToDelta(a.GetDelta(), len(w.have.Shards)))(t)
		w.have = must(d.Apply(w.have))(t)
	}
}
