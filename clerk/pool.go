package clerk

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
)

const (
	// connectMax bounds one attempt to connect, and the back-off between them.
	connectMax = time.Second
	// receiveBytesMax bounds one received message: a packed answer, a page of a
	// scan, a status with a row for every shard. Servers keep well below it.
	receiveBytesMax = 32 << 20
)

// A pool holds one connection, and one lane, for each address.
type pool struct {
	c  *Clerk
	mu struct {
		sync.Mutex
		conns  map[string]*grpc.ClientConn
		lanes  map[string]*lane
		closed bool
	}
}

func newPool(c *Clerk) *pool {
	p := &pool{c: c}
	p.mu.conns = map[string]*grpc.ClientConn{}
	p.mu.lanes = map[string]*lane{}
	return p
}

// conn returns the connection to an address. It connects when it is used.
func (p *pool) conn(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, ErrClosed
	}
	return p.connLocked(address)
}

func (p *pool) connLocked(address string) (*grpc.ClientConn, error) {
	if conn := p.mu.conns[address]; conn != nil {
		return conn, nil
	}
	creds := p.c.config.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return p.c.config.Dialer(ctx, address)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectMax},
			MinConnectTimeout: connectMax,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveBytesMax)),
	)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", address, err)
	}
	p.mu.conns[address] = conn
	return conn, nil
}

// ready waits until a connection stands. An error means that nothing was sent.
func (p *pool) ready(ctx context.Context, address string) (*grpc.ClientConn, error) {
	conn, err := p.conn(address)
	if err != nil {
		return nil, err
	}
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return conn, nil
		case connectivity.Idle:
			conn.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			return nil, fmt.Errorf("%s does not accept connections", address)
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil, fmt.Errorf("%s does not accept connections: %w", address, context.Cause(ctx))
		}
	}
}

// lane returns the lane to an address; it runs from the first use on.
func (p *pool) lane(address string) (*lane, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.mu.lanes[address]; l != nil {
		return l, nil
	}
	if p.mu.closed {
		return nil, ErrClosed
	}
	conn, err := p.connLocked(address)
	if err != nil {
		return nil, err
	}
	l := newLane(p.c, address, conn)
	p.mu.lanes[address] = l
	p.c.wait.Go(l.run)
	return l, nil
}

// close closes all connections; lanes end with the Clerk's life.
func (p *pool) close() error {
	p.mu.Lock()
	conns := p.mu.conns
	p.mu.conns, p.mu.closed = map[string]*grpc.ClientConn{}, true
	p.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
