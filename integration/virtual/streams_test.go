package virtual

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A streams is the StreamLayer of one life of a replica: buffered byte streams
// over the network's links, with the manners of TCP. A cut or held link delivers
// nothing, and everything in order once it is whole again, if nobody gave up. A
// process that is killed resets its connections. A host that loses power says
// nothing: its peers keep connections to nobody until they write to the host's
// next life, which resets them.
type streams struct {
	w       *world
	address string
	accept  chan *conn
	life    chan struct{}

	mu struct {
		sync.Mutex
		conns  map[*conn]struct{}
		closed bool
	}
}

var _ raft.StreamLayer = (*streams)(nil)

func newStreams(w *world, address string) *streams {
	s := &streams{w: w, address: address, accept: make(chan *conn), life: make(chan struct{})}
	s.mu.conns = map[*conn]struct{}{}
	return s
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case c := <-s.accept:
		return c, nil
	case <-s.life:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (s *streams) Addr() net.Addr { return address(s.address) }

// Close implements net.Listener. The connections are closed by their users.
func (s *streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closed {
		s.mu.closed = true
		close(s.life)
	}
	return nil
}

// kill ends the life as the end of a process does: its connections break.
func (s *streams) kill() {
	s.Close()
	s.reset()
}

// reset breaks every connection, at both ends.
func (s *streams) reset() {
	for c := range s.take() {
		c.in.fail(io.ErrUnexpectedEOF)
		c.out.fail(io.ErrUnexpectedEOF)
	}
}

// powerOff ends the life without a word, and returns the connections that the
// peers still believe in.
func (s *streams) powerOff() map[*conn]struct{} {
	s.Close()
	conns := s.take()
	for c := range conns {
		c.in.abandon()
		c.out.silence()
	}
	return conns
}

func (s *streams) take() map[*conn]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := s.mu.conns
	s.mu.conns = map[*conn]struct{}{}
	return conns
}

// Dial implements raft.StreamLayer.
func (s *streams) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to := string(target)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		l, takes, changed := s.w.network.look(s.address, to)
		back, _, _ := s.w.network.look(to, s.address)
		if l.cut+l.held+back.cut+back.held > 0 {
			select {
			case <-changed:
				continue
			case <-deadline.C:
				return nil, os.ErrDeadlineExceeded
			case <-s.life:
				return nil, net.ErrClosed
			}
		}
		time.Sleep(2 * takes) // virtual
		peer, reachable := s.w.streamsOf(to)
		if !reachable {
			select {
			case <-deadline.C:
				return nil, os.ErrDeadlineExceeded
			case <-s.life:
				return nil, net.ErrClosed
			}
		}
		if peer == nil {
			return nil, errUnreachable
		}
		return s.connect(peer, deadline.C)
	}
}

func (s *streams) connect(peer *streams, deadline <-chan time.Time) (net.Conn, error) {
	there, here := newHalf(s.w.network, s.address, peer.address), newHalf(s.w.network, peer.address, s.address)
	mine := &conn{owner: s, remote: peer.address, in: here, out: there}
	theirs := &conn{owner: peer, remote: s.address, in: there, out: here}
	if !s.adopt(mine) || !peer.adopt(theirs) {
		return nil, errUnreachable
	}
	select {
	case peer.accept <- theirs:
		return mine, nil
	case <-peer.life:
		return nil, errUnreachable
	case <-s.life:
		return nil, net.ErrClosed
	case <-deadline:
		return nil, os.ErrDeadlineExceeded
	}
}

func (s *streams) adopt(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closed {
		s.mu.conns[c] = struct{}{}
	}
	return !s.mu.closed
}

type address string

func (address) Network() string  { return "virtual" }
func (a address) String() string { return string(a) }

// A conn is one end of a connection.
type conn struct {
	owner   *streams
	remote  string
	in, out *half
}

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }

// Close breaks reading here at once, and lets the other end read what was
// written and then the end.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.mu.conns, c)
	c.owner.mu.Unlock()
	c.in.fail(net.ErrClosed)
	c.out.end()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.owner.Addr() }
func (c *conn) RemoteAddr() net.Addr { return address(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.mu.readBy, t)
	c.out.setDeadline(&c.out.mu.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.mu.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.mu.writeBy, t)
	return nil
}

// halfBytesMax is how much may be on its way before a writer waits.
const halfBytesMax = 64 << 10

// A half is one direction of a connection.
type half struct {
	n        *network
	from, to string

	mu struct {
		sync.Mutex
		chunks          []chunk
		bytes           int
		failed          error // broken: what is on its way is lost
		ended           bool  // the writer has closed
		silent          bool  // nothing arrives any more
		abandoned       bool  // the reader is gone and nobody knows
		readBy, writeBy time.Time
		changed         chan struct{} // closed and replaced
	}
}

// A chunk is what one write wrote.
type chunk struct {
	data []byte
	due  time.Time
}

func newHalf(n *network, from, to string) *half {
	h := &half{n: n, from: from, to: to}
	h.mu.changed = make(chan struct{})
	return h
}

func (h *half) announceLocked() {
	close(h.mu.changed)
	h.mu.changed = make(chan struct{})
}

func (h *half) setDeadline(field *time.Time, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*field = t
	h.announceLocked()
}

func (h *half) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.failed == nil {
		h.mu.failed = err
	}
	h.announceLocked()
}

func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.ended = true
	h.announceLocked()
}

// silence lets nothing arrive any more: the writer has lost its power.
func (h *half) silence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.silent = true
	h.announceLocked()
}

// abandon ends the reader, which has lost its power. What is written vanishes.
func (h *half) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.abandoned = true
	h.announceLocked()
}

// pause waits until something that read or write looks at has changed, or due.
func pause(own, links <-chan struct{}, due time.Time) {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-own:
	case <-links:
	case <-timer:
	}
}

// An attempt is what one look at a half came to.
type attempt struct {
	n    int
	err  error
	wait <-chan struct{} // nil: it is done; otherwise wait for this, or until due
	due  time.Time       // zero: forever
}

func (h *half) read(b []byte) (int, error) {
	for {
		l, _, links := h.n.look(h.from, h.to)
		a := h.tryRead(b, l)
		if a.wait == nil {
			return a.n, a.err
		}
		pause(a.wait, links, a.due)
	}
}

func (h *half) tryRead(b []byte, l link) attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, whole := time.Now(), l.cut+l.held == 0 && !h.mu.silent
	switch {
	case h.mu.failed != nil:
		return attempt{err: fmt.Errorf("read from %s: %w", h.from, h.mu.failed)}
	case h.mu.abandoned:
		return attempt{err: net.ErrClosed}
	case !h.mu.readBy.IsZero() && !now.Before(h.mu.readBy):
		return attempt{err: os.ErrDeadlineExceeded}
	case whole && len(h.mu.chunks) > 0 && !now.Before(h.mu.chunks[0].due):
		c := &h.mu.chunks[0]
		n := copy(b, c.data)
		h.mu.bytes -= n
		if c.data = c.data[n:]; len(c.data) == 0 {
			h.mu.chunks = h.mu.chunks[1:]
		}
		h.announceLocked()
		return attempt{n: n}
	case whole && len(h.mu.chunks) == 0 && h.mu.ended:
		return attempt{err: io.EOF}
	}
	due := h.mu.readBy
	if whole && len(h.mu.chunks) > 0 && (due.IsZero() || h.mu.chunks[0].due.Before(due)) {
		due = h.mu.chunks[0].due
	}
	return attempt{wait: h.mu.changed, due: due}
}

func (h *half) write(b []byte) (written int, err error) {
	for {
		_, takes, links := h.n.look(h.from, h.to)
		a := h.tryWrite(b[written:], takes)
		written += a.n
		if a.wait == nil {
			return written, a.err
		}
		pause(a.wait, links, a.due)
	}
}

func (h *half) tryWrite(b []byte, takes time.Duration) attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.mu.failed != nil:
		return attempt{err: fmt.Errorf("write to %s: %w", h.to, h.mu.failed)}
	case h.mu.ended:
		return attempt{err: net.ErrClosed}
	case !h.mu.writeBy.IsZero() && !now.Before(h.mu.writeBy):
		return attempt{err: os.ErrDeadlineExceeded}
	}
	n := min(len(b), halfBytesMax-h.mu.bytes)
	if n > 0 {
		due := now.Add(takes)
		if last := len(h.mu.chunks) - 1; last >= 0 && h.mu.chunks[last].due.After(due) {
			due = h.mu.chunks[last].due
		}
		h.mu.chunks = append(h.mu.chunks, chunk{append([]byte(nil), b[:n]...), due})
		h.mu.bytes += n
		h.announceLocked()
	}
	if n == len(b) {
		return attempt{n: n}
	}
	return attempt{n: n, wait: h.mu.changed, due: h.mu.writeBy}
}
