package proxy_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/integration/proxy"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// counting executes every request and counts it.
type counting struct {
	kvpb.UnimplementedKVServer
	executed atomic.Uint64
}

func (c *counting) Execute(context.Context, *kvpb.ExecuteRequest) (*kvpb.ExecuteResponse, error) {
	return &kvpb.ExecuteResponse{ClockMs: c.executed.Add(1)}, nil
}

func (c *counting) Stream(s grpc.BidiStreamingServer[kvpb.StreamRequest, kvpb.StreamResponse]) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return nil
		}
		c.executed.Add(1)
		if err := s.Send(&kvpb.StreamResponse{Id: r.GetId()}); err != nil {
			return err
		}
	}
}

func start(t *testing.T, loss float64) (*counting, *proxy.Proxy, kvpb.KVClient) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, service := grpc.NewServer(), &counting{}
	kvpb.RegisterKVServer(server, service)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	p, err := proxy.Start(listener.Addr().String(), loss, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	conn, err := grpc.NewClient(p.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return service, p, kvpb.NewKVClient(conn)
}

// A lost reply belongs to a request that was executed.
func TestExecutedButLost(t *testing.T) {
	service, p, client := start(t, 0.5)
	var lost uint64
	const calls = 200
	for range calls {
		_, err := client.Execute(t.Context(), &kvpb.ExecuteRequest{})
		if err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Fatal(err)
			}
			lost++
		}
	}
	if lost != p.Lost() || lost < calls/4 || lost > calls*3/4 {
		t.Fatalf("%d of %d replies lost, the proxy says %d", lost, calls, p.Lost())
	}
	if n := service.executed.Load(); n != calls {
		t.Fatalf("%d of %d requests executed", n, calls)
	}
}

// On a stream, replies pass until one is lost, which ends the stream.
func TestStreamEndsAtLostReply(t *testing.T) {
	service, p, client := start(t, 0)
	stream, err := client.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id := uint64(1); id <= 3; id++ {
		if err := stream.Send(&kvpb.StreamRequest{Id: id}); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetId() != id {
			t.Fatalf("reply %d: %v, %v", id, r, err)
		}
	}
	p.SetLoss(1)
	if err := stream.Send(&kvpb.StreamRequest{Id: 4}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("reply %v, %v; want Unavailable", r, err)
	}
	if n := service.executed.Load(); n != 4 {
		t.Fatalf("%d of 4 requests executed", n)
	}
}
