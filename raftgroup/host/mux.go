package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hashicorp/go-hclog"
)

// http2Preface is what an HTTP/2 client sends first (RFC 9113, section 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// A protocol is one of those that share the port. No prefix may be a prefix of
// another one's; a protocol that has no fixed first bytes (RESP) goes last, with
// a match of its own.
type protocol struct {
	name   string
	prefix string
	// serve takes the connection over: positioned at its first byte if replay,
	// else behind the prefix. The deadline of the sniffing is still set.
	replay bool
	serve  func(*trackedConn, net.Conn) error
}

// A mux accepts the connections of the port and hands each to its protocol.
type mux struct {
	host      *Host
	log       hclog.Logger
	protocols []protocol
	grpc      *connQueue
	warn      *rate.Limiter
	admission *admission

	wg sync.WaitGroup // accept, and sniffing connections
	mu struct {
		sync.Mutex
		routes map[string]*raftStreams
		added  chan struct{} // closed and replaced when a route is added
	}
}

func newMux(h *Host, l limits) *mux {
	m := &mux{host: h, log: h.log.Named("listener"), warn: rate.NewLimiter(1, 5), admission: newAdmission(l)}
	m.grpc = newConnQueue(h.listener.Addr())
	m.mu.routes = map[string]*raftStreams{}
	m.mu.added = make(chan struct{})
	m.protocols = []protocol{
		{name: "raft", prefix: preambleMagic, serve: m.serveRaft},
		{name: "grpc", prefix: http2Preface, replay: true, serve: m.serveGRPC},
	}
	for _, method := range http1Methods {
		m.protocols = append(m.protocols, protocol{name: "http/1", prefix: method, replay: true, serve: m.serveHTTP1})
	}
	m.wg.Add(1)
	return m
}

// accept runs until the listener is closed.
func (m *mux) accept() {
	defer m.wg.Done()
	for {
		conn, err := m.host.listener.Accept()
		if err != nil {
			if m.admission.isClosed() || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: that passes, or the operator
			// sees the line. Accepting again at once would spin.
			m.warning("can't accept connections", "error", err)
			select {
			case <-m.host.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		tracked, err := m.admission.track(conn)
		if err != nil {
			conn.Close()
			m.warning("connection refused", "from", conn.RemoteAddr(), "error", err)
			continue
		}
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			if err := m.dispatch(tracked); err != nil {
				tracked.Close()
				if !m.admission.isClosed() {
					m.warning("connection closed", "from", tracked.RemoteAddr(), "error", err)
				}
			}
		}()
	}
}

// dispatch finds out what conn speaks and hands it over. On an error the caller
// closes conn.
func (m *mux) dispatch(tracked *trackedConn) error {
	var conn net.Conn = tracked
	if err := conn.SetDeadline(time.Now().Add(m.host.opts.SniffTimeout)); err != nil {
		return err
	}
	var seen []byte
	for {
		candidates := 0
		for _, p := range m.protocols {
			switch {
			case bytes.HasPrefix(seen, []byte(p.prefix)):
				if p.replay {
					conn = &replayConn{Conn: conn, pending: seen}
				}
				if err := p.serve(tracked, conn); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				return nil
			case bytes.HasPrefix([]byte(p.prefix), seen):
				candidates++
			}
		}
		if candidates == 0 {
			return fmt.Errorf("no protocol begins with %q", seen)
		}
		// One byte at a time, so that nothing behind the prefix is read; it is
		// 24 bytes at most, once per connection.
		var next [1]byte
		if _, err := io.ReadFull(conn, next[:]); err != nil {
			return fmt.Errorf("after %d bytes: %w", len(seen), err)
		}
		seen = append(seen, next[0])
	}
}

func (m *mux) serveGRPC(tracked *trackedConn, conn net.Conn) error {
	if err := m.admission.identify(tracked, connClient); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return m.grpc.put(conn)
}

func (m *mux) serveRaft(tracked *trackedConn, conn net.Conn) error {
	p, err := readPreamble(conn)
	if err != nil {
		return err
	}
	m.awaitRoute(p)
	streams, err := m.route(p)
	if err != nil {
		return err
	}
	if p.kind == kindStream {
		if err := m.admission.identify(tracked, connPeer); err != nil {
			return err
		}
	}
	a := streams.answer(p)
	if _, err := conn.Write(a.append(nil)); err != nil {
		return err
	}
	if p.kind == kindQuestion {
		return conn.Close()
	}
	if a.code != answerWelcome {
		return fmt.Errorf("stream of %q at %s refused: %s", p.source, p.address, a.reason())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return streams.queue.put(conn)
}

// awaitRoute holds a stream back while the replica that it may mean is opening
// its stores: whoever was formed first calls the others at once, and if it were
// turned away, it would wait for another election.
func (m *mux) awaitRoute(p preamble) {
	timeout := time.NewTimer(m.host.opts.SniffTimeout)
	defer timeout.Stop()
	for m.host.expects(p.incarnation) {
		m.mu.Lock()
		known, added := m.mu.routes[p.incarnation.String()] != nil, m.mu.added
		m.mu.Unlock()
		if known {
			return
		}
		select {
		case <-added:
		case <-timeout.C:
			return
		case <-m.host.draining:
			return
		}
	}
}

// route finds the replica that the preamble means.
func (m *mux) route(p preamble) (*raftStreams, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.mu.routes[p.incarnation.String()]
	switch {
	case s == nil:
		return nil, fmt.Errorf("stream of %q for incarnation %s, which does not live here", p.source, p.incarnation)
	case p.cluster != s.identity.Cluster:
		return nil, fmt.Errorf("stream of %q for cluster %s, this is cluster %s", p.source, p.cluster, s.identity.Cluster)
	case p.target != s.identity.ServerID:
		return nil, fmt.Errorf("stream of %q for server %q, this is %q", p.source, p.target, s.identity.ServerID)
	}
	return s, nil
}

func (m *mux) addRoute(s *raftStreams) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.routes[s.identity.Incarnation.String()] = s
	close(m.mu.added)
	m.mu.added = make(chan struct{})
}

func (m *mux) dropRoute(s *raftStreams) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.routes, s.identity.Incarnation.String())
}

// close closes the listener and every connection, and waits for the accept
// goroutine and the sniffing ones.
func (m *mux) close() error {
	conns := m.admission.close()
	err := m.host.listener.Close()
	for _, c := range conns {
		c.Close() // its user sees the error
	}
	m.grpc.Close()
	m.wg.Wait()
	return err
}

// warning logs at a bounded rate: whoever can connect must not fill the disk.
func (m *mux) warning(message string, args ...any) {
	if m.warn.Allow() {
		m.log.Warn(message, args...)
	}
}
