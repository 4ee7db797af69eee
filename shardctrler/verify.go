package shardctrler

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// verify asks all replicas of joining groups who they are, and fills in the
// groups' identities. It refuses replicas that don't answer, or belong to
// another cluster or gid, or to several incarnations.
func (s *Server) verify(ctx context.Context, r *replica, groups []ctrlfsm.JoinGroup) error {
	for i, replies := range s.hellos(ctx, groups) {
		if err := judge(&groups[i], replies, r); err != nil {
			return err
		}
	}
	return nil
}

// hellos asks all replicas of groups who they are, all at once.
func (s *Server) hellos(ctx context.Context, groups []ctrlfsm.JoinGroup) [][]hello {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	replies := make([][]hello, len(groups))
	var wg sync.WaitGroup
	slots := make(chan struct{}, hellosAtOnce)
	for i, g := range groups {
		replies[i] = make([]hello, len(g.Replicas))
		for j, addr := range g.Replicas {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				replies[i][j] = s.hello(ctx, addr, g.ID)
			})
		}
	}
	wg.Wait()
	return replies
}

// A hello is one replica's answer.
type hello struct {
	addr  string
	reply *raftpb.HelloReply
	err   error
}

func (s *Server) hello(ctx context.Context, addr string, gid shardcfg.GroupID) hello {
	h := hello{addr: addr}
	conn, err := s.host.Dial(addr)
	if err != nil {
		h.err = err
		return h
	}
	h.reply, h.err = raftpb.NewFormationClient(conn).Hello(ctx, &raftpb.HelloRequest{Group: uint64(gid)})
	return h
}

// judge fills in g's identity from what its replicas said.
func judge(g *ctrlfsm.JoinGroup, replies []hello, r *replica) error {
	seen := map[string]string{} // address by server id
	g.Identity = ctrlfsm.IdentityEmpty
	for _, h := range replies {
		if problem := h.problem(g.ID, r); problem != "" {
			return refuse(ctrlfsm.ReplicaMismatch, "group %d: the replica at %s %s", g.ID, h.addr, problem)
		}
		if id := h.reply.GetServerId(); id != "" {
			if other, twice := seen[id]; twice {
				return refuse(ctrlfsm.ReplicaMismatch, "group %d: %s and %s are the same replica", g.ID, other, h.addr)
			}
			seen[id] = h.addr
		}
		if !h.reply.GetFormed() {
			continue
		}
		inc, _ := shardcfg.To128[shardcfg.Incarnation](h.reply.GetIdentity().GetIncarnation())
		if g.Identity == ctrlfsm.IdentityFormed && g.Incarnation != inc {
			return refuse(ctrlfsm.ReplicaMismatch, "group %d: its replicas belong to different incarnations, %v and %v", g.ID, g.Incarnation, inc)
		}
		g.Identity, g.Incarnation = ctrlfsm.IdentityFormed, inc
	}
	return nil
}

// callProblem is why a call failed, without what gRPC wraps around a refused
// connection.
func callProblem(err error) string {
	message := status.Convert(err).Message()
	if _, dialing, ok := strings.Cut(message, "Error while dialing: "); ok {
		return strings.TrimSuffix(dialing, "\"")
	}
	return message
}

// problem says why a replica can't join as one of gid's; empty if it can.
func (h hello) problem(gid shardcfg.GroupID, r *replica) string {
	id := h.reply.GetIdentity()
	cluster, clusterOK := shardcfg.To128[shardcfg.ClusterID](id.GetCluster())
	inc, incOK := shardcfg.To128[shardcfg.Incarnation](id.GetIncarnation())
	switch {
	case h.err != nil:
		return "does not answer: " + callProblem(h.err)
	case h.reply.GetGroup() == 0:
		return "is a controller"
	case h.reply.GetGroup() != uint64(gid):
		return fmt.Sprintf("belongs to group %d", h.reply.GetGroup())
	case !h.reply.GetFormed():
		return ""
	case !clusterOK || !incOK || inc.IsZero():
		return "does not say who it is"
	case !cluster.IsZero() && cluster != r.id.Cluster:
		return fmt.Sprintf("belongs to cluster %v, these are the controllers of %v", cluster, r.id.Cluster)
	case id.GetShardCount() != 0 && int(id.GetShardCount()) != r.id.ShardCount:
		return fmt.Sprintf("was formed for %d shards, this cluster has %d", id.GetShardCount(), r.id.ShardCount)
	}
	return ""
}
