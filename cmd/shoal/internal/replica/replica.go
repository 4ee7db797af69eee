// Package replica runs one replica of a cluster, a controller or a member of a
// group: it wires a host with the server that lives in it.
//
// Start returns as soon as the replica listens; forming its group, or waiting
// to be added to one, goes on behind it. A Replica owns one goroutine, which
// drives the server, and everything that its host owns; Close ends them all. The
// package may import what it wires.
package replica

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
	"github.com/shoalkv/shoal/shardctrler"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv"
)

// Options say which replica to run. They are complete at Start and frozen after.
type Options struct {
	// Group is the gid; 0: a controller.
	Group shardcfg.GroupID
	// ID is the replica's label, Peers all replicas of its group by their
	// labels, this one included. Without Peers it waits to be added to a group
	// that exists.
	ID    string
	Peers map[string]string
	// Controllers are the controllers' addresses; not used by a controller.
	Controllers []string
	// Shards is the count that a new cluster is formed with; controllers only.
	Shards int

	Listen    string // host:port
	Advertise string // as others reach it; empty: as Peers says, else as it listens
	Data      string // directory
	HTTP      string // address for metrics, probes and profiles; empty: none
	Insecure  bool   // permits to listen off loopback without TLS
	LogStore  string // kind; empty: the default
	// LogBytesMax bounds what the replica's log keeps for others; 0: the default of
	// raftgroup.Options.
	LogBytesMax int64

	Version string
	Logger  hclog.Logger // nil: silence
	Store   pebblestore.Options
}

// A Replica is a replica that was started. Its methods may be called from any
// goroutine.
type Replica struct {
	host   *host.Host
	server server
	cancel context.CancelFunc
	closer sync.Once
	done   chan struct{}

	mu struct {
		sync.Mutex
		err    error // the first
		closed bool  // what fails from now on is of no interest
	}
}

// A server is what lives in a host: a controller, or a member of a group.
type server interface {
	// Run opens the replica and drives it until ctx ends, the host drains, or the
	// replica fails.
	Run(ctx context.Context) error
}

// Start starts a replica. Errors include those of host.New.
func Start(o Options) (*Replica, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	r := &Replica{done: make(chan struct{})}
	failed := make(chan struct{})
	h, err := host.New(host.Options{
		Listen: o.Listen, Advertise: cmp.Or(o.Advertise, o.Peers[o.ID]), Insecure: o.Insecure, HTTP: o.HTTP,
		DataDir: o.Data, Version: o.Version, Logger: o.Logger, Store: o.Store,
		OnFatal: func(err error) {
			r.fail(err)
			close(failed)
		},
	})
	if err != nil {
		return nil, err
	}
	r.host = h
	if r.server, err = newServer(h, o); err != nil {
		return nil, errors.Join(err, h.Close(context.Background()))
	}
	h.Serve()
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		ended := make(chan error, 1)
		go func() { ended <- r.server.Run(ctx) }()
		select {
		case err := <-ended:
			r.fail(err)
		case <-failed:
			// Run may hang on a disk that does; the process ends anyway.
		}
	}()
	return r, nil
}

func newServer(h *host.Host, o Options) (server, error) {
	tune := func(t *raftgroup.Options) { t.LogBytesMax = o.LogBytesMax }
	if o.Group == 0 {
		return shardctrler.New(h, shardctrler.Options{
			Label: o.ID, Peers: o.Peers, ShardCount: o.Shards, LogStore: o.LogStore, Tune: tune,
		}), nil
	}
	return shardkv.New(h, shardkv.Options{
		Group: o.Group, Label: o.ID, Peers: o.Peers, Controllers: o.Controllers, LogStore: o.LogStore, Logger: o.Logger,
		Tune: tune,
	})
}

// Addr is where the replica listens.
func (r *Replica) Addr() string { return r.host.Addr() }

// HTTPAddr is where metrics and probes are served; empty: nowhere.
func (r *Replica) HTTPAddr() string { return r.host.HTTPAddr() }

// Done is closed when the replica has ended: it was closed, or it failed, and
// must be closed.
func (r *Replica) Done() <-chan struct{} { return r.done }

// Err is why the replica ended by itself; nil: it did not.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}

func (r *Replica) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err == nil && !r.mu.closed {
		r.mu.err = err
	}
}

// Close drains the replica: leadership moves away and requests in flight finish,
// until ctx ends; then it stops. Closing twice is harmless.
func (r *Replica) Close(ctx context.Context) (err error) {
	r.closer.Do(func() {
		r.mu.Lock()
		r.mu.closed = true
		r.mu.Unlock()
		err = r.host.Close(ctx)
		r.cancel()
	})
	<-r.done
	return err
}

// A Renumbered is a member whose group is renumbered.
type Renumbered = host.Renumbered

// Renumber tells a stopped replica where the members of its group are from now on;
// see host.Renumber.
func Renumber(dir string, addresses map[string]string) ([]Renumbered, error) {
	return host.Renumber(dir, addresses)
}

// Refused reports whether an error of a replica says that starting it could
// lose data or mix up clusters.
func Refused(err error) bool { return formation.Refused(err) || errors.Is(err, shardkv.ErrRetired) }

// Usage reports whether an error of a replica is about its options.
func Usage(err error) bool {
	return errors.As(err, new(*formation.UsageError)) || errors.As(err, new(*host.InsecureError))
}

// NewLogger returns a logger for replicas, as text or as JSON, with one line for
// each message.
func NewLogger(w io.Writer, level slog.Level, json bool) hclog.Logger {
	levels := map[slog.Level]hclog.Level{
		slog.LevelDebug: hclog.Debug, slog.LevelInfo: hclog.Info, slog.LevelWarn: hclog.Warn, slog.LevelError: hclog.Error,
	}
	l, ok := levels[level]
	if !ok {
		l = hclog.Info
	}
	return hclog.New(&hclog.LoggerOptions{Name: "shoal", Level: l, Output: w, JSONFormat: json, TimeFormat: time.RFC3339Nano})
}
