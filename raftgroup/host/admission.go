package host

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A connClass is what a connection turned out to be.
type connClass int

const (
	connUnidentified connClass = iota
	connPeer
	connClient
	connClasses
)

func (c connClass) String() string { return [...]string{"unidentified", "peer", "client"}[c] }

// An admission counts the connections that were accepted and are not closed, and
// keeps each class of them within its bounds. Who comes when those that have not
// said what they are take up their share puts the oldest of them out that is silent:
// a peer says it at once. One that has spoken, and was not heard yet, is waited for:
// when a thousand clients come back at once, few of them are heard before the last is
// accepted.
type admission struct {
	limits limits
	left   chan struct{} // of capacity 1: one of the unidentified left its class
	mu     struct {
		sync.Mutex
		conns   map[*trackedConn]struct{}
		waiting list.List // of *trackedConn that are unidentified, the oldest first
		count   [connClasses]int
		sources map[netip.Addr]int // clients by where they come from
		refused map[string]uint64  // by reason
		closed  bool
	}
}

func newAdmission(l limits) *admission {
	a := &admission{limits: l, left: make(chan struct{}, 1)}
	a.mu.conns, a.mu.sources, a.mu.refused = map[*trackedConn]struct{}{}, map[netip.Addr]int{}, map[string]uint64{}
	return a
}

// The reasons for which a connection is refused.
const (
	refusedSilent = "silent" // it had not said what it is, and others came
	refusedSource = "source" // too many clients from one address
	refusedFull   = "full"   // too many of its class
)

var (
	errPeersFull   = errors.New("all connections for peers are taken")
	errClientsFull = errors.New("all connections for clients are taken")
	errSourceFull  = errors.New("clients of this address have taken as many connections as one address may")
)

// track takes a new connection in, until it is closed. One call at a time.
func (a *admission) track(conn net.Conn) (*trackedConn, error) {
	t := &trackedConn{Conn: conn, admission: a, source: sourceOf(conn), since: time.Now()}
	out := a.makeRoom()
	if out != nil {
		out.Conn.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return nil, net.ErrClosed
	}
	a.mu.conns[t] = struct{}{}
	a.mu.count[connUnidentified]++
	t.waits = a.mu.waiting.PushBack(t)
	return t, nil
}

// makeRoom waits until there is room for one that has not said what it is, or takes
// one off the list, which the caller closes.
func (a *admission) makeRoom() *trackedConn {
	for {
		out, room := a.putOut()
		if room {
			return out
		}
		select {
		case <-a.left:
		case <-time.After(time.Millisecond): // that one has grown silent tells nobody
		}
	}
}

// putOut takes the oldest off the list that may be put out, if there is no room.
func (a *admission) putOut() (out *trackedConn, room bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed || a.mu.count[connUnidentified] < a.limits.unidentified {
		return nil, true
	}
	for e := a.mu.waiting.Front(); e != nil; e = e.Next() {
		t := e.Value.(*trackedConn)
		age := time.Since(t.since)
		if age >= a.limits.hearFor || age >= a.limits.silentFor && !hasUnread(t.Conn) {
			a.removeLocked(t)
			a.mu.refused[refusedSilent]++
			return t, true
		}
	}
	return nil, false
}

// hasUnread reports whether bytes have arrived that nobody has read.
func hasUnread(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}

// identify moves a connection into its class, if that has room.
func (a *admission) identify(t *trackedConn, class connClass) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, open := a.mu.conns[t]; !open {
		return net.ErrClosed
	}
	switch {
	case class == connPeer && a.mu.count[connPeer] >= a.limits.peers:
		a.mu.refused[refusedFull]++
		return errPeersFull
	case class == connClient && a.mu.count[connClient] >= a.limits.clients:
		a.mu.refused[refusedFull]++
		return errClientsFull
	case class == connClient && t.source.IsValid() && a.mu.sources[t.source] >= a.limits.perSource:
		a.mu.refused[refusedSource]++
		return errSourceFull
	}
	a.leaveLocked(t)
	a.mu.count[connUnidentified]--
	t.class = class
	a.mu.count[class]++
	if class == connClient {
		a.mu.sources[t.source]++
	}
	return nil
}

// removeLocked forgets a connection; again, it does nothing.
func (a *admission) removeLocked(t *trackedConn) {
	if _, open := a.mu.conns[t]; !open {
		return
	}
	delete(a.mu.conns, t)
	a.mu.count[t.class]--
	switch t.class {
	case connUnidentified:
		a.leaveLocked(t)
	case connClient:
		if a.mu.sources[t.source]--; a.mu.sources[t.source] == 0 {
			delete(a.mu.sources, t.source)
		}
	}
}

// leaveLocked takes a connection out of those that have not said what they are.
func (a *admission) leaveLocked(t *trackedConn) {
	a.mu.waiting.Remove(t.waits)
	select {
	case a.left <- struct{}{}:
	default:
	}
}

func (a *admission) untrack(t *trackedConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removeLocked(t)
}

// close takes nothing in any more, and returns what is open.
func (a *admission) close() []*trackedConn {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.closed = true
	select {
	case a.left <- struct{}{}:
	default:
	}
	conns := make([]*trackedConn, 0, len(a.mu.conns))
	for t := range a.mu.conns {
		conns = append(conns, t)
	}
	return conns
}

func (a *admission) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.closed
}

// open returns how many connections of a class are open.
func (a *admission) open(class connClass) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.count[class]
}

// A trackedConn takes itself off the list when it is closed.
type trackedConn struct {
	net.Conn
	admission *admission
	source    netip.Addr
	since     time.Time
	class     connClass     // guarded by the admission
	waits     *list.Element // its place among the unidentified
	once      sync.Once
}

func (c *trackedConn) Close() error {
	c.once.Do(func() { c.admission.untrack(c) })
	return c.Conn.Close()
}

var (
	connectionsDesc = prometheus.NewDesc("shoal_host_connections", "Open connections that were accepted, by what they are.", []string{"class"}, nil)
	limitDesc       = prometheus.NewDesc("shoal_host_connections_max", "Connections that may be open at once, by what they are.", []string{"class"}, nil)
	refusedDesc     = prometheus.NewDesc("shoal_host_connections_refused_total", "Connections that were refused or put out, by reason.", []string{"reason"}, nil)
	filesDesc       = prometheus.NewDesc("shoal_host_files_max", "Files that the process may have open.", nil, nil)
)

// Describe implements prometheus.Collector.
func (a *admission) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectionsDesc, limitDesc, refusedDesc, filesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *admission) Collect(ch chan<- prometheus.Metric) {
	a.mu.Lock()
	defer a.mu.Unlock()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	for class, limit := range []int{a.limits.unidentified, a.limits.peers, a.limits.clients} {
		gauge(connectionsDesc, a.mu.count[class], connClass(class).String())
		gauge(limitDesc, limit, connClass(class).String())
	}
	for _, reason := range []string{refusedSilent, refusedSource, refusedFull} {
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(a.mu.refused[reason]), reason)
	}
	gauge(filesDesc, a.limits.files)
}
