package formation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// errCrash is the end of a replica at a hook.
var errCrash = errors.New("crash")

// A testGroup is a set of replicas that reach each other under names that stay
// when they restart: "host-LABEL:1".
type testGroup struct {
	t      *testing.T
	group  shardcfg.GroupID
	labels []string

	mu    sync.Mutex
	addrs map[string]string // name -> where it listens now
}

func newTestGroup(t *testing.T, group shardcfg.GroupID, labels ...string) *testGroup {
	return &testGroup{t: t, group: group, labels: labels, addrs: map[string]string{}}
}

func (g *testGroup) peers() map[string]string {
	peers := map[string]string{}
	for _, label := range g.labels {
		peers[label] = hostName(label)
	}
	return peers
}

func hostName(label string) string { return "host-" + label + ":1" }

func (g *testGroup) options(label, dir string) Options {
	return Options{
		Dir: dir, Group: g.group, Label: label, Peers: g.peers(), Advertise: hostName(label),
		ShardCount: 64, Interval: 5 * time.Millisecond,
		Cluster: func(context.Context) (shardcfg.ClusterID, int, error) { return shardcfg.ClusterID{1, 2, 3}, 64, nil },
	}
}

// A node is one running replica.
type node struct {
	group   *testGroup
	former  *Former
	server  *grpc.Server
	crashed chan struct{} // closed when a hook made it crash
	result  chan formed
	cancel  context.CancelFunc
	conns   sync.Map // name -> *grpc.ClientConn
}

type formed struct {
	id  Identity
	err error
}

// start starts a replica; crashAt, if set, says at which step it crashes.
func (g *testGroup) start(o Options, crashAt func(step) bool) *node {
	g.t.Helper()
	n := &node{group: g, crashed: make(chan struct{}), result: make(chan formed, 1)}
	var once sync.Once
	o.hook = func(s step) error {
		if crashAt != nil && crashAt(s) {
			once.Do(func() { close(n.crashed) })
		}
		select {
		case <-n.crashed:
			return errCrash
		default:
			return nil
		}
	}
	o.Dial = n.dial
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	former, err := Open(o)
	if err != nil {
		n.result <- formed{err: err}
		return n
	}
	n.former = former
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	n.server = grpc.NewServer()
	raftpb.RegisterFormationServer(n.server, former)
	go n.server.Serve(listener)
	g.mu.Lock()
	g.addrs[o.Advertise] = listener.Addr().String()
	g.mu.Unlock()
	go func() {
		id, err := former.Form(ctx)
		n.result <- formed{id, err}
	}()
	g.t.Cleanup(n.stop)
	return n
}

func (n *node) dial(name string) (grpc.ClientConnInterface, error) {
	if conn, ok := n.conns.Load(name); ok {
		return conn.(*grpc.ClientConn), nil
	}
	conn, err := grpc.NewClient("passthrough:///"+name, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) {
			n.group.mu.Lock()
			addr := n.group.addrs[name]
			n.group.mu.Unlock()
			if addr == "" {
				return nil, fmt.Errorf("%s is down", name)
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return nil, err
	}
	if other, loaded := n.conns.LoadOrStore(name, conn); loaded {
		conn.Close()
		return other.(*grpc.ClientConn), nil
	}
	return conn, nil
}

// stop ends the replica, as a crash would: nothing is written any more.
func (n *node) stop() {
	if n.server == nil {
		return
	}
	n.cancel()
	n.group.mu.Lock()
	delete(n.group.addrs, n.former.opts.Advertise)
	n.group.mu.Unlock()
	n.server.Stop()
	n.conns.Range(func(_, conn any) bool {
		conn.(*grpc.ClientConn).Close()
		return true
	})
	n.server = nil
}

// wait returns what Form returned.
func (n *node) wait() (Identity, error) {
	n.group.t.Helper()
	select {
	case f := <-n.result:
		n.result <- f
		return f.id, f.err
	case <-time.After(15 * time.Second):
		n.group.t.Fatal("the replica is neither formed nor refused")
		return Identity{}, nil
	}
}

// expectGroup waits for all nodes and checks that they form one group.
func expectGroup(t *testing.T, nodes ...*node) Identity {
	t.Helper()
	var first Identity
	for i, n := range nodes {
		id, err := n.wait()
		if err != nil {
			t.Fatalf("%s: %v", n.group.labels[i], err)
		}
		if i == 0 {
			first = id
		}
		if !id.sameGroup(&first) {
			t.Fatalf("two identities: %+v and %+v", id, first)
		}
		if own, ok := id.founder(id.Label); !ok || own.ServerID != id.ServerID {
			t.Fatalf("%+v does not list itself", id)
		}
	}
	return first
}

// dirs makes a data directory for each label.
func dirs(t *testing.T, labels ...string) map[string]string {
	d := map[string]string{}
	for _, label := range labels {
		d[label] = t.TempDir()
	}
	return d
}

func identityPath(dir string) string { return filepath.Join(dir, FileName) }
