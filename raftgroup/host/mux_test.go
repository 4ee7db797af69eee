package host

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// streamIdentity is an identity for streams without a replica behind them.
func streamIdentity(label string) formation.Identity {
	return formation.Identity{
		Format: 1, Cluster: shardcfg.ClusterID{1}, Group: 7, Incarnation: shardcfg.Incarnation{2},
		ShardCount: 64, Label: label, ServerID: label + ".000102030405060708090a0b0c0d0e0f", LogStore: "memory",
	}
}

// A fakeMember is a replica for streams without one behind them.
type fakeMember struct {
	index     uint64
	members   []formation.Member
	forgotten error
	stopped   chan error // of capacity 1
}

func (m *fakeMember) Members() (uint64, []formation.Member)          { return m.index, m.members }
func (m *fakeMember) Acknowledged(string) (term, index uint64)       { return 3, 17 }
func (m *fakeMember) CheckAcknowledged(string, uint64, uint64) error { return m.forgotten }
func (m *fakeMember) Stop(reason error)                              { m.stopped <- reason }

// openStreams makes the streams of a host for a replica that knows the members
// of a configuration at index 10.
func openStreams(h *testHost, id formation.Identity, members ...formation.Member) (*raftStreams, *fakeMember) {
	id.Founders = members
	streams := newRaftStreams(h.Host, id, newPeerBook(id, nil))
	m := &fakeMember{index: 10, members: members, stopped: make(chan error, 1)}
	streams.open(m)
	return streams, m
}

// sendStream opens a connection with a preamble, and returns the answer to it.
func sendStream(t *testing.T, addr string, p preamble) (net.Conn, answer) {
	t.Helper()
	conn := dialRaw(t, addr)
	if _, err := conn.Write(p.append(nil)); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	a, err := readAnswer(conn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, a
}

// expectClosed checks that the other side hangs up without a word.
func expectClosed(t *testing.T, conn net.Conn, what string) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("%s: read %d bytes, %v; want the connection closed", what, n, err)
	}
}

// TestGarbage: what is no known protocol is closed at once and logged, at a
// bounded rate; the port goes on serving.
func TestGarbage(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	for range 20 {
		for _, garbage := range []string{"GOT / HTTP/1.1\r\n", "get / ", "\x16\x03\x01", "PRI * HTTP/3", "*1\r\n$4\r\nPING\r\n", "\xf5SRH", "\x00"} {
			conn := dialRaw(t, h.Addr())
			if _, err := conn.Write([]byte(garbage)); err != nil {
				t.Fatal(err)
			}
			expectClosed(t, conn, garbage)
		}
	}
	lines := strings.Count(h.logs.String(), "no protocol begins with")
	if lines == 0 || lines > 20 {
		t.Fatalf("140 bad connections made %d lines of log", lines)
	}
	expectHello(t, h)
}

// TestHTTP1: a browser, or curl, that is pointed at the port is told what the port
// speaks, whatever it asks; the port goes on serving.
func TestHTTP1(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		for _, body := range []int{0, 100, 500_000} {
			r, err := http.NewRequest(method, "http://"+h.Addr()+"/v1/kv/k", strings.NewReader(strings.Repeat("x", body)))
			if err != nil {
				t.Fatal(err)
			}
			reply, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatalf("%s of %d bytes: %v", method, body, err)
			}
			text, err := io.ReadAll(reply.Body)
			reply.Body.Close()
			if err != nil || reply.StatusCode != http.StatusBadRequest || strings.Contains(string(text), "it does not speak HTTP/1") != (method != "HEAD") {
				t.Errorf("%s of %d bytes: %s, %q, %v", method, body, reply.Status, text, err)
			}
		}
	}
	long := dialRaw(t, h.Addr())
	if _, err := long.Write([]byte("GET /" + strings.Repeat("x", http1HeadMax))); err != nil {
		t.Fatal(err)
	}
	if first, err := io.ReadAll(io.LimitReader(long, 12)); err != nil || string(first) != "HTTP/1.1 400" {
		t.Errorf("an endless head is answered with %q, %v", first, err)
	}
	slow := dialRaw(t, h.Addr())
	if _, err := slow.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	expectClosed(t, slow, "a head that does not end")
	expectHello(t, h)
}

// expectHello checks that the host answers gRPC.
func expectHello(t *testing.T, h *testHost) {
	t.Helper()
	conn, err := h.Dial(h.Addr())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = raftpb.NewFormationClient(conn).Hello(ctx, &raftpb.HelloRequest{}, grpc.WaitForReady(true))
	if c := status.Code(err); err != nil && (c != codes.Unavailable || !strings.Contains(err.Error(), "starting")) {
		t.Fatal(err)
	}
}

// TestSlowPeers: who says nothing, or too little, is cut off after the deadline,
// and holds up nobody meanwhile.
func TestSlowPeers(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", func(o *Options) { o.SniffTimeout = 300 * time.Millisecond })
	hello := preamble{kind: kindStream, cluster: shardcfg.ClusterID{1}, target: "x", source: "y"}.append(nil)
	var slow []net.Conn
	for _, start := range []string{"", "P", http2Preface[:20], preambleMagic, string(hello[:len(hello)-1])} {
		conn := dialRaw(t, h.Addr())
		if _, err := conn.Write([]byte(start)); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	expectHello(t, h)
	for _, conn := range slow {
		expectClosed(t, conn, "a slow peer")
	}
	// One byte at a time does not buy more time either.
	conn := dialRaw(t, h.Addr())
	began := time.Now()
	for i := 0; time.Since(began) < 10*time.Second; i++ {
		if _, err := conn.Write([]byte{http2Preface[min(i, 20)]}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond) // load: a slow peer
	}
	t.Fatal("a trickling peer was never cut off")
}

// TestPreamble: a stream reaches the replica that it names; one for another
// cluster, incarnation, replica or version, or for nobody, is closed and logged.
func TestPreamble(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	other := newTestHost(t, "2", t.TempDir(), "127.0.0.1:0", nil)
	id, otherID := streamIdentity("1"), streamIdentity("2")
	streams, _ := openStreams(h, id)
	openStreams(other, otherID)
	good := preamble{kind: kindStream, cluster: id.Cluster, incarnation: id.Incarnation, process: other.process,
		target: id.ServerID, source: otherID.ServerID, address: other.Addr()}
	for what, change := range map[string]func(*preamble){
		"this is cluster":     func(p *preamble) { p.cluster[15]++ },
		"does not live here":  func(p *preamble) { p.incarnation[0]++ },
		"for server \"3.y\"":  func(p *preamble) { p.target = "3.y" },
		"for server \"\"":     func(p *preamble) { p.target = "" },
		"preamble of version": func(*preamble) {},
	} {
		p := good
		change(&p)
		b := p.append(nil)
		if what == "preamble of version" {
			b[len(preambleMagic)] = 9
		}
		conn := dialRaw(t, h.Addr())
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		expectClosed(t, conn, what)
		logged := func() bool { return strings.Contains(strings.ReplaceAll(h.logs.String(), `\"`, `"`), what) }
		eventually(t, "a line of log: "+what, logged)
	}
	conn, welcome := sendStream(t, h.Addr(), good)
	if _, err := conn.Write([]byte("hello")); err != nil || welcome.code != answerWelcome {
		t.Fatal(welcome, err)
	}
	accepted, err := streams.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(accepted, b); err != nil || string(b) != "hello" {
		t.Fatalf("read %q, %v", b, err)
	}
	if err := streams.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := streams.Accept(); err == nil {
		t.Fatal("closed streams accept")
	}
	late := dialRaw(t, h.Addr())
	if _, err := late.Write(good.append(nil)); err != nil {
		t.Fatal(err)
	}
	expectClosed(t, late, "a stream to a replica that is gone")
}

// TestStreams: two hosts exchange bytes over streams that say whom they mean,
// while gRPC uses the same port; the override makes every connection.
func TestStreams(t *testing.T) {
	a := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	var dialed []string
	b := newTestHost(t, "2", t.TempDir(), "127.0.0.1:0", func(o *Options) {
		o.DialOverride = func(ctx context.Context, addr string) (net.Conn, error) {
			dialed = append(dialed, addr)
			var d net.Dialer
			return d.DialContext(ctx, "tcp", a.Addr())
		}
	})
	idA, idB := streamIdentity("1"), streamIdentity("2")
	members := []formation.Member{
		{Label: "1", ServerID: idA.ServerID, Address: "elsewhere:1"}, {Label: "2", ServerID: idB.ServerID, Address: b.Addr()}}
	streamsA, _ := openStreams(a, idA, members...)
	defer streamsA.Close()
	streamsB, _ := openStreams(b, idB, members...)
	defer streamsB.Close()
	book := streamsB.peers
	name, ok := book.resolve(idA.ServerID)
	if !ok || name != idA.ServerID+"@elsewhere:1" {
		t.Fatalf("resolved to %q", name)
	}
	for _, address := range []string{name, "elsewhere:1"} {
		conn, err := streamsB.Dial(raft.ServerAddress(address), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		expectHello(t, a)
		if _, err := conn.Write([]byte(address)); err != nil {
			t.Fatal(err)
		}
		accepted, err := streamsA.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(address))
		if _, err := io.ReadFull(accepted, got); err != nil || string(got) != address {
			t.Fatalf("read %q, %v", got, err)
		}
		conn.Close()
		accepted.Close()
	}
	if len(dialed) != 2 || dialed[0] != "elsewhere:1" {
		t.Fatalf("the override saw %q", dialed)
	}
	if _, err := streamsB.Dial("nobody:1", time.Second); err == nil {
		t.Fatal("a stream to an address where no member is known")
	}
	if _, ok := book.resolve("9.unknown"); ok {
		t.Fatal("an unknown member was resolved")
	}
	if _, ok := book.resolve(idB.ServerID); ok {
		t.Fatal("the replica's own address was given another name")
	}
}

// TestFence: a call that carries another cluster or group is refused before any
// handler sees it, as "not done", except where everybody must be answered.
func TestFence(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	h.run(7, map[string]string{"1": h.Addr()})
	h.ready()
	// Not through the host's own pool, which would attach its own cluster.
	conn, err := grpc.NewClient("passthrough:///"+h.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := raftpb.NewMembershipClient(conn)
	bg := context.Background()
	for _, c := range []struct {
		ctx  context.Context
		want fence.Reason
	}{
		{bg, ""},
		{fence.WithCluster(bg, h.id.Cluster), ""},
		{fence.WithTarget(fence.WithCluster(bg, h.id.Cluster), h.id.Incarnation), ""},
		{fence.WithCluster(bg, shardcfg.ClusterID{9}), fence.WrongCluster},
		{fence.WithTarget(bg, shardcfg.Incarnation{9}), fence.WrongGroup},
	} {
		_, err := client.List(c.ctx, &raftpb.ListRequest{})
		reason, refused := fence.Refused(err)
		if reason != c.want || refused != (c.want != "") || refused && status.Code(err) != codes.FailedPrecondition || !refused && err != nil {
			t.Errorf("want %q, got %v", c.want, err)
		}
		stream, err := client.Add(c.ctx, &raftpb.AddRequest{Address: h.Addr()})
		if err == nil {
			for err == nil {
				_, err = stream.Recv()
			}
		}
		if reason, _ := fence.Refused(err); reason != c.want {
			t.Errorf("stream: want %q, got %v", c.want, err)
		}
	}
	hello, err := raftpb.NewFormationClient(conn).Hello(fence.WithCluster(bg, shardcfg.ClusterID{9}), &raftpb.HelloRequest{})
	if err != nil || !hello.GetFormed() || hello.GetVersion() != "test" || hello.GetFeatureLevel() == 0 {
		t.Errorf("Hello: %v, %v", hello, err)
	}
	eventually(t, "the health service says that it serves", func() bool {
		health, err := healthpb.NewHealthClient(conn).Check(bg, &healthpb.HealthCheckRequest{})
		return err == nil && health.GetStatus() == healthpb.HealthCheckResponse_SERVING
	})
}

// TestListen: strangers are kept out unless asked for, and a busy port is named.
func TestListen(t *testing.T) {
	var refused *InsecureError
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		if _, err := New(Options{Listen: address, DataDir: t.TempDir()}); !errors.As(err, &refused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	open := newTestHost(t, "1", t.TempDir(), ":0", func(o *Options) { o.Insecure, o.Advertise = true, "127.0.0.1:1" })
	_, port, _ := net.SplitHostPort(open.Addr())
	var busy *ListenError
	dir := t.TempDir()
	if _, err := New(Options{Listen: "127.0.0.1:" + port, DataDir: dir}); !errors.As(err, &busy) || !strings.Contains(err.Error(), "127.0.0.1:"+port) {
		t.Fatalf("a busy port: %v", err)
	}
	newTestHost(t, "1", dir, "127.0.0.1:0", nil) // the failure has left no lock
}

// TestWeb: metrics, probes and profiles are served at their own address; ready
// only with a leader, and no more once the replica has failed.
func TestWeb(t *testing.T) {
	fatal := make(chan error, 1)
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", func(o *Options) {
		o.HTTP = "127.0.0.1:0"
		o.OnFatal = func(err error) { fatal <- err }
	})
	get := func(path string) (int, string) {
		t.Helper()
		reply, err := http.Get("http://" + h.HTTPAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply.StatusCode, string(body)
	}
	if code, _ := get("/live"); code != http.StatusOK {
		t.Fatalf("live: %d", code)
	}
	if code, body := get("/ready"); code != http.StatusServiceUnavailable || !strings.Contains(body, "not formed") {
		t.Fatalf("ready before it is formed: %d %s", code, body)
	}
	h.run(7, map[string]string{"1": h.Addr()})
	propose(t, "a", h)
	if code, body := get("/ready"); code != http.StatusOK {
		t.Fatalf("ready: %d %s", code, body)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "shoal_raft_leader 1") ||
		!strings.Contains(body, "shoal_raft_append_seconds_count") || !strings.Contains(body, `shoal_raft_disk_bytes{part="log"}`) || !strings.Contains(body, "go_goroutines") {
		t.Fatalf("metrics: %d\n%s", code, body)
	}
	if code, _ := get("/debug/pprof/goroutine?debug=1"); code != http.StatusOK {
		t.Fatalf("pprof: %d", code)
	}
	broken := errors.New("disk is gone")
	h.fatal(broken)
	h.fatal(errors.New("again"))
	if err := <-fatal; err != broken {
		t.Fatalf("reported %v", err)
	}
	for _, path := range []string{"/live", "/ready"} {
		if code, body := get(path); code != http.StatusServiceUnavailable || !strings.Contains(body, "disk is gone") {
			t.Fatalf("%s of a failed replica: %d %s", path, code, body)
		}
	}
}
