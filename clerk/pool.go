package clerk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const (
	// connectMax bounds one attempt to connect, and the back-off between them.
	connectMax = time.Second
	// idleMax is how long a connection stands that nobody uses; the next use makes
	// another. Until then, one that broke is tried again now and then.
	idleMax = 2 * time.Minute
	// leftMax is how long one to an address that left the cluster does, sweepEvery
	// how often they are looked for.
	leftMax    = 5 * time.Minute
	sweepEvery = 30 * time.Second
	// receiveBytesMax bounds one received message: a packed answer, a page of a
	// scan, a status with a row for every shard. Servers keep well below it.
	receiveBytesMax = shardcfg.MessageBytesMax
)

// A pool holds one connection, and one lane, for each address.
type pool struct {
	c  *Clerk
	mu struct {
		sync.Mutex
		peers  map[string]*peer
		closed bool
		// reached: some connection stood at some time.
		reached bool
	}
}

// A peer is an address that was connected to. The pool's mutex guards it.
type peer struct {
	meter *meter
	conn  *grpc.ClientConn // nil: it was never asked for
	lane  *lane            // nil: nothing was sent through one
	// refused is why the last attempt to connect failed; nil: it stood.
	refused error
	used    time.Time // when conn or lane was asked for last
	traffic int64     // bytes until the last sweep
}

func newPool(c *Clerk) *pool {
	p := &pool{c: c}
	p.mu.peers = map[string]*peer{}
	return p
}

func (p *pool) peerLocked(address string) *peer {
	x := p.mu.peers[address]
	if x == nil {
		x = &peer{meter: newMeter()}
		p.mu.peers[address] = x
	}
	return x
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
	x := p.peerLocked(address)
	x.used = time.Now()
	if x.conn != nil {
		return x.conn, nil
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
		grpc.WithIdleTimeout(idleMax),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveBytesMax)),
	)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", address, err)
	}
	x.conn = conn
	return conn, nil
}

// dial connects, and notes how that went: gRPC does not tell.
func (p *pool) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := p.c.config.Dialer(ctx, address)
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.peerLocked(address)
	x.refused = err
	if err != nil {
		return nil, err
	}
	p.mu.reached = true
	return x.meter.meter(conn), nil
}

// meter returns the meter of an address.
func (p *pool) meter(address string) *meter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peerLocked(address).meter
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
	err := p.peerLocked(address).refused
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
	if p.mu.closed {
		return nil, ErrClosed
	}
	conn, err := p.connLocked(address)
	if err != nil {
		return nil, err
	}
	x := p.peerLocked(address)
	if x.lane == nil {
		x.lane = newLane(p.c, address, conn, x.meter)
		p.c.wait.Go(x.lane.run)
	}
	return x.lane, nil
}

// sweep closes the connections and lanes of addresses that are not of the cluster
// any more, once they were not used for long: else they would be dialled for ever.
func (p *pool) sweep(known []string) {
	p.mu.Lock()
	var left []*peer
	for address, x := range p.mu.peers {
		traffic := x.meter.traffic()
		if traffic-x.traffic > busyBytesPerSecond {
			x.used = time.Now() // a call that takes long
		}
		x.traffic = traffic
		if time.Since(x.used) >= leftMax && !slices.Contains(known, address) {
			left = append(left, x)
			delete(p.mu.peers, address)
		}
	}
	p.mu.Unlock()
	for _, x := range left {
		if x.lane != nil {
			x.lane.end()
		}
		if x.conn != nil {
			_ = x.conn.Close() // nobody uses it
		}
	}
}

// close closes all connections; lanes end with the Clerk's life.
func (p *pool) close() error {
	p.mu.Lock()
	peers := p.mu.peers
	p.mu.peers, p.mu.closed = map[string]*peer{}, true
	p.mu.Unlock()
	var errs []error
	for _, x := range peers {
		if x.conn != nil {
			errs = append(errs, x.conn.Close())
		}
	}
	return errors.Join(errs...)
}
