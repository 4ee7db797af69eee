// Package proxy is a gRPC-aware fault proxy: it lets a server execute a request
// and then loses the reply, which no proxy of bytes can do for one call.
//
// It forwards every method of every service without knowing its messages. For a
// unary call, a lost reply becomes Unavailable after the server has answered.
// For a stream, the first lost reply ends the stream with Unavailable: all that
// was under way on it was executed, or will be, and the client can't know.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// frameBytesMax is above every message of the product.
const frameBytesMax = 64 << 20

// A Proxy stands before one server. Its goroutines end with Close.
type Proxy struct {
	listener net.Listener
	server   *grpc.Server
	target   *grpc.ClientConn

	lost    atomic.Uint64
	replies atomic.Uint64

	mu struct {
		sync.Mutex
		random *rand.Rand
		loss   float64
	}
}

// Start listens on a free port of 127.0.0.1 and forwards to target. It loses
// the given fraction of replies, drawn from seed.
func Start(target string, loss float64, seed uint64) (*Proxy, error) {
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}),
			grpc.MaxCallRecvMsgSize(frameBytesMax), grpc.MaxCallSendMsgSize(frameBytesMax)))
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	p := &Proxy{listener: listener, target: conn}
	p.mu.random, p.mu.loss = rand.New(rand.NewPCG(seed, 0)), loss
	p.server = grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.UnknownServiceHandler(p.forward),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(frameBytesMax), grpc.MaxSendMsgSize(frameBytesMax))
	go p.server.Serve(listener)
	return p, nil
}

// Addr is the address that clients use instead of the server's.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetLoss changes the fraction of replies that are lost from now on.
func (p *Proxy) SetLoss(loss float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.loss = loss
}

// Lost is the number of replies that were lost so far; Replies of all replies.
func (p *Proxy) Lost() uint64 { return p.lost.Load() }

// Replies is the number of replies that the server gave, lost ones included.
func (p *Proxy) Replies() uint64 { return p.replies.Load() }

// Close ends every call under way.
func (p *Proxy) Close() error {
	p.server.Stop()
	return p.target.Close()
}

// lose draws whether this reply is lost.
func (p *Proxy) lose() bool {
	p.replies.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.random.Float64() >= p.mu.loss {
		return false
	}
	p.lost.Add(1)
	return true
}

var errLost = status.Error(codes.Unavailable, "reply lost by the fault proxy")

// forward relays one call in both directions.
func (p *Proxy) forward(_ any, in grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(in)
	if !ok {
		return status.Error(codes.Internal, "call without a method")
	}
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	out, err := p.target.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go relayRequests(in, out)
	return p.relayReplies(in, out)
}

// relayRequests ends when the client closes its side or the call ends.
func relayRequests(in grpc.ServerStream, out grpc.ClientStream) {
	for {
		var f frame
		if err := in.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				_ = out.CloseSend() // the reply side reports what went wrong
			}
			return
		}
		if err := out.SendMsg(&f); err != nil {
			return
		}
	}
}

func (p *Proxy) relayReplies(in grpc.ServerStream, out grpc.ClientStream) error {
	for {
		var f frame
		if err := out.RecvMsg(&f); err != nil {
			in.SetTrailer(out.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if p.lose() {
			return errLost
		}
		if err := in.SendMsg(&f); err != nil {
			return err
		}
	}
}

// frame is one message that nobody decodes.
type frame struct{ data []byte }

// rawCodec passes frames through.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("proxy: not a frame: %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(f.data)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("proxy: not a frame: %T", v)
	}
	f.data = data.Materialize()
	return nil
}
