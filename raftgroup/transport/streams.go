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

// What a peer may take, in timeouts of a message.
const (
	// sendSilences is for how long a sender may be silent in the middle of a message:
	// that of a snapshot checks each table before it goes on.
	sendSilences = 5
	// takeSilences is for how long a receiver may take nothing in the middle of a
	// snapshot: it syncs and checks each table before it goes on.
	takeSilences = 15
	// adoptSilences is for how long it may be silent when it has all of a snapshot,
	// besides what adoptBytesPerSecond allows.
	adoptSilences       = 30
	adoptBytesPerSecond = 16 << 20
)

const (
	// pieceBytes is what must leave within one bound: a slow link is not a dead one.
	pieceBytes = 16 << 10
	// sizeUnit is the size of a snapshot for which Raft allows one timeout, which is
	// how a connection learns the size. No snapshot is so small.
	sizeUnit = 1 << 10
	// adoptUnit is what adoptBytesPerSecond makes of it.
	adoptUnit = time.Second / (adoptBytesPerSecond / sizeUnit)
)

// Network makes the transport of a real network over streams, without
// pipelining. Every 16 KiB of a request have timeout to be sent, and the answer
// has it from then on. A snapshot's receiver has more, and its answer so much
// besides as it needs to read and write the size at 16 MiB/s. Raft's own bound, a
// timeout for each 256 KiB of the whole, is hours for a large snapshot, and lets
// no message through a link that is slow. A peer that is silent for five timeouts
// in the middle of a message is cut off.
func Network(streams raft.StreamLayer, timeout time.Duration, logger hclog.Logger) raft.Transport {
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  newTracked(streams, timeout),
		MaxPool:                 poolConnsMax,
		MaxRPCsInFlight:         1,
		Timeout:                 timeout,
		Logger:                  quietClose{logger},
		MsgpackUseNewTimeFormat: true,
	})
	t.TimeoutScale = sizeUnit
	return t
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
	timeout time.Duration // of a message

	mu struct {
		sync.Mutex
		conns  map[*trackedConn]struct{}
		closed bool
	}
}

func newTracked(inner raft.StreamLayer, timeout time.Duration) *tracked {
	t := &tracked{StreamLayer: inner, timeout: timeout}
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
	return &accepted{trackedConn: tc, silence: sendSilences * t.timeout}, nil
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
	return &dialled{trackedConn: tc, timeout: t.timeout}, nil
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

// dialled is a connection to a peer. Raft's transport sets the deadline of a
// request, writes it and reads the answer, in one goroutine.
type dialled struct {
	*trackedConn
	timeout time.Duration // of a message
	// piece is what pieceBytes of the present request have to leave, answer what its
	// answer has after that; 0: no bound.
	piece, answer time.Duration
}

// SetDeadline implements net.Conn: it sets the bounds of the next request, which
// count from progress, not from the request's beginning.
func (c *dialled) SetDeadline(deadline time.Time) error {
	c.piece, c.answer = 0, 0
	if !deadline.IsZero() {
		c.piece, c.answer = bounds(c.timeout, time.Until(deadline))
	}
	return c.Conn.SetDeadline(time.Time{})
}

// bounds returns the bounds of a request for which Raft allows budget in all: a
// timeout for a message, and one for each sizeUnit of a snapshot.
func bounds(timeout, budget time.Duration) (piece, answer time.Duration) {
	units := (budget + timeout/2) / timeout
	if units <= 1 {
		return timeout, timeout
	}
	return takeSilences * timeout, adoptSilences*timeout + units*adoptUnit
}

// Write implements net.Conn.
func (c *dialled) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		if c.piece > 0 {
			if err := c.Conn.SetWriteDeadline(time.Now().Add(c.piece)); err != nil {
				return n, err
			}
		}
		var took int
		took, err = c.Conn.Write(p[n:min(n+pieceBytes, len(p))])
		n += took
	}
	if err == nil && c.answer > 0 {
		err = c.Conn.SetReadDeadline(time.Now().Add(c.answer))
	}
	return n, err
}
