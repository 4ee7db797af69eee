package shardctrler

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Query returns a configuration. The latest one comes from the leader, after a
// read barrier; a numbered one, which never changes, from any replica that has
// it.
func (s *Server) Query(ctx context.Context, req *ctrlpb.QueryRequest) (*ctrlpb.QueryReply, error) {
	r, err := s.ready(req.GetCluster())
	if err != nil {
		return nil, err
	}
	reply := &ctrlpb.QueryReply{Cluster: r.id.Cluster[:], ClockMs: s.clock(r)}
	if req.Num != nil {
		found, err := s.numbered(r, shardcfg.ConfigNum(req.GetNum()), reply)
		if err != nil || found {
			return reply, err
		}
		// Perhaps this replica only lags behind.
	}
	if err := s.barrier(ctx, r); err != nil {
		return nil, err
	}
	if req.Num == nil {
		err = s.read(r, func(rd *reading) error {
			reply.Config = ctrlpb.FromConfig(rd.latest)
			reply.Hints = s.reports.hints(rd.latest)
			return nil
		})
		return reply, err
	}
	found, err := s.numbered(r, shardcfg.ConfigNum(req.GetNum()), reply)
	if err == nil && !found {
		err = refuse(ctrlfsm.UnknownConfig, "configuration %d is not kept, or not made yet", req.GetNum())
	}
	return reply, err
}

func (s *Server) numbered(r *replica, num shardcfg.ConfigNum, reply *ctrlpb.QueryReply) (found bool, err error) {
	err = s.read(r, func(rd *reading) error {
		c, kept, err := rd.ConfigAt(num)
		if err != nil {
			return internal("read a configuration", err)
		}
		if found = kept; found {
			reply.Config = ctrlpb.FromConfig(c)
		}
		return nil
	})
	return found, err
}

// Watch streams the newest configuration that this replica has applied, now and
// after every change, as a delta where that is smaller.
func (s *Server) Watch(req *ctrlpb.WatchRequest, stream grpc.ServerStreamingServer[ctrlpb.WatchReply]) error {
	if s.watchers.Add(1) > watchersMax {
		s.watchers.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "not done: %d watches are open", watchersMax)
	}
	defer s.watchers.Add(-1)
	have := shardcfg.ConfigNum(req.GetHave())
	// A caller that has nothing gets the whole config, even if that is config 0.
	first := have == 0
	var last *shardcfg.Config
	for {
		changed := s.changes.wait()
		r, err := s.ready(req.GetCluster())
		if err != nil {
			return err
		}
		var latest *shardcfg.Config
		err = s.read(r, func(rd *reading) error {
			latest = rd.latest
			if last == nil && have > 0 {
				// Absent if it was compacted, or not applied here yet.
				last, _, err = rd.ConfigAt(have)
			}
			return err
		})
		if err != nil {
			return err
		}
		if first || latest.Num > have {
			if err := stream.Send(watchReply(r, last, latest)); err != nil {
				return err
			}
			first, have, last = false, latest.Num, latest
		}
		select {
		case <-changed:
		case <-s.host.Draining():
			return notDone("", "this controller is closing")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func watchReply(r *replica, last, latest *shardcfg.Config) *ctrlpb.WatchReply {
	reply := &ctrlpb.WatchReply{Cluster: slices.Clone(r.id.Cluster[:]), Config: ctrlpb.FromConfig(latest)}
	if last == nil {
		return reply
	}
	if d := ctrlpb.FromDelta(shardcfg.DeltaBetween(last, latest)); proto.Size(d) < proto.Size(reply.Config) {
		reply.Config, reply.Delta = nil, d
	}
	return reply
}

// Info describes this replica as it is, formed or not.
func (s *Server) Info(_ context.Context, req *ctrlpb.InfoRequest) (*ctrlpb.InfoReply, error) {
	s.mu.Lock()
	r := s.mu.open
	s.mu.Unlock()
	if r == nil {
		return &ctrlpb.InfoReply{Id: s.opts.Label}, nil
	}
	if err := checkCluster(r.id.Cluster, req.GetCluster()); err != nil {
		return nil, err
	}
	st := r.Status()
	reply := &ctrlpb.InfoReply{
		Cluster: r.id.Cluster[:], ShardCount: uint32(r.id.ShardCount), Id: r.id.Label,
		Leader: st.Leader, Term: st.Term, AppliedIndex: st.AppliedIndex,
	}
	for _, m := range st.Members {
		reply.Members = append(reply.Members, &ctrlpb.Member{
			Id: m.Label, Address: m.Address, Role: string(m.Role), Healthy: m.Healthy,
		})
	}
	if _, self := r.Leader(); self {
		reply.Groups = s.reports.all()
	}
	err := s.read(r, func(rd *reading) error {
		reply.Num = uint64(rd.latest.Num)
		return nil
	})
	return reply, err
}
