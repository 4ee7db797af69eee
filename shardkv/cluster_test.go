package shardkv_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/shardctrler"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// raftTimeout is short, so that elections cost the tests little.
const raftTimeout = 300 * time.Millisecond

// A process is one replica of the controllers or of a group, in a host of its
// own.
type process struct {
	label   string
	gid     uint64 // 0: a controller
	dir     string
	address string
	peers   map[string]string

	host   *host.Host
	cancel context.CancelFunc
	done   chan error
}

// A cluster runs controllers and groups in this process, over loopback, on real
// disks.
type cluster struct {
	t           *testing.T
	controllers []*process
	groups      map[uint64][]*process
	tune        func(*shardkv.Options)
	dial        host.DialFunc

	mu struct {
		sync.Mutex
		conns map[string]*grpc.ClientConn
	}
}

func newCluster(t *testing.T, controllers, shards int) *cluster {
	c := &cluster{t: t, groups: map[uint64][]*process{}, tune: func(*shardkv.Options) {}}
	c.mu.conns = map[string]*grpc.ClientConn{}
	c.controllers = c.prepare(0, controllers)
	for _, p := range c.controllers {
		c.start(p, shards)
	}
	t.Cleanup(c.close)
	return c
}

// prepare opens the hosts of one group, so that their addresses are known.
func (c *cluster) prepare(gid uint64, replicas int) []*process {
	peers := map[string]string{}
	var list []*process
	for i := range replicas {
		p := &process{label: fmt.Sprintf("g%d-%d", gid, i), gid: gid, dir: filepath.Join(c.t.TempDir(), "data"), address: "127.0.0.1:0", peers: peers}
		c.open(p)
		p.address = p.host.Addr()
		peers[p.label] = p.address
		list = append(list, p)
	}
	return list
}

func (c *cluster) open(p *process) {
	c.t.Helper()
	h, err := host.New(host.Options{Listen: p.address, DataDir: p.dir, Logger: testLogger(p.label), DialOverride: c.dial})
	if err != nil {
		c.t.Fatal(err)
	}
	p.host = h
}

func testLogger(name string) hclog.Logger {
	if os.Getenv("SHOAL_TEST_LOG") == "" {
		return nil
	}
	return hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.LevelFromString(os.Getenv("SHOAL_TEST_LOG")), Output: os.Stderr})
}

// start runs a prepared process.
func (c *cluster) start(p *process, shards int) {
	c.t.Helper()
	var run func(context.Context) error
	if p.gid == 0 {
		run = shardctrler.New(p.host, shardctrler.Options{Label: p.label, Peers: p.peers, ShardCount: shards, Timeout: raftTimeout}).Run
	} else {
		o := shardkv.Options{Group: shardcfg.GroupID(p.gid), Label: p.label, Peers: p.peers, Controllers: c.controllerAddresses(),
			Timeout: raftTimeout, Logger: testLogger(p.label)}
		c.tune(&o)
		s, err := shardkv.New(p.host, o)
		if err != nil {
			c.t.Fatal(err)
		}
		run = s.Run
	}
	p.host.Serve()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan error, 1)
	go func() { p.done <- run(ctx) }()
}

// stop ends a process and waits for it.
func (c *cluster) stop(p *process) {
	if p.host == nil {
		return
	}
	p.cancel()
	if err := <-p.done; err != nil && !c.t.Failed() {
		c.t.Errorf("%s: %v", p.label, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.host.Close(ctx); err != nil {
		c.t.Errorf("close %s: %v", p.label, err)
	}
	p.host = nil
}

// restart brings a stopped process back at its address and on its disk.
func (c *cluster) restart(p *process) {
	c.open(p)
	c.start(p, 0)
}

func (c *cluster) controllerAddresses() []string {
	var list []string
	for _, p := range c.controllers {
		list = append(list, p.address)
	}
	return list
}

func (c *cluster) startGroup(gid uint64, replicas int) {
	c.groups[gid] = c.prepare(gid, replicas)
	for _, p := range c.groups[gid] {
		c.start(p, 0)
	}
}

func (c *cluster) addresses(gid uint64) []string {
	var list []string
	for _, p := range c.groups[gid] {
		list = append(list, p.address)
	}
	return list
}

func (c *cluster) all() []*process {
	list := slices.Clone(c.controllers)
	for _, g := range c.groups {
		list = append(list, g...)
	}
	return list
}

func (c *cluster) close() {
	var stopping sync.WaitGroup
	for _, p := range c.all() {
		stopping.Go(func() { c.stop(p) })
	}
	stopping.Wait()
	for _, conn := range c.mu.conns {
		conn.Close()
	}
}

func (c *cluster) conn(address string) *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.mu.conns[address]; conn != nil {
		return conn
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(shardcfg.MessageBytesMax)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.conns[address] = conn
	return conn
}

// eventuallyMax is long, because the race detector and a busy machine are slow.
const eventuallyMax = 40 * time.Second

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(eventuallyMax)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true within %v: %s", eventuallyMax, what)
		}
		time.Sleep(2 * time.Millisecond) // poll
	}
}

// admin runs an administrative call at whichever controller leads.
func (c *cluster) admin(what string, do func(context.Context, ctrlpb.ControllerClient) error) {
	c.t.Helper()
	var last error
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		for _, a := range c.controllerAddresses() {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			last = do(ctx, ctrlpb.NewControllerClient(c.conn(a)))
			cancel()
			if last == nil {
				return
			}
		}
		time.Sleep(5 * time.Millisecond) // poll
	}
	c.t.Fatalf("%s: %v", what, last)
}

func requestID() *ctrlpb.RequestID {
	return &ctrlpb.RequestID{Id: random16(), BirthMs: uint64(time.Now().UnixMilli())}
}

func (c *cluster) join(gid uint64) {
	c.t.Helper()
	request := &ctrlpb.JoinRequest{Request: requestID(), Groups: []*ctrlpb.JoinGroup{{Gid: gid, Replicas: c.addresses(gid)}}}
	c.admin("join", func(ctx context.Context, k ctrlpb.ControllerClient) error {
		_, err := k.Join(ctx, request)
		return err
	})
}

func (c *cluster) leave(gid uint64) {
	c.t.Helper()
	request := &ctrlpb.LeaveRequest{Request: requestID(), Gids: []uint64{gid}}
	c.admin("leave", func(ctx context.Context, k ctrlpb.ControllerClient) error {
		_, err := k.Leave(ctx, request)
		return err
	})
}

func (c *cluster) move(shard uint32, gid uint64) {
	c.t.Helper()
	request := &ctrlpb.MoveRequest{Request: requestID(), Shard: shard, Gid: gid}
	c.admin("move", func(ctx context.Context, k ctrlpb.ControllerClient) error {
		_, err := k.Move(ctx, request)
		return err
	})
}

func (c *cluster) config() (config *ctrlpb.Config) {
	c.t.Helper()
	c.admin("query", func(ctx context.Context, k ctrlpb.ControllerClient) error {
		reply, err := k.Query(ctx, &ctrlpb.QueryRequest{})
		config = reply.GetConfig()
		return err
	})
	return config
}

// status asks the first replica of a group that leads, or nil.
func (c *cluster) leaderStatus(gid uint64) *kvpb.StatusResponse {
	for _, a := range c.addresses(gid) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		st, err := kvpb.NewKVClient(c.conn(a)).Status(ctx, &kvpb.StatusRequest{Shards: true})
		cancel()
		if err == nil && st.GetLeader() == a {
			return st
		}
	}
	return nil
}

// settled reports whether the groups together hold every shard, where the
// latest config wants it.
func (c *cluster) settled(shards int) bool {
	owners := make([]uint64, 0, shards)
	for _, run := range c.config().GetShards() {
		for range run.GetLength() {
			owners = append(owners, run.GetGid())
		}
	}
	held := 0
	for gid := range c.groups {
		st := c.leaderStatus(gid)
		if st == nil {
			return false
		}
		for _, s := range st.GetShards() {
			if s.GetPhase() != kvpb.Phase_SERVING {
				if s.GetPhase() != kvpb.Phase_ABSENT && s.GetPhase() != kvpb.Phase_PASSED || s.GetStaging() != nil {
					return false
				}
				continue
			}
			if owners[s.GetShard()] != gid {
				return false
			}
			held++
		}
	}
	return held == shards
}

func (c *cluster) waitSettled(shards int) {
	c.t.Helper()
	eventually(c.t, "every shard is served by its owner", func() bool { return c.settled(shards) })
}
