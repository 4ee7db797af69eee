// Package shardctrler serves the shard controller: it puts requests into the
// log of the controllers' group, where package ctrlfsm decides them, and answers
// queries, watches and the polls of the replica groups.
//
// What must not be lost is in the log. What groups report of themselves
// (holdings, leader, load) is the memory of the leading controller only: a new
// leader hears it again within a poll interval. Nothing safe rests on it.
//
// Row 4 of the layers: it may use raftgroup and its host, gRPC, the network and
// the clock. Goroutines: gRPC runs the handlers; Run owns one that tells the
// watchers about new configurations, and one that keeps the reports while this
// replica leads. Run waits for both.
package shardctrler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const (
	// callTimeout bounds a call whose caller set no deadline, and every proposal.
	callTimeout = 10 * time.Second
	// helloTimeout is how long a replica may take to say who it is.
	helloTimeout = 2 * time.Second
	// hellosAtOnce bounds the replicas that are asked at the same time.
	hellosAtOnce = 32
	// watchersMax bounds the open watches of one replica.
	watchersMax = 16384
)

// A group is the controllers' replicated machine as the server sees it.
// *raftgroup.Replica is one.
type group interface {
	Propose(ctx context.Context, c entry.Command) (any, error)
	ReadBarrier(ctx context.Context) error
	Leader() (address string, self bool)
	Status() raftgroup.Status
	Store() store.Store
	Clock() uint64
	WhileLeader(name string, run func(ctx context.Context))
}

// A Server answers the Controller service. Its methods may be called from any
// goroutine. Until its replica is open it answers Info only; everything else is
// Unavailable, not done.
type Server struct {
	ctrlpb.UnimplementedControllerServer

	host *host.Host
	opts Options

	wake     chan struct{} // capacity 1: something was applied
	changes  broadcast     // a config was published
	watchers atomic.Int64
	reports  reports
	configs  configCache
	counts   counters

	mu struct {
		sync.Mutex
		open *replica // nil until the replica is open, and after it closed
	}
}

// A replica is what the server serves once it is open.
type replica struct {
	group
	id formation.Identity
}

func newServer(h *host.Host, o Options) *Server {
	s := &Server{host: h, opts: o, wake: make(chan struct{}, 1)}
	s.changes.init()
	s.reports.init(o.Clock)
	return s
}

// applied is the machine's wake-up.
func (s *Server) applied(uint64) {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve attaches the open replica and tells watchers about new configs until
// ctx ends.
func (s *Server) serve(ctx context.Context, g group, id formation.Identity) error {
	r := &replica{group: g, id: id}
	s.mu.Lock()
	s.mu.open = r
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.mu.open = nil
		s.mu.Unlock()
	}()
	g.WhileLeader("reports", func(ctx context.Context) {
		s.reports.reset()
		<-ctx.Done()
		s.reports.reset()
	})
	var told shardcfg.ConfigNum
	for {
		num, err := ctrlfsm.NewView(g.Store(), id.ShardCount).Num()
		switch {
		case ctx.Err() != nil, isClosed(s.host.Draining()):
			return nil // which may well be why the store is closed
		case err != nil:
			return fmt.Errorf("read the latest configuration's number: %w", err)
		case num != told:
			told = num
			s.changes.tell()
		}
		select {
		case <-s.wake:
		case <-s.host.Draining():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// ready returns the open replica, or the status to answer without one.
func (s *Server) ready(cluster []byte) (*replica, error) {
	s.mu.Lock()
	r := s.mu.open
	s.mu.Unlock()
	if r == nil {
		return nil, notDone("", "this controller is not formed yet, or is closing")
	}
	if err := checkCluster(r.id.Cluster, cluster); err != nil {
		return nil, err
	}
	return r, nil
}

// leading is ready at the leader only.
func (s *Server) leading(cluster []byte) (*replica, error) {
	r, err := s.ready(cluster)
	if err != nil {
		return nil, err
	}
	if leader, self := r.Leader(); !self {
		return nil, notDone(leader, "this controller does not lead")
	}
	return r, nil
}

// A reading is a consistent state of the controller. The caller closes it, soon.
type reading struct {
	ctrlfsm.View
	snap store.Snapshot
	// latest is shared: never change it.
	latest *shardcfg.Config
}

func (rd *reading) close() error { return rd.snap.Close() }

// read takes a snapshot and hands it to use.
func (s *Server) read(r *replica, use func(rd *reading) error) (err error) {
	snap, err := r.Store().NewSnapshot()
	if err != nil {
		return internal("take a snapshot", err)
	}
	rd := &reading{View: ctrlfsm.NewView(snap, r.id.ShardCount), snap: snap}
	defer func() {
		if closeErr := rd.close(); closeErr != nil {
			err = errors.Join(err, internal("close a snapshot", closeErr))
		}
	}()
	if rd.latest, err = s.configs.latest(rd.View); err != nil {
		return internal("read the latest configuration", err)
	}
	return use(rd)
}

// propose puts a command into the log and returns its result. The error is a
// status.
func (s *Server) propose(ctx context.Context, r *replica, c ctrlfsm.Command) (ctrlfsm.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	encoded := c.Encode()
	// A log entry that no replica can read would stop them all, so what is over
	// a bound is refused here.
	if _, err := ctrlfsm.Decode(encoded); err != nil {
		s.counts.refusals.Add(1)
		return ctrlfsm.Result{}, refuse(ctrlfsm.BadRequest, "the request is over a limit: %v", err)
	}
	v, err := r.Propose(ctx, encoded)
	if err != nil {
		leader, _ := r.Leader()
		return ctrlfsm.Result{}, proposalError(leader, err)
	}
	res, ok := v.(ctrlfsm.Result)
	if !ok {
		panic(fmt.Sprintf("shardctrler: the machine answered a %T", v))
	}
	if res.Refusal != nil {
		s.counts.refusals.Add(1)
		return res, refusal(res.Refusal)
	}
	return res, nil
}

// barrier makes sure that a later read sees everything that completed earlier.
func (s *Server) barrier(ctx context.Context, r *replica) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := r.ReadBarrier(ctx); err != nil {
		leader, _ := r.Leader()
		return notDone(leader, "no quorum confirmed this controller's leadership: "+err.Error())
	}
	return nil
}

// clock is the cluster's clock in ms since 1970: sessions and requests are
// dated by it.
func (s *Server) clock(r *replica) uint64 {
	return max(r.Clock(), uint64(max(s.opts.Clock().UnixMilli(), 0)))
}

// A configCache keeps the latest config decoded.
type configCache struct {
	mu struct {
		sync.Mutex
		latest *shardcfg.Config
	}
}

// latest returns v's latest config, which is shared: never change it.
func (c *configCache) latest(v ctrlfsm.View) (*shardcfg.Config, error) {
	num, err := v.Num()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	known := c.mu.latest
	c.mu.Unlock()
	// A number means the same config for good, and in every replica.
	if known != nil && known.Num == num {
		return known, nil
	}
	cfg, err := v.Latest()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.latest = cfg
	return cfg, nil
}

// A broadcast wakes everyone who waits for a change; it carries no data.
type broadcast struct {
	mu struct {
		sync.Mutex
		next chan struct{}
	}
}

func (b *broadcast) init() { b.mu.next = make(chan struct{}) }

// wait returns a channel that is closed by the next tell. Take it before
// looking at the state.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.next
}

func (b *broadcast) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.mu.next)
	b.mu.next = make(chan struct{})
}
