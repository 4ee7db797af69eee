package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// A cluster is a group in one process, on in-memory transports, logs and
// stores. Tests run it in a synctest bubble, so that its hours take moments.
type cluster struct {
	t     *testing.T
	nodes []*node
	// tune changes the options of every replica that is started.
	tune func(n *node, o *Options)
}

type node struct {
	c         *cluster
	member    formation.Member
	founders  []formation.Member
	store     *store.Mem
	log       *testLog
	machine   *logMachine
	transport *testTransport
	replica   *Replica // nil: not running
	fatal     chan error
}

// newCluster makes n founders, which are not started yet.
func newCluster(t *testing.T, n int) *cluster {
	c := &cluster{t: t}
	var founders []formation.Member
	for i := range n {
		founders = append(founders, memberNumber(i))
	}
	for i := range n {
		c.add(i, founders)
	}
	return c
}

func memberNumber(i int) formation.Member {
	return formation.Member{Label: fmt.Sprintf("r%d", i), ServerID: fmt.Sprintf("id-%d", i), Address: fmt.Sprintf("addr-%d", i)}
}

func (c *cluster) add(i int, founders []formation.Member) *node {
	n := &node{c: c, member: memberNumber(i), founders: founders, store: store.NewMem(), log: newTestLog()}
	c.nodes = append(c.nodes, n)
	return n
}

func startCluster(t *testing.T, n int) *cluster {
	c := newCluster(t, n)
	c.startAll()
	return c
}

func (c *cluster) startAll() {
	for _, n := range c.nodes {
		n.start()
	}
}

func (n *node) options() Options {
	level := hclog.Off
	if os.Getenv("RAFTGROUP_LOG") != "" {
		level = hclog.Debug
	}
	return Options{
		Identity:  formation.Identity{Label: n.member.Label, ServerID: n.member.ServerID, Founders: n.founders},
		Store:     n.store,
		Log:       n.log,
		Advertise: n.member.Address,
		Timeout:   500 * time.Millisecond,
		Logger:    hclog.New(&hclog.LoggerOptions{Name: n.member.Label, Level: level, TimeFn: time.Now}),
		Transport: func() raft.Transport { return n.transport },
	}
}

func (n *node) open() error {
	n.machine = &logMachine{}
	n.fatal = make(chan error, 1)
	_, inmem := raft.NewInmemTransportWithTimeout(raft.ServerAddress(n.member.Address), 2*time.Second)
	n.transport = &testTransport{InmemTransport: inmem}
	o := n.options()
	o.Machine = n.machine
	o.OnFatal = func(err error) { n.fatal <- err }
	if n.c.tune != nil {
		n.c.tune(n, &o)
	}
	for _, other := range n.c.nodes {
		if other != n && other.transport != nil {
			n.transport.Connect(raft.ServerAddress(other.member.Address), other.transport.InmemTransport)
			other.transport.Connect(raft.ServerAddress(n.member.Address), n.transport.InmemTransport)
		}
	}
	r, err := Open(o)
	if err != nil {
		return err
	}
	n.replica = r
	return nil
}

func (n *node) start() {
	n.c.t.Helper()
	if err := n.open(); err != nil {
		n.c.t.Fatalf("start %s: %v", n.member.Label, err)
	}
}

func (n *node) stop() {
	n.c.t.Helper()
	if n.replica == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.replica.Close(ctx); err != nil {
		n.c.t.Fatalf("close %s: %v", n.member.Label, err)
	}
	n.replica = nil
	n.isolate()
}

// crash stops the replica as a crash would: what its store had not synced is gone.
func (n *node) crash(keepBatches int) {
	n.isolate()
	n.stop()
	n.store = n.store.Crash(keepBatches)
}

// stopAll ends a test in a bubble. Some of Raft's own goroutines, which nobody can
// wait for, end only with the timeouts of their messages.
func (c *cluster) stopAll() {
	for _, n := range c.nodes {
		n.stop()
	}
	time.Sleep(time.Minute) // virtual
}

// isolate lets no message of n out or in, both ways.
func (n *node) isolate() {
	for _, other := range n.c.nodes {
		if other != n && other.transport != nil {
			n.block(other)
			other.block(n)
		}
	}
}

// block drops the requests of n to another.
func (n *node) block(to *node) {
	n.transport.Disconnect(raft.ServerAddress(to.member.Address))
}

func (n *node) rejoin() {
	for _, other := range n.c.nodes {
		if other != n && other.transport != nil {
			n.transport.Connect(raft.ServerAddress(other.member.Address), other.transport.InmemTransport)
			other.transport.Connect(raft.ServerAddress(n.member.Address), n.transport.InmemTransport)
		}
	}
}

// leads reports whether the replica leads, serves reads, and does not merely
// have yet to notice that it no longer does.
func (n *node) leads() bool {
	return n.replica != nil && n.replica.Status().Ready && n.replica.node().State() == raft.Leader
}

// leader waits for a leader that serves reads.
func (c *cluster) leader() *node {
	c.t.Helper()
	return c.leaderOtherThan(nil)
}

// leaderOtherThan waits for a ready leader that is not n.
func (c *cluster) leaderOtherThan(n *node) (found *node) {
	c.t.Helper()
	c.eventually("leader", func() bool {
		for _, other := range c.nodes {
			if other != n && other.leads() {
				found = other
				return true
			}
		}
		return false
	})
	return found
}

func (c *cluster) followers(leader *node) (out []*node) {
	for _, n := range c.nodes {
		if n != leader {
			out = append(out, n)
		}
	}
	return out
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) { // poll
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s within a minute", what)
		}
	}
}

// put proposes on n and fails the test on an error.
func (n *node) put(format string, args ...any) {
	n.c.t.Helper()
	if _, err := n.replica.Propose(within(n.c.t, 30*time.Second), set(format, args...)); err != nil {
		n.c.t.Fatalf("propose on %s: %v", n.member.Label, err)
	}
}

// put proposes on whoever leads, again while it was not done, and returns the
// leader.
func (c *cluster) put(format string, args ...any) (leader *node) {
	c.t.Helper()
	c.eventually("leader that commits", func() bool {
		leader = c.leader()
		_, err := leader.replica.Propose(within(c.t, 30*time.Second), set(format, args...))
		if err != nil && !errors.Is(err, ErrNotDone) {
			c.t.Fatalf("propose on %s: %v", leader.member.Label, err)
		}
		return err == nil
	})
	return leader
}

// converge waits until every running replica has applied what is committed and
// all stores are equal.
func (c *cluster) converge() {
	c.t.Helper()
	c.eventually("equal stores", func() bool {
		var sum *store.Sum
		for _, n := range c.nodes {
			if n.replica == nil {
				continue
			}
			h := n.store.Hash()
			if sum != nil && *sum != h {
				return false
			}
			sum = &h
		}
		return true
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// A testTransport lets a test hold messages and their answers.
type testTransport struct {
	*raft.InmemTransport

	mu sync.Mutex
	// sending is called before an AppendEntries is sent, answered before Raft sees
	// its answer.
	sending, answered func(args *raft.AppendEntriesRequest) error
	// installing is called with the stream of a snapshot that is about to be sent.
	installing func(data io.Reader) io.Reader
	timeoutNow func() error
	preVotes   int
}

func (t *testTransport) hook(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

func (t *testTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.mu.Lock()
	sending, answered := t.sending, t.answered
	t.mu.Unlock()
	if sending != nil {
		if err := sending(args); err != nil {
			return err
		}
	}
	if err := t.InmemTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	if answered != nil {
		return answered(args)
	}
	return nil
}

func (t *testTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.mu.Lock()
	installing := t.installing
	t.mu.Unlock()
	if installing != nil {
		data = installing(data)
	}
	return t.InmemTransport.InstallSnapshot(id, target, args, resp, data)
}

func (t *testTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	t.mu.Lock()
	t.preVotes++
	t.mu.Unlock()
	return t.InmemTransport.RequestPreVote(id, target, args, resp)
}

func (t *testTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	t.mu.Lock()
	hook := t.timeoutNow
	t.mu.Unlock()
	if hook != nil {
		return hook()
	}
	return t.InmemTransport.TimeoutNow(id, target, args, resp)
}

// A testLog is a log store in memory that fails and stalls as it is told.
type testLog struct {
	*raft.InmemStore
	mu    sync.Mutex
	store func(logs []*raft.Log) error // before entries are stored
	cut   func() error                 // before a cut
	term  func() error                 // before a term is written
}

func newTestLog() *testLog { return &testLog{InmemStore: raft.NewInmemStore()} }

func (l *testLog) hook(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *testLog) StoreLogs(logs []*raft.Log) error {
	l.mu.Lock()
	before := l.store
	l.mu.Unlock()
	if before != nil {
		if err := before(logs); err != nil {
			return err
		}
	}
	// Raft reuses nothing, and shares entries with its in-memory peers: copy.
	own := make([]*raft.Log, len(logs))
	for i, e := range logs {
		c := *e
		own[i] = &c
	}
	return l.InmemStore.StoreLogs(own)
}

func (l *testLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *testLog) DeleteRange(low, high uint64) error {
	l.mu.Lock()
	before := l.cut
	l.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	return l.InmemStore.DeleteRange(low, high)
}

func (l *testLog) SetUint64(key []byte, v uint64) error {
	l.mu.Lock()
	before := l.term
	l.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	return l.InmemStore.SetUint64(key, v)
}

var errDisk = errors.New("input/output error")
