package raftgroup

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

// A tcpStreams is a plain StreamLayer on loopback.
type tcpStreams struct{ net.Listener }

func (tcpStreams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

// startTCP starts n replicas on loopback, in real time.
func startTCP(t *testing.T, n int) *cluster {
	c := newCluster(t, n)
	listeners := make(map[string]net.Listener)
	for i, node := range c.nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		node.member.Address = l.Addr().String()
		listeners[node.member.ServerID] = l
		c.nodes[0].founders[i].Address = node.member.Address // shared by all
	}
	c.tune = func(n *node, o *Options) {
		o.Transport, o.Streams = nil, tcpStreams{listeners[n.member.ServerID]}
	}
	c.startAll()
	return c
}

// Claim: over real connections three replicas commit and read under concurrent
// load, survive the loss of their leader without a lost or doubled command, and
// leave no goroutine behind.
func TestOverTCP(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := startTCP(t, 3)
	const callers, each = 16, 40
	leader := c.leader()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				if _, err := leader.replica.Propose(within(t, 10*time.Second), set("k%d-%d=%d", caller, i, i)); err != nil {
					t.Errorf("propose: %v", err)
					return
				}
				if err := leader.replica.ReadBarrier(within(t, 10*time.Second)); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if got := valueOf(leader.store, fmt.Sprintf("k%d-%d", caller, i)); got != fmt.Sprint(i) {
					t.Errorf("k%d-%d=%s behind a barrier", caller, i, got)
				}
			}
		})
	}
	wg.Wait()
	s := leader.replica.Status().Counters
	if s.Entries >= s.Proposals || s.ReadRounds >= s.Reads {
		t.Errorf("nothing was packed or shared: %+v", s)
	}
	leader.replica.fatal(errors.New("pulled the plug"))
	next := c.leaderOtherThan(leader)
	next.put("after=1")
	count, _, err := next.store.Get(keyCount)
	if err != nil || len(count) != 8 || int(count[6])<<8|int(count[7]) != callers*each+1 {
		t.Errorf("%x commands were applied, %v", count, err)
	}
	for _, n := range c.nodes {
		if err := n.replica.Close(within(t, 10*time.Second)); err != nil {
			t.Errorf("close %s: %v", n.member.Label, err)
		}
	}
	goleak.VerifyNone(t, before)
}

// Claim: a follower that lags over a real connection gets its snapshot, of
// exactly the announced size.
func TestSnapshotOverTCP(t *testing.T) {
	c := startTCP(t, 3)
	tune := c.tune
	leader := c.leader()
	away := c.followers(leader)[0]
	if err := away.replica.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		leader.put("big%d=%s", i, make([]byte, 300<<10))
	}
	// Everything but the newest entries goes.
	leader.replica.o.TrailingLogBytes = 1
	leader.replica.cutLog()
	if first := leader.replica.Status().FirstIndex; first < 10 {
		t.Fatalf("the log begins at %d", first)
	}
	l, err := net.Listen("tcp", away.member.Address)
	if err != nil {
		t.Fatal(err)
	}
	c.tune = func(n *node, o *Options) {
		tune(n, o)
		o.Streams = tcpStreams{l}
	}
	away.start()
	c.eventually("installed snapshot", func() bool { return away.replica.Status().Counters.Installed > 0 })
	c.converge()
	for _, n := range c.nodes {
		if err := n.replica.Close(within(t, 10*time.Second)); err != nil {
			t.Errorf("close %s: %v", n.member.Label, err)
		}
	}
}
