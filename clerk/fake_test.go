package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A fakeCluster is a whole cluster in memory: controllers and groups answer over
// gRPC, with real wire formats, from one shared model. The model is what a real
// cluster promises: one holder per shard, and a record of executed writes that
// moves with the shard.
type fakeCluster struct {
	id          shardcfg.ClusterID
	groups      []*fakeGroup
	controllers []*fakeController

	mu               sync.Mutex
	servers          map[string]*fakeServer // by address
	shards           []fakeShard
	values           map[string]fakeValue
	executed         map[fakeStamp]*kvpb.Outcome
	acked            map[[16]byte]uint64 // by session: its numbers below are forgotten
	floor            uint64              // sessions born before are expired
	config           *shardcfg.Config
	requests         map[string]*ctrlpb.ChangeReply
	changed          chan struct{} // closed when the config changes
	fault            func(addr string, op *kvpb.Operation) fault
	messages         int
	ops              int
	scanRequestBytes int // of the largest request for pages
	scans            int // requests for pages that were answered
	pages            int
	scanned          int // records in them
	// scanRecords bounds the records of an answer to a scan.
	scanRecords int
	spoil       func(*kvpb.ScanRequest, *kvpb.ScanResponse) // makes wrong answers to scans
	changes     int                                         // of configuration that were asked for, each attempt
	late        sync.WaitGroup
	clockSkew   time.Duration            // of the cluster's clock
	frozen      map[string]chan struct{} // by address; closed when it thaws
	commit      time.Duration            // how long a write takes; 0: none
	pending     map[fakeStamp]*fakeProposal
	proposals   int
	busyMS      uint32 // what BUSY tells to wait
	ignorant    bool   // groups don't know where shards are that they don't hold
}

// A fakeProposal is a write that is being committed.
type fakeProposal struct {
	done    chan struct{}
	outcome *kvpb.Outcome // once done
}

type fakeShard struct {
	holder   *fakeGroup
	epoch    shardcfg.Epoch
	revision uint64
}

type fakeValue struct {
	bytes   []byte
	version uint64
	shard   int
}

type fakeStamp struct {
	session  [16]byte
	birth    uint64
	sequence uint64
}

// A fault is what happens to one operation at one replica.
type fault int

const (
	faultNone      fault = iota
	faultLoseFirst       // the stream breaks before it is executed
	faultLoseReply       // it is executed, and the stream breaks
	faultLate            // the stream breaks, and later it is executed
	faultUnknown         // it is executed, and the answer is OUTCOME_UNKNOWN
	faultBusy
	faultSlow // it is held for as long as the request allows, in vain
)

var errBroken = errors.New("broken by the test")

type fakeServer struct {
	listener *bufconn.Listener
	server   *grpc.Server
}

func newFakeCluster(groups, replicas, shards int) *fakeCluster {
	f := &fakeCluster{
		id: shardcfg.ClusterID{1}, servers: map[string]*fakeServer{}, shards: make([]fakeShard, shards),
		values: map[string]fakeValue{}, executed: map[fakeStamp]*kvpb.Outcome{}, acked: map[[16]byte]uint64{}, requests: map[string]*ctrlpb.ChangeReply{},
		changed: make(chan struct{}), frozen: map[string]chan struct{}{},
		pending: map[fakeStamp]*fakeProposal{}, scanRecords: 3,
	}
	f.config = &shardcfg.Config{Num: 1, Shards: make([]shardcfg.GroupID, shards), Groups: map[shardcfg.GroupID]shardcfg.Group{}}
	for gid := shardcfg.GroupID(1); gid <= shardcfg.GroupID(groups); gid++ {
		g := &fakeGroup{f: f, gid: gid, incarnation: shardcfg.Incarnation{byte(gid)}}
		for i := range replicas {
			r := &fakeReplica{g: g, addr: fmt.Sprintf("g%d-r%d:1", gid, i)}
			g.replicas = append(g.replicas, r)
			g.addresses = append(g.addresses, r.addr)
		}
		f.groups = append(f.groups, g)
		f.config.Groups[gid] = shardcfg.Group{Incarnation: g.incarnation, Replicas: g.addresses, Weight: 1, State: shardcfg.GroupMember}
	}
	for s := range f.shards {
		g := f.groups[s%groups]
		f.shards[s] = fakeShard{holder: g, epoch: shardcfg.Epoch{Num: 1}}
		f.config.Shards[s] = g.gid
	}
	for i := range 3 {
		f.controllers = append(f.controllers, &fakeController{f: f, index: i, addr: fmt.Sprintf("c%d:1", i)})
	}
	for _, addr := range f.addresses() {
		f.start(addr)
	}
	return f
}

func (f *fakeCluster) controllerAddresses() (out []string) {
	for _, c := range f.controllers {
		out = append(out, c.addr)
	}
	return out
}

func (f *fakeCluster) addresses() []string {
	out := f.controllerAddresses()
	for _, g := range f.groups {
		out = append(out, g.addresses...)
	}
	return out
}

// start brings the server of an address up.
func (f *fakeCluster) start(addr string) {
	s := &fakeServer{listener: bufconn.Listen(1 << 20), server: grpc.NewServer(grpc.MaxRecvMsgSize(32<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))}
	for _, c := range f.controllers {
		if c.addr == addr {
			ctrlpb.RegisterControllerServer(s.server, c)
		}
	}
	for _, g := range f.groups {
		for _, r := range g.replicas {
			if r.addr == addr {
				kvpb.RegisterKVServer(s.server, r)
			}
		}
	}
	f.mu.Lock()
	f.servers[addr] = s
	f.mu.Unlock()
	go func() { _ = s.server.Serve(freezingListener{s.listener, f, addr}) }()
}

// stop kills the servers of addresses: their connections break.
func (f *fakeCluster) stop(addrs ...string) {
	for _, addr := range addrs {
		f.mu.Lock()
		s := f.servers[addr]
		delete(f.servers, addr)
		f.mu.Unlock()
		if s != nil {
			s.server.Stop()
		}
	}
}

func (f *fakeCluster) close() {
	f.mu.Lock()
	up := slices.Collect(maps.Keys(f.servers))
	f.mu.Unlock()
	f.stop(up...)
	f.late.Wait()
}

func (f *fakeCluster) dial(ctx context.Context, addr string) (net.Conn, error) {
	f.mu.Lock()
	s := f.servers[addr]
	f.mu.Unlock()
	if s == nil {
		return nil, errors.New("connection refused")
	}
	return s.listener.DialContext(ctx)
}

// open opens a Clerk on the cluster; change, if not nil, adapts its Config. Test
// and clerk end together.
func (f *fakeCluster) open(t testing.TB, change func(*clerk.Config)) *clerk.Clerk {
	t.Helper()
	config := clerk.Config{Controllers: f.controllerAddresses(), Dialer: f.dial}
	if change != nil {
		change(&config)
	}
	c, err := clerk.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (f *fakeCluster) setFault(fault func(addr string, op *kvpb.Operation) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// move passes a shard on; told: the controllers hear of it as a change of
// configuration.
func (f *fakeCluster) move(shard int, to *fakeGroup, told bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moveLocked(shard, to, told)
}

func (f *fakeCluster) moveLocked(shard int, to *fakeGroup, told bool) {
	if f.shards[shard].holder != to {
		f.shards[shard].holder = to
		f.shards[shard].epoch = f.shards[shard].epoch.Next()
	}
	if told {
		next := f.config.Clone()
		next.Num++
		next.Shards[shard] = to.gid
		f.config = next
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// remove takes a replica, which does not lead, out of its group and its config.
func (f *fakeCluster) remove(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.config.Clone()
	next.Num++
	for _, g := range f.groups {
		g.addresses = slices.DeleteFunc(slices.Clone(g.addresses), func(a string) bool { return a == addr })
		listed := next.Groups[g.gid]
		listed.Replicas = g.addresses
		next.Groups[g.gid] = listed
	}
	f.config = next
	close(f.changed)
	f.changed = make(chan struct{})
}

// expire forgets every session that exists.
func (f *fakeCluster) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.floor = f.clockLocked() + 1
	for stamp := range f.executed {
		if stamp.birth < f.floor {
			delete(f.executed, stamp)
		}
	}
}

func (f *fakeCluster) shardOf(key string) int {
	return int(shardcfg.ShardOf([]byte(key), len(f.shards)))
}

func (f *fakeCluster) holder(key string) *fakeGroup {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shards[f.shardOf(key)].holder
}

// value is what the cluster has stored.
func (f *fakeCluster) value(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.values[key].bytes)
}

func (f *fakeCluster) clockLocked() uint64 {
	return uint64(time.Now().Add(f.clockSkew).UnixMilli())
}

// execute decides one operation at a group, in the order of the real machine:
// holder, session, condition.
func (f *fakeCluster) executeLocked(g *fakeGroup, session *kvpb.Session, op *kvpb.Operation) *kvpb.Outcome {
	s := &f.shards[f.shardOf(string(op.GetKey()))]
	if s.holder != g {
		return f.redirectLocked(f.shardOf(string(op.GetKey())))
	}
	old, present := f.values[string(op.GetKey())]
	if op.GetGet() != nil {
		if !present {
			return &kvpb.Outcome{Code: kvpb.Code_NOT_FOUND}
		}
		return &kvpb.Outcome{Value: slices.Clone(old.bytes), Version: old.version}
	}
	switch birth := session.GetBirthMs(); {
	case birth < f.floor:
		return &kvpb.Outcome{Code: kvpb.Code_SESSION_EXPIRED}
	case birth > f.clockLocked()+g.skew+60_000:
		return &kvpb.Outcome{Code: kvpb.Code_SESSION_AHEAD}
	}
	stamp := stampOf(session, op)
	f.acked[stamp.session] = max(f.acked[stamp.session], session.GetAckedBelow())
	if op.GetSequence() < f.acked[stamp.session] {
		return &kvpb.Outcome{Code: kvpb.Code_STALE_SEQUENCE}
	}
	if out := f.executed[stamp]; out != nil {
		return out
	}
	out := f.writeLocked(s, op, old, present)
	f.executed[stamp] = out
	return out
}

func stampOf(session *kvpb.Session, op *kvpb.Operation) fakeStamp {
	return fakeStamp{[16]byte(session.GetId()), session.GetBirthMs(), op.GetSequence()}
}

// commitLocked executes a write as a group does whose commits take their time: a
// retry joins what is under way, or finds what was executed.
func (f *fakeCluster) commitLocked(ctx context.Context, g *fakeGroup, q *kvpb.ExecuteRequest, op *kvpb.Operation) *kvpb.Outcome {
	if f.commit == 0 || op.GetGet() != nil || f.executed[stampOf(q.GetSession(), op)] != nil {
		return f.executeLocked(g, q.GetSession(), op)
	}
	stamp := stampOf(q.GetSession(), op)
	p := f.pending[stamp]
	if p == nil {
		p = &fakeProposal{done: make(chan struct{})}
		f.pending[stamp] = p
		f.proposals++
		commit := f.commit
		f.late.Go(func() {
			elapse(commit)
			f.mu.Lock()
			defer f.mu.Unlock()
			p.outcome = f.executeLocked(g, q.GetSession(), op)
			delete(f.pending, stamp)
			close(p.done)
		})
	}
	f.mu.Unlock()
	defer f.mu.Lock()
	hold := time.NewTimer(time.Duration(q.GetTimeoutMs()) * time.Millisecond)
	defer hold.Stop()
	select {
	case <-p.done:
		return p.outcome
	case <-hold.C:
	case <-ctx.Done():
	}
	return &kvpb.Outcome{Code: kvpb.Code_OUTCOME_UNKNOWN}
}

func (f *fakeCluster) writeLocked(s *fakeShard, op *kvpb.Operation, old fakeValue, present bool) *kvpb.Outcome {
	key := string(op.GetKey())
	condition := op.GetPut().GetCondition()
	if d := op.GetDelete(); d != nil {
		condition = d.GetCondition()
	}
	if condition != nil && condition.GetVersion() != old.version {
		return &kvpb.Outcome{Code: kvpb.Code_VERSION_MISMATCH, Version: old.version}
	}
	s.revision++
	value := fakeValue{version: s.revision, shard: f.shardOf(key)}
	switch kind := op.GetKind().(type) {
	case *kvpb.Operation_Put:
		value.bytes = slices.Clone(kind.Put.GetValue())
	case *kvpb.Operation_Append:
		value.bytes = slices.Concat(old.bytes, kind.Append.GetValue())
	case *kvpb.Operation_Delete:
		delete(f.values, key)
		if !present {
			return &kvpb.Outcome{Code: kvpb.Code_NOT_FOUND}
		}
		return &kvpb.Outcome{}
	}
	f.values[key] = value
	return &kvpb.Outcome{Version: value.version, Length: uint64(len(value.bytes))}
}

func (f *fakeCluster) redirectLocked(shard int) *kvpb.Outcome {
	if f.ignorant {
		return &kvpb.Outcome{Code: kvpb.Code_WRONG_GROUP}
	}
	s := f.shards[shard]
	return &kvpb.Outcome{Code: kvpb.Code_WRONG_GROUP, Redirect: &kvpb.Redirect{
		Shard: uint32(shard), Epoch: &kvpb.Epoch{Gen: s.epoch.Gen, Num: s.epoch.Num},
		Gid: uint64(s.holder.gid), Incarnation: s.holder.incarnation[:], Replicas: s.holder.addresses,
	}}
}
