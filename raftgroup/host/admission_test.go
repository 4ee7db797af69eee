package host

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// hoard opens idle gRPC connections to a host, as a fleet of leaking clients has
// them, until n are open or refused.
func hoard(t *testing.T, addr string, n int) {
	t.Helper()
	for range n {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.Connect()
	}
}

// Clients that hold as many idle connections as they get, and strangers that say
// nothing, keep no group from electing a leader; replicas that start again find
// room as well.
func TestIdleClientsKeepNobodyFromVoting(t *testing.T) {
	few := func(o *Options) { o.ConnectionsMax = 32 }
	var hosts []*testHost
	peers, dirs := map[string]string{}, map[string]string{}
	for _, label := range []string{"1", "2", "3"} {
		dirs[label] = t.TempDir()
		h := newTestHost(t, label, dirs[label], "127.0.0.1:0", few)
		hosts, peers[label] = append(hosts, h), h.Addr()
	}
	for _, h := range hosts {
		h.run(7, peers)
	}
	leader := propose(t, "a", hosts...)
	var rest []*testHost
	for _, h := range hosts {
		if h == leader {
			continue
		}
		expectLog(t, h, "a")
		addr := h.Addr()
		h.close()
		again := newTestHost(t, h.label, dirs[h.label], addr, few)
		hoard(t, addr, 2*again.limits.clients) // before its peers find it
		for range 2 * again.limits.unidentified {
			dialRaw(t, addr)
		}
		eventually(t, "clients have what they can get", func() bool { return again.mux.admission.open(connClient) == again.limits.clients })
		again.run(7, peers)
		expectLog(t, again, "a")
		rest = append(rest, again)
	}
	leader.close()
	propose(t, "b", rest...)
}

// A pipe from somewhere.
type fromConn struct {
	net.Conn
	from net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.from }

// Each class of connections has its own room, one address can't take that of all
// clients, the oldest of those that say nothing gives way, and what is closed frees
// its place.
func TestAdmission(t *testing.T) {
	a := newAdmission(limits{peers: 2, unidentified: 3, clients: 4, perSource: 3})
	open := func(ip string) *trackedConn {
		t.Helper()
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		c, err := a.track(fromConn{near, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	closed := func(c *trackedConn) bool {
		c.SetReadDeadline(time.Now())
		_, err := c.Read(make([]byte, 1))
		return err != nil && !strings.Contains(err.Error(), "timeout")
	}
	var silent []*trackedConn
	for range 5 {
		silent = append(silent, open("10.0.0.1"))
	}
	for i, c := range silent {
		if closed(c) != (i < 2) {
			t.Errorf("silent connection %d is closed: %v", i, closed(c))
		}
	}
	if err := a.identify(silent[0], connPeer); !errors.Is(err, net.ErrClosed) {
		t.Errorf("one that was put out is %v", err)
	}
	take := func(ip string, class connClass, want error) *trackedConn {
		t.Helper()
		c := open(ip)
		if err := a.identify(c, class); !errors.Is(err, want) {
			t.Fatalf("a %v from %s: %v, want %v", class, ip, err, want)
		}
		if want != nil {
			c.Close()
		}
		return c
	}
	for range 3 {
		take("10.0.0.2", connClient, nil)
	}
	take("10.0.0.2", connClient, errSourceFull)
	last := take("127.0.0.1", connClient, nil)
	take("10.0.0.3", connClient, errClientsFull)
	for range 2 {
		take("10.0.0.2", connPeer, nil) // peers have their own
	}
	take("10.0.0.2", connPeer, errPeersFull)
	last.Close()
	last.Close()
	take("127.0.0.1", connClient, nil)
	if got := [...]int{a.open(connUnidentified), a.open(connPeer), a.open(connClient)}; got != [...]int{2, 2, 4} { // newcomers put out one more of the silent
		t.Errorf("open: %v", got)
	}
	for _, c := range a.close() {
		c.Close()
	}
	if _, err := a.track(fromConn{Conn: nil, from: &net.TCPAddr{}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed admission takes connections: %v", err)
	}
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far = dialRaw(t, l.Addr().String())
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, far
}

// Claim: clients that all come at once, and say at once what they are, are not taken
// for silent because nobody has read it yet: a newcomer puts out one that has said
// nothing, though it is younger, or else waits until one of them was heard.
func TestSpokenIsNotSilent(t *testing.T) {
	a := newAdmission(limits{peers: 9, unidentified: 3, clients: 9, perSource: 9, hearFor: time.Hour})
	come := func(says string) *trackedConn {
		t.Helper()
		near, far := tcpPair(t)
		if _, err := io.WriteString(far, says); err != nil {
			t.Fatal(err)
		}
		if says != "" {
			eventually(t, "what it says arrives", func() bool { return hasUnread(near) })
		}
		c, err := a.track(near)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, silent, third := come("PRI"), come(""), come("PRI")
	fourth := come("PRI")
	if err := a.identify(silent, connClient); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the silent one is still there: %v", err)
	}
	heard := make(chan error, 1)
	go func() { heard <- a.identify(third, connClient) }()
	come("PRI") // while all have spoken
	if err := <-heard; err != nil {
		t.Errorf("one that had spoken: %v", err)
	}
	for _, c := range []*trackedConn{first, fourth} {
		if err := a.identify(c, connPeer); err != nil {
			t.Errorf("one that had spoken was put out: %v", err)
		}
	}
	a.limits.hearFor = time.Millisecond // not for ever: what nobody reads holds nobody up
	for range 2 * a.limits.unidentified {
		come("PRI")
	}
}

// What a process may open is shared out so that stores, peers and clients can't
// take it from each other; too little of it is refused at the start, not met later.
// Wherever a replica starts, two peers find room for all streams that they use at
// once, beside those that they had before they lost power. With 256 files six do,
// one of which lost power.
func TestLimitsFitTheFiles(t *testing.T) {
	for _, files := range []int{256, 512, 1024, 4096, 65536, 1 << 20} {
		for _, asked := range []int{0, 4, 32, 100000} {
			l, err := deriveLimits(files, asked)
			if err != nil {
				t.Errorf("%d files: %v", files, err)
			}
			if sum := l.stores + l.outgoing + filesOfItsOwn + webConnectionsMax + l.connections; sum > files {
				t.Errorf("%d files: %d are promised: %+v", files, sum, l)
			}
			if l.peers+l.unidentified+l.clients > max(l.connections, 3) || l.peers < 1 || l.unidentified < 1 || l.clients < 1 {
				t.Errorf("%d files, asked for %d connections: %+v", files, asked, l)
			}
		}
	}
	const streams, lives = 4, 2 // of a peer: up to four at once; the present life and the one before
	for files := range 1025 {
		need := 2 * streams * lives
		if files >= 256 {
			need = (6 + 1) * streams // six, of which one was without power
		}
		if l, err := deriveLimits(files, 0); err == nil && l.peers < need {
			t.Errorf("%d files: peers have %d streams, and need %d: %+v", files, l.peers, need, l)
		}
	}
	if l, _ := deriveLimits(1<<20, 0); l.connections != connectionsMaxDefault || l.stores != tablesMax {
		t.Errorf("with files to spare: %+v", l)
	}
	if _, err := deriveLimits(64, 0); err == nil {
		t.Error("64 files are enough")
	}
}
