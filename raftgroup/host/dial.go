package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const (
	// backoffMax caps the wait between two attempts to reconnect: a replica that
	// is back is found within a second.
	backoffMax     = time.Second
	connectTimeout = 2 * time.Second
	// keepaliveTime and keepaliveTimeout bound how long a dead connection looks
	// alive.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// keepaliveMinTime is how often a client may ping before it is cut off.
	keepaliveMinTime = 5 * time.Second
	// connectionIdle is how long a client may keep a connection without a call.
	// Its next call opens another.
	connectionIdle = 5 * time.Minute

	// poolMax bounds the pooled connections: a cluster of a thousand groups of
	// three, and room.
	poolMax = 4096
	// poolRest is for how long nobody has asked for a connection that makes room for
	// another one: longer than from asking for it to calling on it.
	poolRest = time.Minute

	headerBytesMax       = 16 << 10
	streamsPerConnection = 1024
	tcpKeepalive         = 15 * time.Second
)

// A dialPool keeps one gRPC connection for each address. Members come and go, and
// with them their addresses: when it is full, one that nobody uses makes room.
type dialPool struct {
	host *Host
	mu   struct {
		sync.Mutex
		conns  map[string]*pooledConn
		closed bool
	}
}

type pooledConn struct {
	*grpc.ClientConn
	asked time.Time // when somebody asked for it last
}

func (p *dialPool) init(h *Host) {
	p.host = h
	p.mu.conns = map[string]*pooledConn{}
}

// makeRoomLocked makes room for one more connection, if it can: it closes the one
// that nobody has asked for for longest, of those that are idle.
func (p *dialPool) makeRoomLocked() bool {
	if len(p.mu.conns) < p.host.limits.outgoing {
		return true
	}
	oldest := ""
	for addr, conn := range p.mu.conns {
		if conn.GetState() != connectivity.Idle || time.Since(conn.asked) < poolRest {
			continue
		}
		if oldest == "" || conn.asked.Before(p.mu.conns[oldest].asked) {
			oldest = addr
		}
	}
	if oldest == "" {
		return false
	}
	_ = p.mu.conns[oldest].Close() // it says only that it was closed before
	delete(p.mu.conns, oldest)
	return true
}

// Dial returns the pooled gRPC connection to addr (host:port), and makes it if
// need be. It does not wait until addr answers: calls do, or fail fast while it
// is known to be down. Calls carry this host's cluster, once it is formed. The
// connection belongs to the host: never close it, and ask for it anew before each
// call, since one that is idle may have to make room.
func (h *Host) Dial(addr string) (*grpc.ClientConn, error) {
	p := &h.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, fmt.Errorf("connect to %s: %w", addr, ErrClosed)
	}
	if conn, ok := p.mu.conns[addr]; ok {
		conn.asked = time.Now()
		return conn.ClientConn, nil
	}
	if !p.makeRoomLocked() {
		return nil, fmt.Errorf("connect to %s: %d addresses are connected, the limit", addr, len(p.mu.conns))
	}
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(h.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(shardcfg.MessageBytesMax), grpc.MaxCallSendMsgSize(shardcfg.MessageBytesMax)),
		grpc.WithMaxHeaderListSize(headerBytesMax),
		grpc.WithUnaryInterceptor(fence.UnaryClient(h.self)),
		grpc.WithStreamInterceptor(fence.StreamClient(h.self)),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	p.mu.conns[addr] = &pooledConn{ClientConn: conn, asked: time.Now()}
	return conn, nil
}

// ErrClosed is wrapped by errors of a host that was closed.
var ErrClosed = errors.New("host is closed")

func (p *dialPool) close() error {
	p.mu.Lock()
	conns := p.mu.conns
	p.mu.conns, p.mu.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// dial opens a plain connection, over Options.DialOverride if that is set.
func (h *Host) dial(ctx context.Context, addr string) (net.Conn, error) {
	if h.opts.DialOverride != nil {
		return h.opts.DialOverride(ctx, addr)
	}
	d := net.Dialer{KeepAlive: tcpKeepalive}
	return d.DialContext(ctx, "tcp", addr)
}

// newGRPC makes the server with its limits.
func (h *Host) newGRPC() *grpc.Server {
	return grpc.NewServer(
		grpc.MaxRecvMsgSize(shardcfg.MessageBytesMax),
		grpc.MaxSendMsgSize(shardcfg.MessageBytesMax),
		grpc.MaxConcurrentStreams(streamsPerConnection),
		grpc.MaxHeaderListSize(headerBytesMax),
		grpc.ConnectionTimeout(h.opts.SniffTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, MaxConnectionIdle: connectionIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(fence.UnaryServer(h.self)),
		grpc.ChainStreamInterceptor(fence.StreamServer(h.self)),
	)
}
