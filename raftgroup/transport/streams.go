package transport

import (
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// poolConnsMax is how many idle connections to each peer are kept: one for
// heartbeats, one for entries, and one to spare.
const poolConnsMax = 3

// silences is how many timeouts a peer may be silent in the middle of a message.
const silences = 2

// Network makes the transport of a real network over streams, without
// pipelining. Each request has timeout to be sent and answered, a snapshot so
// much for each 256 KiB. A peer that is silent for two timeouts in the middle of
// a message is cut off.
func Network(streams raft.StreamLayer, timeout time.Duration, logger hclog.Logger) raft.Transport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  newTracked(streams, silences*timeout),
		MaxPool:                 poolConnsMax,
		MaxRPCsInFlight:         1,
		Timeout:                 timeout,
		Logger:                  quietClose{logger},
		MsgpackUseNewTimeFormat: true,
	})
}

// quietClose is a Logger to which the end of a stream is no error, whichever side
// closed it: Raft's transport reports it as one at orderly stops, and would alarm
// whoever reads the log.
type quietClose struct{ hclog.Logger }

// ends are the errors of a stream that ended, beside io.EOF, which Raft's transport
// knows itself. A peer that hangs up while an answer is on its way to it resets
// the stream.
var ends = []error{net.ErrClosed, raft.ErrTransportShutdown, syscall.ECONNRESET, syscall.EPIPE}

// Error implements hclog.Logger.
func (l quietClose) Error(msg string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok && slices.ContainsFunc(ends, func(end error) bool { return errors.Is(err, end) }) {
			l.Debug(msg, args...)
			return
		}
	}
	l.Logger.Error(msg, args...)
}

// tracked is a StreamLayer whose Close also closes its connections: Raft's
// transport forgets the ones that it accepted, and their goroutines would read
// from them until the peer hangs up.
//
// Nor does it bound how long it waits for the rest of a message. Raft's main loop
// itself reads the stream of a snapshot: if the sender loses its power, the
// replica would neither vote nor follow until the system gives the connection up.
type tracked struct {
	raft.StreamLayer
	silence time.Duration // bound of a pause within an incoming message

	mu struct {
		sync.Mutex
		conns  map[*trackedConn]struct{}
		closed bool
	}
}

func newTracked(inner raft.StreamLayer, silence time.Duration) *tracked {
	t := &tracked{StreamLayer: inner, silence: silence}
	t.mu.conns = make(map[*trackedConn]struct{})
	return t
}

// Accept implements net.Listener.
func (t *tracked) Accept() (net.Conn, error) {
	c, err := t.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	tc, err := t.track(c)
	if err != nil {
		return nil, err
	}
	return &accepted{trackedConn: tc, silence: t.silence}, nil
}

// Dial implements raft.StreamLayer.
func (t *tracked) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := t.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	tc, err := t.track(c)
	if err != nil {
		return nil, err
	}
	return tc, nil
}

func (t *tracked) track(c net.Conn) (*trackedConn, error) {
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

// accepted is a connection that a peer opened. Raft's transport reads a message
// from it, then writes the answer, in one goroutine or in one after the other.
type accepted struct {
	*trackedConn
	silence time.Duration
	within  bool // a part of a message was read, and it is not answered yet
}

// Read implements net.Conn.
func (c *accepted) Read(p []byte) (int, error) {
	var deadline time.Time
	if c.within {
		deadline = time.Now().Add(c.silence)
	}
	if err := c.Conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.within = c.within || n > 0
	return n, err
}

// Write implements net.Conn.
func (c *accepted) Write(p []byte) (int, error) {
	c.within = false
	return c.Conn.Write(p)
}
