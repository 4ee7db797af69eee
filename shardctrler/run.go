package shardctrler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Options of one controller replica. They are complete at New and frozen after.
type Options struct {
	// Label is this replica's --id.
	Label string
	// Peers are the addresses of all controllers, this one included, by label.
	// Empty: it waits to be added to a group that exists.
	Peers map[string]string
	// ShardCount is the cluster's if this start forms it; 0: the default. Once
	// formed it is fixed.
	ShardCount int
	// LogStore is the kind of the log store; empty: the default, or what the
	// replica was formed with.
	LogStore string
	// Timeout is Raft's heartbeat, election and lease timeout; 0: the default.
	Timeout time.Duration
	// Tune, if set, may change the byte budgets and limits of the replica.
	Tune func(*raftgroup.Options)
	// Clock tells the time of reports and replies; nil: time.Now. The time in the
	// log is that of Tune's options.
	Clock func() time.Time
}

// New registers the Controller service and its metrics with h, which must not
// serve yet.
func New(h *host.Host, o Options) *Server {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := newServer(h, o)
	ctrlpb.RegisterControllerServer(h.GRPC(), s)
	h.Registry().MustRegister(collector{s})
	return s
}

// Run opens the replica, forming the controllers' group if need be, and serves
// until ctx ends or the host begins to close. The host must serve already, and
// be closed afterwards: the replica lives as long as it does. Errors are those
// of host.Replica, and of an unreadable store.
func (s *Server) Run(ctx context.Context) error {
	r, id, err := s.host.Replica(ctx, host.ReplicaOptions{
		GroupID: 0, Label: s.opts.Label, Peers: s.opts.Peers,
		ShardCount: s.opts.ShardCount, LogStore: s.opts.LogStore,
		Machine: func(id formation.Identity) (raftgroup.StateMachine, error) {
			if err := shardcfg.CheckShardCount(id.ShardCount); err != nil {
				return nil, fmt.Errorf("identity of controller %q: %w", id.Label, err)
			}
			return ctrlfsm.New(id.ShardCount, s.applied), nil
		},
		Timeout: s.opts.Timeout, Tune: s.opts.Tune,
	})
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil
		}
		return fmt.Errorf("open controller %q: %w", s.opts.Label, err)
	}
	return s.serve(ctx, r, id)
}
