package transport

import (
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// poolConnsMax is how many idle connections to each peer are kept: one for
// heartbeats, one for entries, and one to spare.
const poolConnsMax = 3

// Network makes the transport of a real network over streams, without
// pipelining. Each request has timeout to be sent and answered, a snapshot so
// much for each 256 KiB.
func Network(streams raft.StreamLayer, timeout time.Duration, logger hclog.Logger) raft.Transport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  newTracked(streams),
		MaxPool:                 poolConnsMax,
		MaxRPCsInFlight:         1,
		Timeout:                 timeout,
		Logger:                  logger,
		MsgpackUseNewTimeFormat: true,
	})
}

// tracked is a StreamLayer whose Close also closes its connections: Raft's
// transport forgets the ones that it accepted, and their goroutines would read
// from them until the peer hangs up.
type tracked struct {
	raft.StreamLayer

	mu struct {
		sync.Mutex
		conns  map[*trackedConn]struct{}
		closed bool
	}
}

func newTracked(inner raft.StreamLayer) *tracked {
	t := &tracked{StreamLayer: inner}
	t.mu.conns = make(map[*trackedConn]struct{})
	return t
}

// Accept implements net.Listener.
func (t *tracked) Accept() (net.Conn, error) {
	c, err := t.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return t.track(c)
}

// Dial implements raft.StreamLayer.
func (t *tracked) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := t.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	return t.track(c)
}

func (t *tracked) track(c net.Conn) (net.Conn, error) {
	tc := &trackedConn{Conn: c, owner: t}
	t.mu.Lock()
	closed := t.mu.closed
	if !closed {
		t.mu.conns[tc] = struct{}{}
	}
	t.mu.Unlock()
	if closed {
		c.Close()
		return nil, net.ErrClosed
	}
	return tc, nil
}

// Close closes the listener and every connection.
func (t *tracked) Close() error {
	t.mu.Lock()
	t.mu.closed = true
	conns := make([]*trackedConn, 0, len(t.mu.conns))
	for c := range t.mu.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	err := t.StreamLayer.Close()
	for _, c := range conns {
		c.Close()
	}
	return err
}

type trackedConn struct {
	net.Conn
	owner *tracked
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.mu.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
