package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// ReplicaOptions say which replica lives in the host. See formation.Options for
// the first six.
type ReplicaOptions struct {
	GroupID    shardcfg.GroupID
	Label      string
	Peers      map[string]string
	ShardCount int // controllers only; 0: the default
	Cluster    func(context.Context) (shardcfg.ClusterID, int, error)
	LogStore   string // empty: the default, or what the replica was formed with

	// Machine makes the machine that the group replicates, once the replica
	// knows who it is.
	Machine func(formation.Identity) (raftgroup.StateMachine, error)
	// Timeout is Raft's heartbeat, election and lease timeout; 0: the default.
	Timeout time.Duration
	// Tune, if set, may change the byte budgets and limits of the replica's
	// options before it is opened.
	Tune func(*raftgroup.Options)
}

// A runningReplica is a replica with all that it owns.
type runningReplica struct {
	identity formation.Identity
	replica  *raftgroup.Replica
	log      logstore.LogStore
	appends  prometheus.Histogram
	store    *pebblestore.Store
	peers    *peerBook
	removal  *removalWatch
	cancel   context.CancelFunc // of the goroutines that watch for a removal, of the replica and of its directory
	done     chan struct{}      // closed when both have ended
}

// formerSlot serves Formation for the former that Replica puts into it.
type formerSlot struct {
	raftpb.UnimplementedFormationServer
	former atomic.Pointer[formation.Former]
}

func (s *formerSlot) get() *formation.Former { return s.former.Load() }

var errStarting = status.Error(codes.Unavailable, "this replica is starting")

// Hello says who the replica is.
func (s *formerSlot) Hello(ctx context.Context, req *raftpb.HelloRequest) (*raftpb.HelloReply, error) {
	if f := s.get(); f != nil {
		return f.Hello(ctx, req)
	}
	return nil, errStarting
}

// Found proposes an identity to the replica.
func (s *formerSlot) Found(ctx context.Context, req *raftpb.FoundRequest) (*raftpb.FoundReply, error) {
	if f := s.get(); f != nil {
		return f.Found(ctx, req)
	}
	return nil, errStarting
}

// Replica loads the replica's identity, or forms its group, or waits to be added
// to it; then it opens the stores, starts Raft, and serves Membership. It may
// be called once, after Serve. ctx bounds the forming only; the replica runs
// until the host is closed.
//
// Errors include those of package formation (see formation.Refused) and
// logstore, and ctx's. After an error the host is good for nothing but Close.
func (h *Host) Replica(ctx context.Context, o ReplicaOptions) (*raftgroup.Replica, formation.Identity, error) {
	h.mu.Lock()
	if h.mu.closed {
		h.mu.Unlock()
		return nil, formation.Identity{}, ErrClosed
	}
	h.starting.Add(1)
	h.mu.Unlock()
	defer h.starting.Done()
	former, err := h.openFormer(o)
	if err != nil {
		return nil, formation.Identity{}, err
	}
	ctx, stop := h.untilDraining(ctx)
	defer stop()
	id, err := former.Form(ctx)
	if err != nil {
		return nil, formation.Identity{}, err
	}
	h.log.Info("replica", "group", uint64(id.Group), "id", id.Label, "server", id.ServerID,
		"incarnation", id.Incarnation.String(), "cluster", id.Cluster.String(), "address", h.Advertise())
	r, err := h.openReplica(ctx, former, id, o)
	if err != nil {
		return nil, formation.Identity{}, err
	}
	h.mu.Lock()
	closed := h.mu.closed
	if !closed {
		h.mu.replica = r
	}
	h.mu.Unlock()
	if closed {
		return nil, formation.Identity{}, errors.Join(ErrClosed, r.close(context.Background()))
	}
	h.registry.MustRegister(&replicaCollector{replica: r}, r.appends)
	h.reportHealth()
	return r.replica, id, nil
}

func (h *Host) openFormer(o ReplicaOptions) (*formation.Former, error) {
	if o.GroupID == 0 && o.ShardCount == 0 {
		o.ShardCount = shardcfg.ShardCountDefault
	}
	former, err := formation.Open(formation.Options{
		Dir: h.opts.DataDir, Group: o.GroupID, Label: o.Label, Peers: o.Peers, Advertise: h.Advertise(),
		ShardCount: o.ShardCount, LogStore: o.LogStore, Cluster: o.Cluster, Version: h.opts.Version,
		Dial:   func(addr string) (grpc.ClientConnInterface, error) { return h.Dial(addr) },
		Logger: h.log.Named("formation"),
	})
	if err != nil {
		return nil, err
	}
	if !h.former.former.CompareAndSwap(nil, former) {
		return nil, errors.New("host: Replica was called before")
	}
	return former, nil
}

// openReplica opens the stores and starts Raft on them.
func (h *Host) openReplica(ctx context.Context, former *formation.Former, id formation.Identity, o ReplicaOptions) (_ *runningReplica, err error) {
	if former.Started() {
		if err := h.checkStores(id); err != nil {
			return nil, err
		}
	}
	renumbered := former.Renumbered()
	r := &runningReplica{identity: id, peers: newPeerBook(id, renumbered), appends: newAppendSeconds(), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.closeStores())
		}
	}()
	if r.log, err = logstore.Open(id.LogStore, h.opts.DataDir, logstore.Options{Warn: func(err error) {
		h.log.Warn("damage that does no harm: the log store keeps two copies of it", "error", err)
	}}); err != nil {
		return nil, h.damage(err)
	}
	storeOptions := h.opts.Store
	storeOptions.Dir = filepath.Join(h.opts.DataDir, formation.StateDir)
	storeOptions.OpenFilesMax = cmp.Or(storeOptions.OpenFilesMax, h.limits.stores)
	storeOptions.Logger, storeOptions.OnFatal = h.log.Named("store"), h.fatal
	if r.store, err = pebblestore.Open(storeOptions); err != nil {
		return nil, h.damage(err)
	}
	// Only now may Raft vote: from here on, a store that is missing is a loss.
	if err := former.MarkStarted(ctx); err != nil {
		return nil, err
	}
	machine, err := o.Machine(id)
	if err != nil {
		return nil, err
	}
	streams := newRaftStreams(h, id, r.peers)
	options := raftgroup.Options{
		Identity: id, Store: r.store, Machine: machine, Log: timedLog{r.log, r.appends},
		Streams: streams, Advertise: h.Advertise(), Resolve: r.peers.resolve, Renumbered: renumbered,
		Timeout: o.Timeout, Logger: h.log.Named("raft"), OnFatal: h.fatal,
	}
	if o.Tune != nil {
		o.Tune(&options)
	}
	if r.replica, err = raftgroup.Open(options); err != nil {
		return nil, errors.Join(err, options.Streams.Close())
	}
	streams.open(r.replica)
	watchCtx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.removal = &removalWatch{host: h, replica: r}
	var watches sync.WaitGroup
	watches.Go(func() { r.removal.run(watchCtx) })
	watches.Go(func() { (&dirWatch{host: h, log: id.LogStore}).run(watchCtx) })
	go func() {
		defer close(r.done)
		watches.Wait()
	}()
	return r, nil
}

// checkStores refuses to begin anew in the place of stores that were lost: a
// replica without its votes and its log must not use its old name.
func (h *Host) checkStores(id formation.Identity) error {
	dir := h.opts.DataDir
	exists, err := logstore.Exists(id.LogStore, dir)
	if err != nil {
		return fmt.Errorf("look for the log: %w", err)
	}
	if !exists {
		return &formation.DamagedError{Path: dir, Problem: "the log store (" + id.LogStore + ") is missing"}
	}
	switch _, err := os.Stat(filepath.Join(dir, formation.StateDir)); {
	case errors.Is(err, fs.ErrNotExist):
		return &formation.DamagedError{Path: dir, Problem: "the directory " + formation.StateDir + " is missing"}
	case err != nil:
		return fmt.Errorf("look for the state: %w", err)
	}
	return nil
}

// damage makes a *formation.DamagedError of an error about bytes that are not what
// was written: starting again will not help.
func (h *Host) damage(err error) error {
	if errors.Is(err, logstore.ErrCorrupt) || errors.Is(err, pebblestore.ErrDamaged) {
		return &formation.DamagedError{Path: h.opts.DataDir, Problem: err.Error()}
	}
	return err
}

// close stops the replica and closes its stores. If the replica does not stop
// before ctx ends, they stay open: it may still be writing to them, and a disk
// that hangs would make closing them hang too.
func (r *runningReplica) close(ctx context.Context) error {
	err := r.replica.Close(ctx)
	r.cancel()
	<-r.done
	if err != nil && ctx.Err() != nil {
		return err
	}
	return errors.Join(err, r.closeStores())
}

func (r *runningReplica) closeStores() error {
	var errs []error
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.log != nil {
		errs = append(errs, r.log.Close())
	}
	return errors.Join(errs...)
}

// running is the replica, once it runs, or nil.
func (h *Host) running() *runningReplica {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.replica
}

// expects reports whether a replica is being started here that may be of the
// given incarnation.
func (h *Host) expects(incarnation shardcfg.Incarnation) bool {
	if h.former.get() == nil || h.running() != nil || h.Fatal() != nil {
		return false
	}
	id, formed := h.Identity()
	return !formed || id.Incarnation == incarnation
}

// untilDraining returns a context that ends with ctx, or when the host begins to
// close. The second result ends it and must be called.
func (h *Host) untilDraining(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-h.draining:
			cancel(ErrClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}
