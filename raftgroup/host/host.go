// Package host is a process's place in a cluster: one listener for Raft and
// gRPC, one data directory, and the replica that lives there.
//
// # One port
//
// The first bytes of a connection decide who serves it, within a deadline: the
// preamble of a Raft stream (which names the cluster, the incarnation and the
// replica that is meant), or the preface of HTTP/2, which is gRPC. What is
// neither is closed, and logged at a bounded rate.
//
// # Order
//
// New locks the data directory and opens the listener. Services are registered
// on GRPC, then Serve answers calls; from then on Hello is answered, formed or
// not. Replica loads the identity or takes part in forming the group, opens the
// stores and starts Raft. Close undoes it in reverse: leadership moves away,
// calls in flight finish, Raft stops, the stores close.
//
// # The data directory
//
//	lock           held by the process that uses the directory; its process id
//	identity.json  who this replica is (package formation)
//	raft.db        the log (package logstore)
//	hardstate      the term, the vote, and where the log ends (package logstore)
//	state/         the machine's state (package pebblestore)
//
// Row 3 of the layers: it may use gRPC, the network, the file system, the clock.
// Goroutines: New starts the one that accepts connections, and it one for each
// connection until its protocol is known; Serve one that runs the gRPC server and
// one that keeps the health service true; Options.HTTP one that runs the HTTP
// server; Replica one that asks whether the replica was removed, and one that looks
// whether its data directory was. Close waits for all of them.
package host

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// DialFunc opens a connection to addr (host:port).
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// Options are complete when New is called, and frozen after.
type Options struct {
	// Listen is the address (host:port) to listen at; port 0 lets the system
	// choose. Off loopback it needs Insecure, as long as there is no TLS.
	Listen string
	// Advertise is the address that others reach this host at; empty: where it
	// listens, which must then be a certain address. Its host must be one, and its
	// port not 0.
	Advertise string
	// Insecure permits to listen off loopback without TLS.
	Insecure bool
	// HTTP is where metrics, probes and profiles are served; empty: nowhere.
	HTTP string
	// DataDir is created if need be. One process at a time may use it.
	DataDir string
	// Version is what Hello says that this program is.
	Version string
	// Logger may be nil: silence.
	Logger hclog.Logger
	// Store is what the replica's store is opened with; Dir, Logger and OnFatal
	// are filled in. Its Cache may be shared by the hosts of a process.
	Store pebblestore.Options
	// DialOverride, if set, makes every outgoing connection, Raft's and gRPC's.
	DialOverride DialFunc
	// OnFatal is called at most once, from a goroutine of its own, with the error
	// that makes it unsafe to go on. The process should end, with a failure. nil:
	// it is only logged.
	OnFatal func(error)
	// ConnectionsMax bounds the accepted connections; 0 is 4096. What the process
	// may open, less a reserve for the stores, bounds them as well.
	ConnectionsMax int
	// SniffTimeout bounds how long a new connection may take to say what it is;
	// 0 is 5 s.
	SniffTimeout time.Duration
}

const sniffTimeoutDefault = 5 * time.Second

// A Host owns a listener, a data directory, the connections to other hosts, and
// at most one replica. Its methods may be called from any goroutine.
type Host struct {
	opts      Options
	log       hclog.Logger
	listener  net.Listener
	advertise string
	process   processID
	lock      *dirLock

	limits   limits
	mux      *mux
	grpc     *grpc.Server
	health   *health.Server
	report   healthReport
	registry *prometheus.Registry
	web      *webServer // nil without Options.HTTP
	pool     dialPool
	members  *membershipService
	former   formerSlot

	ctx       context.Context // ends when everything that dials has ended
	cancel    context.CancelFunc
	draining  chan struct{}  // closed when Close begins
	starting  sync.WaitGroup // a call of Replica
	served    chan struct{}  // closed when the gRPC server has ended
	fatalOnce sync.Once

	mu struct {
		sync.Mutex
		serving bool
		closed  bool
		fatal   error
		replica *runningReplica
	}
	closeOnce sync.Once
	closeErr  error
}

// New locks the data directory and opens the listener. Errors include
// *formation.UsageError, *InsecureError, *ListenError and *LockedError.
func New(o Options) (*Host, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	o.SniffTimeout = cmp.Or(o.SniffTimeout, sniffTimeoutDefault)
	if o.DataDir == "" {
		return nil, &formation.UsageError{Problem: "a data directory is needed"}
	}
	if err := checkListen(o.Listen, o.Insecure); err != nil {
		return nil, err
	}
	if err := checkAdvertise(o); err != nil {
		return nil, err
	}
	files, err := openFilesMax()
	if err != nil {
		return nil, err
	}
	l, err := deriveLimits(files, o.ConnectionsMax)
	if err != nil {
		return nil, &formation.UsageError{Problem: err.Error()}
	}
	lock, err := lockDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, errors.Join(&ListenError{Address: o.Listen, Err: err}, lock.release())
	}
	h := &Host{
		opts: o, log: o.Logger, listener: listener, advertise: o.Advertise, lock: lock,
		health: health.NewServer(), registry: newRegistry(),
		draining: make(chan struct{}), served: make(chan struct{}),
	}
	if h.advertise == "" {
		h.advertise = listener.Addr().String()
	}
	rand.Read(h.process[:]) // never fails
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.pool.init(h)
	h.limits = l
	h.mux = newMux(h, l)
	h.registry.MustRegister(h.mux.admission)
	h.grpc = h.newGRPC()
	h.members = &membershipService{host: h}
	raftpb.RegisterFormationServer(h.grpc, &h.former)
	raftpb.RegisterMembershipServer(h.grpc, h.members)
	healthpb.RegisterHealthServer(h.grpc, h.health)
	h.report.done = make(chan struct{})
	h.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if o.HTTP != "" {
		if h.web, err = startWeb(h, o.HTTP, o.Insecure); err != nil {
			h.cancel()
			return nil, errors.Join(err, listener.Close(), lock.release())
		}
	}
	go h.mux.accept()
	return h, nil
}

// GRPC is the server to register services on, before Serve.
func (h *Host) GRPC() *grpc.Server { return h.grpc }

// Serve starts to answer gRPC calls and returns at once. Services that are
// registered later are refused by gRPC with a panic.
func (h *Host) Serve() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.serving || h.mu.closed {
		return
	}
	h.mu.serving = true
	reflection.Register(h.grpc)
	h.watchHealth()
	go func() {
		defer close(h.served)
		if err := h.grpc.Serve(h.mux.grpc); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			h.fatal(fmt.Errorf("gRPC server at %s: %w", h.Addr(), err))
		}
	}()
}

// Addr is the address that the host listens at, with the port that it got.
func (h *Host) Addr() string { return h.listener.Addr().String() }

// Advertise is the address that others reach the host at.
func (h *Host) Advertise() string { return h.advertise }

// Registry is where metrics are registered that /metrics shows.
func (h *Host) Registry() prometheus.Registerer { return h.registry }

// Draining is closed when the host begins to close: long streams should end.
func (h *Host) Draining() <-chan struct{} { return h.draining }

// Identity is the replica's identity, once it is formed.
func (h *Host) Identity() (formation.Identity, bool) {
	f := h.former.get()
	if f == nil {
		return formation.Identity{}, false
	}
	return f.Identity()
}

// CheckCluster returns a *formation.DirectoryError if the replica belongs to
// another cluster than the one given, which its controllers say they are: it was
// pointed at the wrong ones, and must stop.
func (h *Host) CheckCluster(id shardcfg.ClusterID) error {
	own, formed := h.Identity()
	if !formed || own.Cluster == id {
		return nil
	}
	return &formation.DirectoryError{Dir: h.opts.DataDir, What: "cluster", Have: own.Cluster.String(), Requested: "controllers of cluster " + id.String()}
}

// self is what the fence compares calls with.
func (h *Host) self() (shardcfg.ClusterID, shardcfg.Incarnation) {
	id, _ := h.Identity()
	return id.Cluster, id.Incarnation
}

var _ fence.Self = (*Host)(nil).self

// Fatal returns the error that made the host unfit, or nil.
func (h *Host) Fatal() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.fatal
}

// fatal records the first fatal error and reports it.
func (h *Host) fatal(err error) {
	h.fatalOnce.Do(func() {
		h.mu.Lock()
		h.mu.fatal = err
		h.mu.Unlock()
		h.reportHealth()
		h.log.Error("this replica can't go on", "error", err)
		if h.opts.OnFatal != nil {
			go h.opts.OnFatal(err)
		}
	})
}
