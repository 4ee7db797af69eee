package host

import (
	"net"
	"sync"
)

// connQueueMax bounds the connections that wait to be accepted by their
// protocol.
const connQueueMax = 64

// A connQueue is a net.Listener that is fed by the mux. A connection that finds
// it full waits for room; the mux's limit on connections bounds how many do.
type connQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn, connQueueMax), done: make(chan struct{})}
}

// put hands conn over. On an error it still belongs to the caller.
func (q *connQueue) put(conn net.Conn) error {
	select {
	case <-q.done:
		return net.ErrClosed
	default:
	}
	select {
	case q.conns <- conn:
		return nil
	case <-q.done:
		return net.ErrClosed
	}
}

// Accept waits for the next connection.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and closes the connections that nobody accepted.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	for {
		select {
		case conn := <-q.conns:
			conn.Close()
		default:
			return nil
		}
	}
}

func (q *connQueue) Addr() net.Addr { return q.addr }

// A replayConn first reads what the mux has already read.
type replayConn struct {
	net.Conn
	pending []byte
}

func (c *replayConn) Read(b []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(b, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
