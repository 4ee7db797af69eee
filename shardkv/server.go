package shardkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Options say which replica a Server is. They are complete at New and frozen
// after.
type Options struct {
	// Group is the gid, not 0.
	Group shardcfg.GroupID
	// Label is the replica's --id.
	Label string
	// Peers are all replicas of the group, label to address, this one included.
	// Empty: the replica waits to be added to a group that exists.
	Peers map[string]string
	// Controllers are the addresses of the controllers; at least one.
	Controllers []string
	// LogStore is the kind of the log store; empty: the default.
	LogStore string
	// Timeout is Raft's heartbeat, election and lease timeout; 0: the preset.
	Timeout time.Duration
	// Tune, if set, may change the byte budgets and limits of the replica.
	Tune func(*raftgroup.Options)
	// Limits bound what the server takes on; zero fields mean the preset.
	Limits Limits
	// Moving tunes handoffs; zero fields mean the preset.
	Moving Moving
	// SessionAge is for how long a session is remembered at least, from its
	// birth; 0 means an hour. Clients rotate their sessions well before that.
	SessionAge time.Duration
	// Clock is read for session expiry and for the clocks of entries; nil means
	// time.Now.
	Clock func() time.Time
	// Logger may be nil: silence.
	Logger hclog.Logger
}

// Limits bound what a server takes on at once. What is beyond is refused with
// BUSY, never queued.
type Limits struct {
	// Requests and Bytes bound the messages in flight in total; 0 means 16,384
	// and 256 MiB.
	Requests int
	Bytes    int64
	// StreamRequests and StreamBytes bound those of one stream; 0 means 4,096
	// and 64 MiB.
	StreamRequests int
	StreamBytes    int64
	// Parked and ParkedBytes bound the messages that wait for moving shards; 0
	// means 8,192 and 64 MiB.
	Parked      int
	ParkedBytes int64
	// Timeout is for how long a request is held that names no time; 0 means 10 s.
	// TimeoutMax bounds what a request may name; 0 means 60 s.
	Timeout, TimeoutMax time.Duration
	// ApplyLag is how many entries the machine may be behind the log before new
	// writes are refused; 0 means 4,096.
	ApplyLag uint64
}

func (l *Limits) complete() {
	l.Requests = cmp.Or(l.Requests, 16<<10)
	l.Bytes = cmp.Or(l.Bytes, 256<<20)
	l.StreamRequests = cmp.Or(l.StreamRequests, 4<<10)
	l.StreamBytes = cmp.Or(l.StreamBytes, 64<<20)
	l.Parked = cmp.Or(l.Parked, 8<<10)
	l.ParkedBytes = cmp.Or(l.ParkedBytes, 64<<20)
	l.Timeout = cmp.Or(l.Timeout, 10*time.Second)
	l.TimeoutMax = cmp.Or(l.TimeoutMax, 60*time.Second)
	l.ApplyLag = cmp.Or(l.ApplyLag, 4<<10)
}

// Moving tunes handoffs.
type Moving struct {
	// PauseBudget is for how long a shard may be frozen, by estimate; 0 means
	// 50 ms.
	PauseBudget time.Duration
	// BytesPerSecond bounds the copying that this replica asks for when it leads;
	// 0 means 64 MiB/s. Under foreground load it takes less.
	BytesPerSecond int64
	// PageBytes bounds one reply to a fetch; 0 means 1 MiB. A larger record
	// travels alone.
	PageBytes int
	// PollMoving and PollIdle are the intervals between polls of the controllers
	// while shards move, and while none does; 0 means 200 ms and 1 s.
	PollMoving, PollIdle time.Duration
}

func (m *Moving) complete() {
	m.PauseBudget = cmp.Or(m.PauseBudget, 50*time.Millisecond)
	m.BytesPerSecond = cmp.Or(m.BytesPerSecond, 64<<20)
	m.PageBytes = cmp.Or(m.PageBytes, 1<<20)
	m.PollMoving = cmp.Or(m.PollMoving, 200*time.Millisecond)
	m.PollIdle = cmp.Or(m.PollIdle, time.Second)
}

// A Server is one replica of one group, and its services. Until Run has opened
// the replica every call is refused, definitely not done.
type Server struct {
	kvpb.UnimplementedKVServer
	kvpb.UnimplementedHandoffServer

	host        *host.Host
	opts        Options
	limits      Limits
	log         hclog.Logger
	controllers *controllers
	peers       *peers
	metrics     *metrics
	total       *budget
	parking     *parking

	// held: handoffs that have not begun must wait. limiter bounds copying.
	held    atomic.Bool
	limiter *rate.Limiter

	// node is the open replica; nil before.
	node atomic.Pointer[node]
	// retired receives the refusal of the controllers if they know that the group
	// was declared destroyed. Capacity one.
	retired  chan error
	draining chan struct{}
	drain    sync.Once
}

// ErrRetired is wrapped by the error of Run if an operator declared the group
// destroyed: its shards are elsewhere, or will be, and it must never serve them
// again.
var ErrRetired = errors.New("this group was declared destroyed; delete its directories, and join new replicas in its place")

var errOptions = errors.New("shardkv: a server needs a group, a label and the controllers' addresses")

// New registers the services of a replica at h, which must not serve yet.
func New(h *host.Host, o Options) (*Server, error) {
	if o.Group == 0 || o.Label == "" || len(o.Controllers) == 0 {
		return nil, errOptions
	}
	s := newServer(o, func(address string) (grpc.ClientConnInterface, error) { return h.Dial(address) }, h.Registry())
	s.host = h
	kvpb.RegisterKVServer(h.GRPC(), s)
	kvpb.RegisterHandoffServer(h.GRPC(), s)
	return s, nil
}

// newServer returns a server without a host: everything but Run works.
func newServer(o Options, dial dialer, registry prometheus.Registerer) *Server {
	o.Limits.complete()
	o.Moving.complete()
	o.SessionAge = cmp.Or(o.SessionAge, time.Hour)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	s := &Server{opts: o, limits: o.Limits, log: o.Logger,
		controllers: newControllers(o.Controllers, dial),
		peers:       newPeers(dial),
		total:       newBudget(o.Limits.Requests, o.Limits.Bytes),
		parking:     newParking(o.Limits.Parked, o.Limits.ParkedBytes),
		limiter:     rate.NewLimiter(rate.Limit(o.Moving.BytesPerSecond), limiterBurst),
		retired:     make(chan error, 1),
		draining:    make(chan struct{}),
	}
	s.metrics = newMetrics(registry, s)
	return s
}

// Drain ends the streams: requests in flight are completed, no new ones are
// taken. It returns at once.
func (s *Server) Drain() { s.drain.Do(func() { close(s.draining) }) }

// refuse answers every operation of a request with one fault.
func (s *Server) refuse(r *kvpb.ExecuteRequest, f fault) *kvpb.ExecuteResponse {
	n := min(len(r.GetOperations()), shardcfg.OperationsMax)
	backing := make([]kvpb.Outcome, n)
	outcomes := make([]*kvpb.Outcome, n)
	for i := range outcomes {
		outcomes[i] = &backing[i]
		outcomes[i].Code, outcomes[i].Message = f.code, f.message
	}
	s.metrics.count(r.GetOperations(), outcomes)
	return s.respond(outcomes, 0)
}

// respond wraps outcomes with what every response tells. clock is a time that the
// cluster's clock is known to have reached, beside the replica's own; a client
// dates its next session by it.
func (s *Server) respond(outcomes []*kvpb.Outcome, clock uint64) *kvpb.ExecuteResponse {
	r := &kvpb.ExecuteResponse{Outcomes: outcomes}
	if n := s.node.Load(); n != nil {
		r.Leader, _ = n.replica.Leader()
		r.ClockMs = max(n.replica.Clock(), clock)
		r.Config = uint64(n.places.config().Num)
		r.PatienceMs = milliseconds(n.flights.pace.patience(time.Now()))
	}
	return r
}

// Run opens the replica, forming its group if need be, and serves until ctx
// ends or the host drains. It may be called once, after the host serves. Closing
// the host afterwards closes the replica.
//
// Errors wrap those of host.Replica, or ErrRetired.
func (s *Server) Run(ctx context.Context) error {
	var n *node
	r, id, err := s.host.Replica(ctx, host.ReplicaOptions{
		GroupID: s.opts.Group, Label: s.opts.Label, Peers: s.opts.Peers, LogStore: s.opts.LogStore,
		Timeout: s.opts.Timeout,
		Cluster: s.askCluster,
		Machine: func(id formation.Identity) (raftgroup.StateMachine, error) {
			n = newNode(s, id)
			return n.machine, nil
		},
		Tune: func(o *raftgroup.Options) {
			o.Clock = s.opts.Clock
			if s.opts.Tune != nil {
				s.opts.Tune(o)
			}
			n.machine.store = o.Store
		},
	})
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil
		}
		return fmt.Errorf("open replica %q of group %d: %w", s.opts.Label, s.opts.Group, err)
	}
	n.replica = live{r}
	s.node.Store(n)
	s.log.Info("serving", "group", uint64(id.Group), "id", id.Label)
	r.WhileLeader("shards", func(ctx context.Context) { n.lead(ctx, s) })
	select {
	case <-ctx.Done():
	case <-s.host.Draining():
	case err = <-s.retired:
		err = fmt.Errorf("group %d, incarnation %s: %w (%w)", id.Group, id.Incarnation, ErrRetired, err)
	}
	// Calls are still answered while the host hands leadership over; what is
	// parked need not wait for that, and streams take no more.
	s.Drain()
	close(n.closed)
	return err
}

// askCluster asks the controllers which cluster this is, until they answer.
func (s *Server) askCluster(ctx context.Context) (cluster shardcfg.ClusterID, shardCount int, err error) {
	retry := backoff{min: 50 * time.Millisecond, max: time.Second}
	said := false
	for ctx.Err() == nil {
		var reply *ctrlpb.QueryReply
		err = s.controllers.call(ctx, func(ctx context.Context, c ctrlpb.ControllerClient) (err error) {
			reply, err = c.Query(ctx, &ctrlpb.QueryRequest{})
			return err
		})
		if err == nil {
			cluster, ok := shardcfg.To128[shardcfg.ClusterID](reply.GetCluster())
			shardCount = int(reply.GetConfig().GetShardCount())
			if ok && !cluster.IsZero() && shardcfg.CheckShardCount(shardCount) == nil {
				return cluster, shardCount, nil
			}
			err = errors.New("the controllers do not say which cluster this is")
		}
		if !said {
			said = true
			s.log.Info("waiting for the controllers, to learn which cluster this is", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry.next()):
		}
	}
	return cluster, 0, fmt.Errorf("ask the controllers which cluster this is: %w", errors.Join(ctx.Err(), err))
}
