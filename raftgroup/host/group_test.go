package host

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// propose appends text, once, through whichever host leads, and returns that host.
func propose(t *testing.T, text string, hosts ...*testHost) *testHost {
	t.Helper()
	var by *testHost
	command := appendCommand(text)
	eventually(t, "a proposal is applied", func() bool {
		for _, h := range hosts {
			if _, self := h.ready().Leader(); !self {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := h.replica.Propose(ctx, command)
			cancel()
			if err == nil {
				by = h
				return true
			}
		}
		return false
	})
	return by
}

// expectLog waits until the replica's own state is the text.
func expectLog(t *testing.T, h *testHost, want string) {
	t.Helper()
	var got []byte
	defer func() {
		if t.Failed() {
			t.Logf("replica %q has %q, want %q", h.label, got, want)
		}
	}()
	eventually(t, "the replica has applied everything", func() bool {
		snapshot, err := h.ready().Store().NewSnapshot()
		if err != nil {
			return false
		}
		defer snapshot.Close()
		got, _, err = snapshot.Get(logKey)
		return err == nil && string(got) == want
	})
}

// startGroup starts three hosts that form group 7.
func startGroup(t *testing.T) (hosts []*testHost, dirs []string, peers map[string]string) {
	return startGroupWith(t, 0)
}

// startGroupWith starts a group with a timeout of Raft's, where the test is about one
// leader; 0: the usual one.
func startGroupWith(t *testing.T, timeout time.Duration) (hosts []*testHost, dirs []string, peers map[string]string) {
	peers = map[string]string{}
	for _, label := range []string{"1", "2", "3"} {
		dir := t.TempDir()
		h := newTestHost(t, label, dir, "127.0.0.1:0", nil)
		h.timeout = cmp.Or(timeout, h.timeout)
		hosts, dirs = append(hosts, h), append(dirs, dir)
		peers[label] = h.Addr()
	}
	for _, h := range hosts {
		h.run(7, peers)
	}
	return hosts, dirs, peers
}

// leaderClient connects to the leader's Membership.
func leaderClient(t *testing.T, via *testHost, leader *testHost) raftpb.MembershipClient {
	t.Helper()
	conn, err := via.Dial(leader.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return raftpb.NewMembershipClient(conn)
}

// TestGroup: three hosts form a group, which survives the restart of one, takes
// in a fourth replica as a voter, and lets one go.
func TestGroup(t *testing.T) {
	hosts, dirs, peers := startGroup(t)
	leader := propose(t, "a", hosts...)
	for _, h := range hosts {
		expectLog(t, h, "a")
		if h.id.Incarnation != hosts[0].id.Incarnation || h.id.Group != 7 {
			t.Fatalf("two groups were formed: %+v and %+v", h.id, hosts[0].id)
		}
	}

	// A restart, at the same address, of the leader.
	old := 0
	for i, h := range hosts {
		if h == leader {
			old = i
		}
	}
	address := leader.Addr()
	leader.close()
	rest := append(append([]*testHost(nil), hosts[:old]...), hosts[old+1:]...)
	propose(t, "b", rest...)
	hosts[old] = newTestHost(t, leader.label, dirs[old], address, nil)
	hosts[old].run(7, peers)
	expectLog(t, hosts[old], "ab")
	if hosts[old].id.ServerID != leader.id.ServerID {
		t.Fatal("a restart changed the replica's name")
	}

	// A fourth replica: waits, is added, votes.
	fourth := newTestHost(t, "4", t.TempDir(), "127.0.0.1:0", nil)
	fourth.run(7, nil)
	leader = propose(t, "c", hosts...)
	// Who mistypes the one to be replaced has not added a voter.
	mistyped := func(c raftpb.MembershipClient) error {
		return tryAdd(c, &raftpb.AddRequest{Address: fourth.Addr(), Replaces: "nobody"})
	}
	if err := onLeader(t, hosts, mistyped); status.Code(err) != codes.NotFound {
		t.Fatalf("replaced nobody: %v", err)
	}
	client := leaderClient(t, fourth, leader)
	if list, err := client.List(context.Background(), &raftpb.ListRequest{}); err != nil || len(list.GetMembers()) != 3 {
		t.Fatalf("after replacing nobody: %v, %v", list, err)
	}
	add(t, hosts, &raftpb.AddRequest{Address: fourth.Addr()})
	add(t, hosts, &raftpb.AddRequest{Address: fourth.Addr()}) // the same again
	expectLog(t, fourth, "abc")
	if fourth.id.Incarnation != leader.id.Incarnation || len(fourth.id.Founders) != 0 {
		t.Fatalf("the fourth replica is %+v", fourth.id)
	}

	// One of the founders goes.
	var gone *testHost
	for _, h := range hosts {
		if h != leader {
			gone = h
		}
	}
	now := append([]*testHost{fourth}, hosts...)
	remove(t, now, gone.label)
	if !remove(t, now, gone.label) {
		t.Fatal("it was removed twice")
	}
	eventually(t, "three healthy voters are listed by whoever leads", func() bool {
		for _, h := range now {
			list, err := leaderClient(t, h, h).List(context.Background(), &raftpb.ListRequest{})
			if err != nil || !list.GetLeads() {
				continue
			}
			healthy := 0
			for _, m := range list.GetMembers() {
				if m.GetLabel() != gone.label && m.GetHealthy() && m.GetRole() != "learner" {
					healthy++
				}
			}
			return healthy == 3 && len(list.GetMembers()) == 3 && list.GetLeader() == h.Addr()
		}
		return false
	})
	eventually(t, "the fourth leads", func() bool {
		if err := onLeader(t, now, func(c raftpb.MembershipClient) error {
			_, err := c.Transfer(context.Background(), &raftpb.TransferRequest{Label: "4"})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return fourth.replica.ReadBarrier(ctx) == nil
	})
	propose(t, "d", now...)
	for _, h := range append(hosts, fourth) {
		if h != gone {
			expectLog(t, h, "abcd")
		}
	}
}

// onLeader makes a change of membership at whoever leads, and makes it again as long as
// it is the leader that is missing: every change may be repeated.
func onLeader(t *testing.T, hosts []*testHost, change func(raftpb.MembershipClient) error) error {
	t.Helper()
	var err error
	eventually(t, "a leader answers", func() bool {
		for _, h := range hosts {
			if r := h.running(); r != nil {
				if _, self := r.replica.Leader(); self {
					err = change(leaderClient(t, h, h))
					return status.Code(err) != codes.Unavailable
				}
			}
		}
		return false
	})
	return err
}

// add adds a replica and waits until it is done.
func add(t *testing.T, hosts []*testHost, req *raftpb.AddRequest) {
	t.Helper()
	if err := onLeader(t, hosts, func(c raftpb.MembershipClient) error { return tryAdd(c, req) }); err != nil {
		t.Fatalf("add %v: %v", req, err)
	}
}

// remove takes a member out, and reports whether it was none.
func remove(t *testing.T, hosts []*testHost, label string) (absent bool) {
	t.Helper()
	if err := onLeader(t, hosts, func(c raftpb.MembershipClient) error {
		reply, err := c.Remove(t.Context(), &raftpb.RemoveRequest{Label: label})
		absent = reply.GetAbsent()
		return err
	}); err != nil {
		t.Fatalf("remove %q: %v", label, err)
	}
	return absent
}

// TestReplaceWiped: a replica whose disk was wiped is refused as long as it
// claims its old place, and replaced under the same id at the same address.
func TestReplaceWiped(t *testing.T) {
	hosts, _, peers := startGroup(t)
	leader := propose(t, "a", hosts...)
	victim := hosts[0]
	if victim == leader {
		victim = hosts[1]
	}
	victim.ready()
	address, label := victim.Addr(), victim.label
	victim.close()
	wiped := newTestHost(t, label, t.TempDir(), address, nil)
	wiped.run(7, peers)
	<-wiped.done
	var refused *formation.WipedError
	if !errors.As(wiped.err, &refused) || !strings.Contains(refused.Error(), "shoal replicas 7 replace "+label+" "+address) {
		t.Fatalf("a wiped replica: %v", wiped.err)
	}
	wiped.close()

	var rest []*testHost
	for _, h := range hosts {
		if h != victim {
			rest = append(rest, h)
		}
	}
	fresh := newTestHost(t, label, t.TempDir(), address, nil)
	fresh.run(7, nil)
	propose(t, "b", rest...)
	twice := func(c raftpb.MembershipClient) error { return tryAdd(c, &raftpb.AddRequest{Address: address}) }
	if err := onLeader(t, rest, twice); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("an id that a member has was added: %v", err)
	}
	now := append(rest, fresh)
	add(t, now, &raftpb.AddRequest{Address: address, Replaces: label})
	expectLog(t, fresh, "ab")
	list, err := leaderClient(t, fresh, propose(t, "c", now...)).List(context.Background(), &raftpb.ListRequest{})
	if err != nil || len(list.GetMembers()) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, m := range list.GetMembers() {
		if m.GetServerId() == victim.id.ServerID {
			t.Fatal("the wiped replica is still a member")
		}
		if m.GetServerId() == fresh.id.ServerID && m.GetRole() == "learner" {
			t.Fatal("the new replica has no vote")
		}
	}
}

// tryAdd adds a replica, and returns nil once it is done.
func tryAdd(client raftpb.MembershipClient, req *raftpb.AddRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := client.Add(ctx, req)
	if err != nil {
		return err
	}
	last := ""
	for {
		p, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && last == "done":
			return nil
		case err != nil:
			return err
		}
		last = p.GetPhase()
	}
}

// TestRemovedSaysSo: a replica that was away when it was removed, and comes back,
// says that it was; one that is added again is a member.
func TestRemovedSaysSo(t *testing.T) {
	hosts, dirs, peers := startGroup(t)
	leader := propose(t, "a", hosts...)
	at := 0
	if hosts[0] == leader {
		at = 1
	}
	gone := hosts[at]
	gone.ready()
	address := gone.Addr()
	gone.close()
	var rest []*testHost
	for i, h := range hosts {
		if i != at {
			rest = append(rest, h)
		}
	}
	propose(t, "b", rest...)
	remove(t, rest, gone.label)
	// Another leader, which does not still try to tell it.
	if err := onLeader(t, rest, func(c raftpb.MembershipClient) error {
		_, err := c.Transfer(context.Background(), &raftpb.TransferRequest{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	propose(t, "c", rest...)
	back := newTestHost(t, gone.label, dirs[at], address, nil)
	back.run(7, peers)
	back.ready()
	eventually(t, "it says that it was removed", func() bool {
		return back.unready() == "removed from its group" && strings.Contains(back.logs.String(), "was removed from its group")
	})
	add(t, rest, &raftpb.AddRequest{Address: address})
	expectLog(t, back, "abc")
	eventually(t, "it is a member again", func() bool { return back.unready() == "" })
}

// TestPartly: a change that fails midway says what is done and what remains.
func TestPartly(t *testing.T) {
	steps := []changeStep{{what: "add b"}, {what: "let b vote"}, {what: "remove a"}}
	refused := status.Error(codes.FailedPrecondition, "no quorum")
	if err := partly(refused, steps, 0); err != refused {
		t.Errorf("nothing was done: %v", err)
	}
	err := partly(refused, steps, 2)
	if want := "no quorum (done: add b, let b vote; remains: remove a;"; status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestLostStores: a replica that has run, and lost its log, its votes or its state
// but not its identity, or has damage in them, is refused; so is one that runs
// already.
func TestLostStores(t *testing.T) {
	for lost, damage := range map[string]func(path string) error{
		"raft.db": os.Remove, "hardstate": os.Remove, formation.StateDir: os.RemoveAll,
		"raft.db ": cutShort, "hardstate ": cutShort, formation.StateDir + "/CURRENT": cutShort,
	} {
		dir := t.TempDir()
		h := newTestHost(t, "1", dir, "127.0.0.1:0", nil)
		h.run(7, map[string]string{"1": h.Addr()})
		propose(t, "a", h)
		var locked *LockedError
		if _, err := New(Options{Listen: "127.0.0.1:0", DataDir: dir}); !errors.As(err, &locked) || locked.PID != os.Getpid() {
			t.Fatalf("two hosts on one directory: %v", err)
		}
		h.close()
		again := newTestHost(t, "1", dir, h.Addr(), nil)
		again.run(7, nil)
		expectLog(t, again, "a")
		again.close()
		if err := damage(filepath.Join(dir, strings.TrimSpace(lost))); err != nil {
			t.Fatal(err)
		}
		damaged := newTestHost(t, "1", dir, h.Addr(), nil)
		damaged.run(7, nil)
		<-damaged.done
		var refused *formation.DamagedError
		if !errors.As(damaged.err, &refused) || !formation.Refused(damaged.err) {
			t.Fatalf("without %s: %v", lost, damaged.err)
		}
	}
}

func cutShort(path string) error { return os.Truncate(path, 10) }

// TestCloseWhileForming: a host that still waits for its peers closes at once,
// its Replica ends with an error, and the directory is free.
func TestCloseWhileForming(t *testing.T) {
	dir := t.TempDir()
	h := newTestHost(t, "1", dir, "127.0.0.1:0", nil)
	h.run(7, map[string]string{"1": h.Addr(), "2": "127.0.0.1:1", "3": "127.0.0.1:2"})
	eventually(t, "it waits for its peers", func() bool { return strings.Contains(h.logs.String(), "do not answer") })
	h.close()
	<-h.done
	if h.err == nil {
		t.Fatal("a replica without its peers")
	}
	if _, _, err := h.Replica(context.Background(), ReplicaOptions{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("a replica in a closed host: %v", err)
	}
	alone := newTestHost(t, "1", dir, "127.0.0.1:0", nil)
	alone.run(7, map[string]string{"1": alone.Addr()})
	propose(t, "a", alone)
	if err := alone.CheckCluster(alone.id.Cluster); err != nil {
		t.Fatal(err)
	}
	var wrong *formation.DirectoryError
	if err := alone.CheckCluster([16]byte{1}); !errors.As(err, &wrong) || wrong.What != "cluster" || !formation.Refused(err) {
		t.Fatalf("another cluster: %v", err)
	}
}

// Nobody but their owner can read what users stored, also where others may enter
// the data directory: no file or directory below it is open to them.
func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0)) // whatever the process allows
	h := newTestHost(t, "1", dir, "127.0.0.1:0", nil)
	h.run(7, map[string]string{"1": h.Addr()})
	propose(t, "secret", h)
	h.close()
	h = newTestHost(t, "1", dir, h.Addr(), nil) // which reuses and rewrites files
	h.run(7, nil)
	expectLog(t, h, "secret")
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path[len(dir):], info.Mode())
		}
		files++
		return err
	})
	if err != nil || files < 8 {
		t.Fatalf("saw %d files: %v", files, err)
	}
}
