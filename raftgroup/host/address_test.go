package host

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// copyDir copies the data directory of a replica that is stopped.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// at tells a host where others reach it, as a replica's own entry of its peers
// does.
func at(address string) func(*Options) {
	return func(o *Options) { o.Advertise = address }
}

// followerOf returns the number of a host that does not lead, and of the other.
func followerOf(hosts []*testHost, leader *testHost) (one, other int) {
	one, other = -1, -1
	for i, h := range hosts {
		switch {
		case h == leader:
		case one < 0:
			one = i
		default:
			other = i
		}
	}
	return one, other
}

// stops waits until a host can't go on, and returns why.
func stops(t *testing.T, h *testHost) error {
	t.Helper()
	select {
	case <-h.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("replica %q does not start", h.label)
	}
	if h.err != nil {
		return h.err
	}
	eventually(t, "the replica stops", func() bool { return h.Fatal() != nil })
	return h.Fatal()
}

// A copy of a replica's directory that is started elsewhere, though it says that
// it is where the original is, neither votes nor leads, whether the original runs
// or not, and stops as soon as anyone knows. The original is not disturbed.
func TestCopyNeitherVotesNorLeads(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "original runs", false: "original is off"}[running], func(t *testing.T) {
			hosts, dirs, peers := startGroup(t)
			leader := propose(t, "a", hosts...)
			one, other := followerOf(hosts, leader)
			for _, h := range hosts {
				expectLog(t, h, "a")
			}
			original := hosts[one]
			address := original.Addr()
			original.close()
			copied := copyDir(t, dirs[one])
			if running {
				original = newTestHost(t, original.label, dirs[one], address, nil)
				original.run(7, peers)
				expectLog(t, original, "a")
			}
			twin := newTestHost(t, original.label, copied, "127.0.0.1:0", at(address))
			twin.run(7, peers)
			twin.ready()
			leader.close()
			if !running {
				// Two live processes of three, of which one is no member: no leader.
				eventually(t, "the copy is refused", func() bool { return twin.logs.contains("it is not known to be at " + address) })
				for _, h := range []*testHost{twin, hosts[other]} {
					if h.replica.Status().Counters.LeaderGained > 0 && h == twin {
						t.Fatal("the copy has led")
					}
				}
				original = newTestHost(t, original.label, dirs[one], address, nil)
				original.run(7, peers)
				original.ready()
			}
			propose(t, "b", original, hosts[other])
			expectLog(t, original, "ab")
			// The copy stops at the next stream that it opens.
			var same *formation.CopyError
			if err := stops(t, twin); !errors.As(err, &same) || !formation.Refused(err) || same.Address != address {
				t.Fatalf("the copy stops with %v", err)
			}
			if got := twin.replica.Status().Counters.LeaderGained; got != 0 {
				t.Fatalf("the copy has led %d times", got)
			}
			propose(t, "c", original, hosts[other])
		})
	}
}

// A replica that is started at another address than its group has for it is
// refused, with both addresses named, before it takes part in anything; at its
// own it is a member as before. So is a learner. A newcomer may be anywhere, and
// so may one that knows that it was removed.
func TestAddressIsTheGroups(t *testing.T) {
	hosts, dirs, peers := startGroup(t)
	leader := propose(t, "a", hosts...)
	one, _ := followerOf(hosts, leader)
	member := hosts[one]
	expectLog(t, member, "a")
	address := member.Addr()
	member.close()
	moved := newTestHost(t, member.label, dirs[one], "127.0.0.1:0", nil)
	moved.run(7, nil)
	var elsewhere *formation.AddressError
	if err := stops(t, moved); !errors.As(err, &elsewhere) || !formation.Refused(err) || elsewhere.Listed != address || elsewhere.Own != moved.Addr() {
		t.Fatalf("a replica that was moved: %v", err)
	}
	moved.close()
	back := newTestHost(t, member.label, dirs[one], address, nil)
	back.run(7, peers)
	hosts[one] = back
	propose(t, "b", hosts...)
	expectLog(t, back, "ab")

	dir := t.TempDir()
	fourth := newTestHost(t, "4", dir, "127.0.0.1:0", nil)
	fourth.run(7, nil)
	now := append([]*testHost{fourth}, hosts...)
	add(t, now, &raftpb.AddRequest{Address: fourth.Addr()})
	expectLog(t, fourth, "ab")
	remove(t, now, "4")
	eventually(t, "it knows that it was removed", func() bool {
		_, members := fourth.replica.Members()
		return len(members) == 3
	})
	fourth.close()
	again := newTestHost(t, "4", dir, "127.0.0.1:0", nil)
	again.run(7, nil)
	again.ready()
	add(t, hosts, &raftpb.AddRequest{Address: again.Addr()})
	propose(t, "c", hosts...)
	expectLog(t, again, "abc")
}

// Whoever names a newcomer by another address than it says it has is told so, and
// has not added a member that would refuse to be one at its next start.
func TestNewcomerIsNamedByItsAddress(t *testing.T) {
	hosts, _, _ := startGroup(t)
	leader := propose(t, "a", hosts...)
	fourth := newTestHost(t, "4", t.TempDir(), "127.0.0.1:0", nil)
	fourth.run(7, nil)
	_, port, _ := net.SplitHostPort(fourth.Addr())
	err := onLeader(t, hosts, func(c raftpb.MembershipClient) error {
		return tryAdd(c, &raftpb.AddRequest{Address: "localhost:" + port})
	})
	if err == nil || !strings.Contains(err.Error(), "says that others reach it at "+fourth.Addr()) {
		t.Fatalf("added by another name: %v", err)
	}
	if n := len(leader.replica.Status().Members); n != 3 {
		t.Fatalf("the group has %d members", n)
	}
}

// A follower whose directory was put back from an older copy, at the same address,
// stops as soon as the leader calls it: it has forgotten what it acknowledged.
// Its group goes on without it.
func TestOlderCopyStops(t *testing.T) {
	hosts, dirs, peers := startGroupWith(t, time.Second) // what it acknowledged counts in one term
	leader := propose(t, "a", hosts...)
	one, other := followerOf(hosts, leader)
	follower := hosts[one]
	expectLog(t, follower, "a")
	address := follower.Addr()
	follower.close()
	older := copyDir(t, dirs[one])
	follower = newTestHost(t, follower.label, dirs[one], address, nil)
	follower.run(7, peers)
	expectLog(t, follower, "a")
	for range 5 {
		if by := propose(t, "b", leader); by != leader {
			t.Fatal("another one leads")
		}
	}
	expectLog(t, follower, "abbbbb")
	eventually(t, "the leader knows what the follower has", func() bool {
		_, index := leader.replica.Acknowledged(follower.id.ServerID)
		return index >= leader.replica.Status().LastIndex
	})
	follower.close()
	rolledBack := newTestHost(t, follower.label, older, address, nil)
	rolledBack.run(7, peers)
	var forgot *formation.OlderCopyError
	if err := stops(t, rolledBack); !errors.As(err, &forgot) || !formation.Refused(err) || forgot.Last >= forgot.Acknowledged {
		t.Fatalf("a directory that was put back: %v", err)
	}
	propose(t, "c", leader, hosts[other])
	expectLog(t, hosts[other], "abbbbbc")
}

// A stream is judged by the newest configuration that either side knows, and by
// who answers at the caller's address.
func TestJudge(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	caller := newTestHost(t, "2", t.TempDir(), "127.0.0.1:0", nil)
	id, other := streamIdentity("1"), streamIdentity("2")
	streams, m := openStreams(h, id)
	openStreams(caller, other)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	elsewhere := []formation.Member{{Label: "2", ServerID: other.ServerID, Address: "10.0.0.1:1"}}
	here := []formation.Member{{Label: "2", ServerID: other.ServerID, Address: caller.Addr()}}
	for name, tc := range map[string]struct {
		members   []formation.Member
		config    uint64
		address   string
		process   processID
		forgotten error
		want      answerCode
	}{
		"listed where it is":                       {members: here, config: 10, want: answerWelcome},
		"not listed":                               {config: 10, want: answerWelcome},
		"listed elsewhere":                         {members: elsewhere, config: 10, want: answerElsewhere},
		"listed elsewhere, and behind":             {members: elsewhere, config: 9, want: answerElsewhere},
		"listed elsewhere by an old configuration": {members: elsewhere, config: 11, want: answerWelcome},
		"a copy":                        {members: here, config: 10, process: processID{9}, want: answerCopy},
		"a copy that is not listed":     {config: 11, process: processID{9}, want: answerCopy},
		"nobody answers":                {config: 11, address: gone.Addr().String(), want: answerRefused},
		"this one forgot":               {members: here, config: 10, forgotten: errors.New("older"), want: answerRefused},
		"a copy, and this one forgot":   {config: 10, process: processID{9}, forgotten: errors.New("older"), want: answerCopy},
		"another server at its address": {config: 10, address: h.Addr(), want: answerRefused},
	} {
		t.Run(name, func(t *testing.T) {
			m.members, m.forgotten = tc.members, tc.forgotten
			p := preamble{kind: kindStream, cluster: id.Cluster, incarnation: id.Incarnation, process: caller.process, config: tc.config,
				target: id.ServerID, source: other.ServerID, address: caller.Addr()}
			if tc.process != (processID{}) {
				p.process = tc.process
			}
			if tc.address != "" {
				p.address = tc.address
			}
			conn, a := sendStream(t, h.Addr(), p)
			if a.code != tc.want {
				t.Fatalf("answered %+v, want %d", a, tc.want)
			}
			if tc.want == answerWelcome {
				accepted, err := streams.Accept()
				if err != nil {
					t.Fatal(err)
				}
				accepted.Close()
			} else if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatalf("a refused stream stays open: %v", err)
			}
			forgot := tc.forgotten != nil && tc.want == answerRefused
			if stopped := len(m.stopped) > 0; stopped != forgot {
				t.Fatalf("stopped: %v", stopped)
			}
			if forgot {
				<-m.stopped
			}
		})
	}
}

// An address that others can't reach is never advertised.
func TestAdvertise(t *testing.T) {
	for _, o := range []Options{
		{Listen: "0.0.0.0:0"}, {Listen: ":0"}, {Listen: "[::]:0"},
		{Listen: "127.0.0.1:0", Advertise: "0.0.0.0:7"}, {Listen: "127.0.0.1:0", Advertise: ":7"},
		{Listen: "127.0.0.1:0", Advertise: "[::]:7"}, {Listen: "127.0.0.1:0", Advertise: "h:0"}, {Listen: "127.0.0.1:0", Advertise: "h"},
	} {
		o.Insecure, o.DataDir = true, filepath.Join(t.TempDir(), "none")
		var usage *formation.UsageError
		if _, err := New(o); !errors.As(err, &usage) {
			t.Errorf("listen at %s, advertise %q: %v", o.Listen, o.Advertise, err)
		}
		if _, err := os.Stat(o.DataDir); err == nil {
			t.Errorf("listen at %s, advertise %q: a directory was made", o.Listen, o.Advertise)
		}
	}
}

// A group whose every address changed comes back once each of its replicas was
// told the new ones; then its configuration has them, so that a replica which is
// added later finds the others, and the group no longer needs what it was told.
func TestRenumber(t *testing.T) {
	hosts, dirs, _ := startGroup(t)
	propose(t, "a", hosts...)
	addresses := map[string]string{}
	for _, h := range hosts {
		expectLog(t, h, "a")
	}
	for i, h := range hosts {
		if _, err := Renumber(dirs[i], map[string]string{h.label: "127.0.0.1:1"}); !errors.As(err, new(*LockedError)) {
			t.Fatalf("a replica that runs was renumbered: %v", err)
		}
		h.close()
	}
	for _, h := range hosts { // all ports are free: find others
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[h.label] = l.Addr().String()
		defer l.Close()
	}
	lost := newTestHost(t, "1", dirs[0], "127.0.0.1:0", at(addresses["1"]))
	lost.run(7, nil)
	if err := stops(t, lost); !formation.Refused(err) {
		t.Fatalf("a replica that was not told: %v", err)
	}
	lost.close()
	for _, wrong := range []map[string]string{
		{"4": "127.0.0.1:1"}, {"1": "127.0.0.1"}, {"1": "0.0.0.0:1"}, {"1": "h:1", "2": "h:1"}, {"1": hosts[1].Addr()},
	} {
		if _, err := Renumber(dirs[0], wrong); !errors.As(err, new(*formation.UsageError)) {
			t.Fatalf("renumbered to %v: %v", wrong, err)
		}
	}
	told := map[string]string{"1": addresses["1"], hosts[1].id.ServerID: addresses["2"], "3": addresses["3"]} // labels or server ids
	var again []*testHost
	for i, dir := range dirs {
		for range 2 { // repeated
			members, err := Renumber(dir, told)
			if err != nil || len(members) != 3 || members[0].To != addresses["1"] {
				t.Fatalf("renumber: %v, %v", members, err)
			}
		}
		h := newTestHost(t, hosts[i].label, dir, "127.0.0.1:0", at(addresses[hosts[i].label]))
		again = append(again, h)
	}
	// The new addresses lead to wherever the hosts listen.
	for _, h := range again {
		h.opts.DialOverride = func(ctx context.Context, addr string) (net.Conn, error) {
			for _, other := range again {
				if addresses[other.label] == addr {
					addr = other.Addr()
				}
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	for _, h := range again {
		h.run(7, addresses)
	}
	propose(t, "b", again...)
	for _, h := range again {
		expectLog(t, h, "ab")
		eventually(t, "the configuration has the new addresses", func() bool {
			recorded := 0
			for _, s := range h.replica.Configuration() {
				for _, m := range hosts {
					if s.ServerID == m.id.ServerID && s.Address == addresses[m.label] {
						recorded++
					}
				}
			}
			return recorded == 3
		})
	}
	eventually(t, "the leader is said to be at its new address", func() bool {
		for _, h := range again {
			if at, self := h.replica.Leader(); self {
				return at == addresses[h.label]
			}
		}
		return false
	})
}

// listensAndSays is a program that has nothing to do with Shoal: it says something
// to whoever connects. It returns its address.
func listensAndSays(t *testing.T, what string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				if _, err := io.WriteString(conn, what); err == nil {
					io.Copy(io.Discard, conn) // until the caller hangs up
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// Claim: whoever answers at a member's address and does not speak the replicas'
// protocol stops nobody, whatever it says, is no member, and vouches for none.
func TestStrangerIsNotHeeded(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	id, other := streamIdentity("1"), streamIdentity("2")
	for what, says := range map[string]string{
		"settings of HTTP/2": "\x00\x00\x12\x04\x00\x00\x00\x00\x00",
		"TPKT":               "\x03\x00\x00\x0b\x06\xd0\x00\x00\x12\x34\x00",
		"a short text":       "\x02\x03a:1",
	} {
		t.Run(what, func(t *testing.T) {
			address := listensAndSays(t, says)
			streams, m := openStreams(h, id, formation.Member{Label: "2", ServerID: other.ServerID, Address: address})
			defer streams.Close()
			if conn, err := streams.Dial(raft.ServerAddress(address), 5*time.Second); err == nil {
				conn.Close()
				t.Error("it is taken for a member")
			}
			select {
			case err := <-m.stopped:
				t.Errorf("it stops a replica: %v", err)
			default:
			}
			if a := streams.question(t.Context(), preamble{source: other.ServerID, address: address}); a.code != answerRefused {
				t.Errorf("it answers a question with %+v", a)
			}
		})
	}
}
