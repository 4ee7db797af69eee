package clerk

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
)

const (
	// silenceMin is how long an address that owes answers may let nothing at all
	// arrive, not even the echo of a probe, before it is taken for dead: its server
	// is frozen or cut off, which TCP would not tell for minutes.
	silenceMin = time.Second
	// silenceMax bounds that where it proved too short: a link with long queues.
	silenceMax = 8 * time.Second
	// watchEvery is how often those who wait for answers look at what arrives.
	watchEvery = 250 * time.Millisecond
	// busyBytesPerSecond is the traffic above which an answer may be on its way.
	busyBytesPerSecond = 4 << 10
	// uploadBytesPerSecondMin prolongs the silence that is allowed while so much is
	// being sent: a server need not say anything until it has it all.
	uploadBytesPerSecondMin = 1 << 20
)

var (
	errSilent  = errors.New("fell silent: nothing arrives")
	errOverdue = errors.New("did not answer in time")
)

// A meter measures the traffic with one address, by all connections to it. What
// counts as a sign of life is any byte that arrives, whatever it belongs to: a
// value of megabytes is on its way for long before it is an answer.
type meter struct {
	received, sent atomic.Int64 // bytes

	mu struct {
		sync.Mutex
		conn net.Conn // the newest; nil: none yet
		made time.Time
		// patience is how long the address may be silent now.
		patience time.Duration
	}
}

func newMeter() *meter {
	m := &meter{}
	m.mu.patience = silenceMin
	return m
}

// meter returns a connection that is measured.
func (m *meter) meter(conn net.Conn) net.Conn {
	m.mu.Lock()
	m.mu.conn, m.mu.made = conn, time.Now()
	m.mu.Unlock()
	return &meteredConn{conn, m}
}

// hangUp ends the connection that has been silent for so long, so that the next
// use makes another, and is more patient. One that was made since is spared.
func (m *meter) hangUp(silence time.Duration) {
	m.mu.Lock()
	conn := m.mu.conn
	if conn == nil || time.Since(m.mu.made) < silence {
		m.mu.Unlock()
		return
	}
	m.mu.conn = nil
	m.mu.patience = min(2*m.mu.patience, silenceMax)
	m.mu.Unlock()
	_ = conn.Close() // it is of no use, whatever Close says
}

// heard notes that something arrived after so long a silence.
func (m *meter) heard(silence time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if silence < m.mu.patience/4 {
		m.mu.patience = max(m.mu.patience/2, silenceMin)
	}
}

func (m *meter) patience() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.patience
}

type meteredConn struct {
	net.Conn
	m *meter
}

func (c *meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.received.Add(int64(n))
	return n, err
}

func (c *meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.m.sent.Add(int64(n))
	return n, err
}

// A vigil counts how long an address that owes answers has been silent. Its owner
// makes it when the first answer is owed, and calls look every watchEvery.
type vigil struct {
	m               *meter
	at              time.Time // of the last look
	received, total int64     // bytes until then
	silent          time.Duration
	// quiet is how long, in all, there was so little traffic that no answer can
	// have been on its way.
	quiet time.Duration
}

func newVigil(m *meter) vigil {
	v := vigil{m: m, at: time.Now(), received: m.received.Load()}
	v.total = v.received + m.sent.Load()
	return v
}

// look takes in what arrived since the last look.
func (v *vigil) look() {
	now := time.Now()
	// A look that comes late says that this process did not run, not that the
	// server is silent.
	passed := min(now.Sub(v.at), 2*watchEvery)
	received := v.m.received.Load()
	total := received + v.m.sent.Load()
	if received > v.received {
		v.m.heard(v.silent)
		v.silent = 0
	} else {
		v.silent += passed
	}
	if float64(total-v.total) < busyBytesPerSecond*passed.Seconds() {
		v.quiet += passed
	}
	v.at, v.received, v.total = now, received, total
}

// dead reports whether nothing arrived for too long; so many bytes are on their
// way to the server.
func (v *vigil) dead(bytes int) bool {
	return v.silent >= v.m.patience()+time.Duration(bytes)*time.Second/uploadBytesPerSecondMin
}

// attend returns a context for one call to an address, other than a stream. It ends
// when the answer is overdue: with hold as the time that the server may take, not
// counting time in which bytes arrive; or, where probe is not nil, when the address
// falls silent although it was probed.
func (p *pool) attend(ctx context.Context, addr string, hold time.Duration, probe func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	v := newVigil(p.meter(addr))
	var timer *time.Timer
	var mu sync.Mutex // the timer may fire before it is assigned
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(watchEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		v.look()
		switch {
		case ctx.Err() != nil:
			return
		case v.quiet >= hold:
			cancel(errOverdue)
			return
		case probe != nil && v.dead(0):
			v.m.hangUp(v.silent)
			cancel(errSilent)
			return
		case probe != nil && v.silent > 0:
			probe()
		}
		timer.Reset(watchEvery)
	})
	return ctx, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}

// reason says why a call under attend has no answer.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) || errors.Is(cause, errOverdue) {
		return cause
	}
	return errors.New(status.Convert(err).Message())
}
