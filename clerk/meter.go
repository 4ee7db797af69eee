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
	// creditMax bounds for how long bytes that arrived at once count.
	creditMax = 2 * time.Second
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

// traffic is the number of bytes that passed, both ways.
func (m *meter) traffic() int64 { return m.received.Load() + m.sent.Load() }

// alone is the meter as a list.
func (m *meter) alone() []*meter { return []*meter{m} }

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

// A vigil counts how long addresses that owe answers have been silent, together. Its
// owner makes it when the first answer is owed, and calls look every watchEvery.
type vigil struct {
	meters          func() []*meter
	at              time.Time // of the last look
	received, total int64     // bytes until then
	silent          time.Duration
	// quiet is how long, in all, there was so little traffic that no answer can
	// have been on its way: bytes buy time, at busyBytesPerSecond, which is credit
	// until it has passed.
	quiet, credit time.Duration
}

func newVigil(meters func() []*meter) vigil {
	v := vigil{meters: meters, at: time.Now()}
	for _, m := range meters() {
		v.received += m.received.Load()
		v.total += m.traffic()
	}
	return v
}

// look takes in what arrived since the last look.
func (v *vigil) look() {
	now := time.Now()
	// A look that comes late says that this process did not run, not that the
	// server is silent.
	passed := min(now.Sub(v.at), 2*watchEvery)
	meters := v.meters()
	received, total := int64(0), int64(0)
	for _, m := range meters {
		received += m.received.Load()
		total += m.traffic()
	}
	if received > v.received {
		if len(meters) == 1 {
			meters[0].heard(v.silent)
		}
		v.silent = 0
	} else {
		v.silent += passed
	}
	v.credit += time.Duration(min(total-v.total, busyBytesPerSecond*int64(creditMax/time.Second))) * time.Second / busyBytesPerSecond
	v.credit = min(v.credit, creditMax)
	bought := min(v.credit, passed)
	v.credit -= bought
	v.quiet += passed - bought
	v.at, v.received, v.total = now, received, total
}

// dead reports whether nothing arrived for too long from an address; so many bytes
// are on their way there.
func (v *vigil) dead(m *meter, bytes int) bool {
	return v.silent >= m.patience()+time.Duration(bytes)*time.Second/uploadBytesPerSecondMin
}

// attend returns a context for one call to an address, other than a stream. It ends
// when the answer is overdue: with hold as the time that the server may take, not
// counting time in which bytes arrive; or, where probe is not nil, when the address
// falls silent although it was probed.
func (p *pool) attend(ctx context.Context, addr string, hold time.Duration, probe func()) (context.Context, context.CancelFunc) {
	m := p.meter(addr)
	return attend(ctx, m.alone, hold, func(v *vigil) error {
		switch {
		case probe == nil:
		case v.dead(m, 0):
			m.hangUp(v.silent)
			return errSilent
		case v.silent > 0:
			probe()
		}
		return nil
	})
}

// attendAll returns a context for calls to several addresses, which ends when their
// answers are overdue together. The addresses may change meanwhile.
func (p *pool) attendAll(ctx context.Context, addresses func() []string, hold time.Duration) (context.Context, context.CancelFunc) {
	return attend(ctx, func() []*meter {
		var meters []*meter
		for _, addr := range addresses() {
			meters = append(meters, p.meter(addr))
		}
		return meters
	}, hold, func(*vigil) error { return nil })
}

// attend ends a context when answers are overdue by the meters, or when check says
// why it should end.
func attend(ctx context.Context, meters func() []*meter, hold time.Duration, check func(*vigil) error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	v := newVigil(meters)
	var timer *time.Timer
	var mu sync.Mutex // the timer may fire before it is assigned
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(watchEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		v.look()
		err := check(&v)
		if err == nil && v.quiet >= hold {
			err = errOverdue
		}
		if err != nil {
			cancel(err)
			return
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
