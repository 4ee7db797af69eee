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
		meters map[string]*meter
		closed bool
		// refused is, by address, why the last attempt to connect failed; none: it
		// stood.
		refused map[string]error
		// reached: some connection stood at some time.
		reached bool
	}
}

func newPool(c *Clerk) *pool {
	p := &pool{c: c}
	p.mu.conns = map[string]*grpc.ClientConn{}
	p.mu.lanes = map[string]*lane{}
	p.mu.meters = map[string]*meter{}
	p.mu.refused = map[string]error{}
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
		grpc.WithContextDialer(p.dial),
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

// dial connects, and notes how that went: gRPC does not tell.
func (p *pool) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := p.c.config.Dialer(ctx, address)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.mu.refused[address] = err
		return nil, err
	}
	delete(p.mu.refused, address)
	p.mu.reached = true
	return p.meterLocked(address).meter(conn), nil
}

// meter returns the meter of an address.
func (p *pool) meter(address string) *meter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.meterLocked(address)
}

func (p *pool) meterLocked(address string) *meter {
	m := p.mu.meters[address]
	if m == nil {
		m = newMeter()
		p.mu.meters[address] = m
	}
	return m
}

// reached reports whether any server ever accepted a connection.
func (p *pool) reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.reached
}

// unconnected says why no connection to an address stands, without naming it.
func (p *pool) unconnected(address string) error {
	p.mu.Lock()
	err := p.mu.refused[address]
	p.mu.Unlock()
	var op *net.OpError
	switch {
	case err == nil:
		return errors.New("accepts connections, but does not answer")
	case errors.As(err, &op): // without the address once more
		err = op.Err
	}
	return fmt.Errorf("does not accept connections: %w", err)
}

// ready waits until a connection stands. An error means that nothing was sent;
// it does not name the address.
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
			return nil, p.unconnected(address)
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil, p.unconnected(address)
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
	l := newLane(p.c, address, conn, p.meterLocked(address))
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
