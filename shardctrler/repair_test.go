package shardctrler

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A witness attests that it has nothing.
type witness struct {
	kvpb.UnimplementedHandoffServer
}

func (witness) Attest(context.Context, *kvpb.AttestRequest) (*kvpb.AttestReply, error) {
	return &kvpb.AttestReply{}, nil
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Claim: a group is heard though most of its hosts are silent, at once.
func TestAttestAmongSilentReplicas(t *testing.T) {
	h, err := host.New(host.Options{Listen: "127.0.0.1:0", DataDir: t.TempDir(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	g := shardcfg.Group{Incarnation: shardcfg.Incarnation{1}}
	for range 6 { // the kernel accepts, and nobody answers
		g.Replicas = append(g.Replicas, listen(t).Addr().String())
	}
	alive := listen(t)
	server := grpc.NewServer()
	kvpb.RegisterHandoffServer(server, witness{})
	go func() { _ = server.Serve(alive) }()
	t.Cleanup(server.Stop)
	g.Replicas = append(g.Replicas, alive.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), attestTimeout)
	defer cancel()
	begun := time.Now()
	if _, err := (&Server{host: h}).attestGroup(ctx, g, &kvpb.AttestRequest{}); err != nil {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

// Claim: a repair that granted something is not refused, whatever happens then: a
// refusal says that nothing was done.
func TestRepairedInPartIsNotRefused(t *testing.T) {
	silent := refuse(ctrlfsm.GroupSilent, "group 3 does not answer")
	q := &repairing{granted: map[shardcfg.ShardID]ctrlfsm.Verdict{}}
	if err := q.failed(silent); ctrlpb.ReasonOf(err) != ctrlpb.Reason_GROUP_SILENT {
		t.Errorf("nothing was granted: %v", err)
	}
	q.granted[1] = ctrlfsm.Verdict{Shard: 1}
	for _, err := range []error{silent, notDone("a:1", "this controller does not lead")} {
		err := q.failed(err)
		if _, hinted := detail[*ctrlpb.LeaderHint](err); hinted || status.Code(err) != codes.Aborted || ctrlpb.ReasonOf(err) != ctrlpb.Reason_REASON_UNKNOWN {
			t.Errorf("a shard was granted: %v", err)
		}
	}
}
