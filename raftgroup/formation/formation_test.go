package formation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// TestFormInAnyOrder: whatever the order in which three replicas start, they
// form one group, and only when all three are there; a restart changes nothing.
func TestFormInAnyOrder(t *testing.T) {
	for _, order := range [][]string{{"1", "2", "3"}, {"3", "2", "1"}, {"2", "3", "1"}, {"2", "1", "3"}} {
		t.Run(strings.Join(order, ""), func(t *testing.T) {
			t.Parallel()
			g := newTestGroup(t, 7, "1", "2", "3")
			d := dirs(t, g.labels...)
			nodes := map[string]*node{}
			for _, label := range order[:2] {
				nodes[label] = g.start(g.options(label, d[label]), nil)
			}
			asked := nodes[order[0]].former
			eventually(t, "the first two see each other", func() bool {
				return len(asked.ask(context.Background()).replies) == 1
			})
			for _, n := range nodes {
				if _, formed := n.former.Identity(); formed {
					t.Fatal("formed with one replica missing")
				}
			}
			nodes[order[2]] = g.start(g.options(order[2], d[order[2]]), nil)
			id := expectGroup(t, nodes["1"], nodes["2"], nodes["3"])
			if id.Group != 7 || id.ShardCount != 64 || id.Cluster != (shardcfg.ClusterID{1, 2, 3}) || len(id.Founders) != 3 {
				t.Fatalf("formed %+v", id)
			}
			for _, n := range nodes {
				n.stop()
			}
			o := g.options("2", d["2"])
			o.Cluster = nil
			o.Peers = nil
			again, err := g.start(o, nil).wait()
			if err != nil || !again.sameGroup(&id) || again.Label != "2" {
				t.Fatalf("after a restart: %+v, %v", again, err)
			}
		})
	}
}

// TestCrashAnywhere: whichever replica crashes at whichever step, once all are
// back there is one group; whoever was formed before keeps that identity. The
// proposer is also lost with its disk, at every step.
func TestCrashAnywhere(t *testing.T) {
	for _, wiped := range []bool{false, true} {
		for _, victim := range []string{"1", "2"} {
			for at := 0; ; at++ {
				reached := crashAt(t, victim, at, wiped)
				if !reached {
					if at < 8 {
						t.Fatalf("only %d steps were seen", at)
					}
					break
				}
			}
		}
	}
}

// crashAt lets the victim crash at its step of that number, brings it back, and
// checks the outcome. It reports false if there are fewer steps.
func crashAt(t *testing.T, victim string, at int, wiped bool) bool {
	name := fmt.Sprintf("%s/%d/wiped=%v", victim, at, wiped)
	g := newTestGroup(t, 7, "1", "2", "3")
	d := dirs(t, g.labels...)
	var count atomic.Int64
	var where atomic.Value
	crash := func(s step) bool {
		if count.Add(1)-1 == int64(at) {
			where.Store(s)
			return true
		}
		return false
	}
	nodes := map[string]*node{}
	for _, label := range g.labels {
		if label != victim {
			nodes[label] = g.start(g.options(label, d[label]), nil)
		}
	}
	nodes[victim] = g.start(g.options(victim, d[victim]), crash)
	select {
	case <-nodes[victim].crashed:
	case f := <-nodes[victim].result:
		nodes[victim].result <- f
		if !errors.Is(f.err, errCrash) {
			expectGroup(t, nodes["1"], nodes["2"], nodes["3"])
			return false
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: neither crashed nor formed", name)
	}
	nodes[victim].stop()
	formedBefore := map[string]Identity{}
	for label, n := range nodes {
		if label != victim {
			if id, ok := n.former.Identity(); ok {
				formedBefore[label] = id
			}
		}
	}
	if wiped {
		d[victim] = t.TempDir()
	}
	nodes[victim] = g.start(g.options(victim, d[victim]), nil)
	id, err := nodes[victim].wait()
	if wiped {
		var refused *WipedError
		if errors.As(err, &refused) {
			for label, n := range nodes {
				if label == victim {
					continue
				}
				if other, ok := n.former.Identity(); ok && other.Incarnation != refused.Incarnation {
					t.Fatalf("%s (%v): refused for %s, but %q is formed with %s", name, where.Load(), refused.Incarnation, label, other.Incarnation)
				}
			}
			return true
		}
		if len(formedBefore) > 0 {
			t.Fatalf("%s (%v): a wiped replica was let in: %+v, %v", name, where.Load(), id, err)
		}
	}
	if err != nil {
		t.Fatalf("%s (%v): %v", name, where.Load(), err)
	}
	id = expectGroup(t, nodes["1"], nodes["2"], nodes["3"])
	for label, before := range formedBefore {
		if !before.sameGroup(&id) {
			t.Fatalf("%s (%v): %q was formed with %s, then with %s", name, where.Load(), label, before.Incarnation, id.Incarnation)
		}
	}
	for _, n := range nodes {
		n.stop()
	}
	return true
}

// Claim: what a wiped proposer had sent, and a peer prepares only after the next one
// has chosen the same ballot, does not keep the group from forming.
func TestLateCallOfWipedProposer(t *testing.T) {
	g := newTestGroup(t, 7, "1", "2", "3")
	d := dirs(t, g.labels...)
	second, third := g.start(g.options("2", d["2"]), nil), g.start(g.options("3", d["3"]), nil)
	late := testIdentity(g, map[string]string{"2": second.former.ServerID(), "3": third.former.ServerID()})
	var once sync.Once
	var err error
	first := g.start(g.options("1", d["1"]), func(s step) bool {
		if s.Name == "call" {
			once.Do(func() {
				_, err = second.former.Found(t.Context(), &raftpb.FoundRequest{
					Identity: late.Proto(), Label: "2", ServerId: second.former.ServerID(), Ballot: 1, Proposer: "1"})
			})
		}
		return false
	})
	id := expectGroup(t, first, second, third)
	if err != nil || id.Incarnation == late.Incarnation {
		t.Errorf("the late call: %v; formed %+v", err, id)
	}
}

// Claim: no group is formed that has a replica at another address than the replica
// itself, such as another name of the same machine: it would be refused at once, for
// good. The group forms when they agree.
func TestPeersAgreeOnAddresses(t *testing.T) {
	g := newTestGroup(t, 7, "1", "2", "3")
	d := dirs(t, g.labels...)
	second, third := g.start(g.options("2", d["2"]), nil), g.start(g.options("3", d["3"]), nil)
	const alias = "alias-2:1"
	g.mu.Lock()
	g.addrs[alias] = g.addrs[hostName("2")]
	g.mu.Unlock()
	o := g.options("1", d["1"])
	o.Peers["2"] = alias
	first := g.start(o, nil)
	eventually(t, "the third has prepared, or the group is formed", func() bool {
		_, formed := first.former.Identity()
		return formed || third.former.rec.Load().Phase != phaseEmpty
	})
	if _, err := second.former.Found(t.Context(), &raftpb.FoundRequest{
		Identity: third.former.rec.Load().Identity.Proto(), Label: "2", ServerId: second.former.ServerID(), Ballot: 9, Proposer: "1",
	}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), alias) {
		t.Errorf("a founder at another address: %v", err)
	}
	first.stop()
	if _, formed := first.former.Identity(); formed {
		t.Fatal("a group was formed that has a replica where it is not")
	}
	id := expectGroup(t, g.start(g.options("1", d["1"]), nil), second, third)
	if m, _ := id.founder("2"); m.Address != hostName("2") {
		t.Errorf("the group has it at %s", m.Address)
	}
}

// TestWiped: an empty disk never comes back under its label, and the error names
// the command that replaces the replica.
func TestWiped(t *testing.T) {
	for _, group := range []shardcfg.GroupID{0, 3} {
		g := newTestGroup(t, group, "1", "2", "3")
		d := dirs(t, g.labels...)
		var nodes []*node
		for _, label := range g.labels {
			nodes = append(nodes, g.start(g.options(label, d[label]), nil))
		}
		id := expectGroup(t, nodes...)
		for i, label := range g.labels[:2] {
			nodes[i].stop()
			_, err := g.start(g.options(label, t.TempDir()), nil).wait()
			var wiped *WipedError
			if !errors.As(err, &wiped) || !Refused(err) || wiped.Incarnation != id.Incarnation {
				t.Fatalf("a wiped replica: %v", err)
			}
			command := fmt.Sprintf("shoal replicas %s replace %s %s", groupName(group), label, hostName(label))
			if !strings.Contains(err.Error(), command) {
				t.Fatalf("%q does not name %q", err, command)
			}
		}
	}
}

// TestOldIdentityIsRefused: a disk that was wiped while its group was being
// formed can't be given the name that the old disk had.
func TestOldIdentityIsRefused(t *testing.T) {
	g := newTestGroup(t, 7, "1", "2", "3")
	old := g.start(g.options("2", t.TempDir()), nil)
	oldID := old.former.ServerID()
	old.stop()
	fresh := g.start(g.options("2", t.TempDir()), nil)
	if fresh.former.ServerID() == oldID {
		t.Fatal("two disks have drawn the same name")
	}
	id := testIdentity(g, map[string]string{"2": oldID})
	for _, serverID := range []string{oldID, fresh.former.ServerID()} {
		_, err := fresh.former.Found(context.Background(), &raftpb.FoundRequest{
			Identity: id.Proto(), Label: "2", ServerId: serverID, Ballot: 1, Proposer: "1"})
		if c := status.Code(err); c != codes.FailedPrecondition && c != codes.InvalidArgument {
			t.Fatalf("an identity of another disk: %v", err)
		}
	}
}

// testIdentity makes an identity of the group with the given ServerIDs, and
// arbitrary ones for the others.
func testIdentity(g *testGroup, serverIDs map[string]string) Identity {
	id := Identity{Format: format, Cluster: shardcfg.ClusterID{9}, Group: g.group, Incarnation: shardcfg.Incarnation{8}, ShardCount: 64, LogStore: "bolt"}
	for _, label := range g.labels {
		serverID := serverIDs[label]
		if serverID == "" {
			serverID = label + "." + strings.Repeat("0f", serverIDBytes)
		}
		id.Founders = append(id.Founders, Member{Label: label, ServerID: serverID, Address: hostName(label)})
	}
	return id
}

// TestBallots: a prepared replica takes a higher ballot, the same once more, and
// nothing lower and nothing else; a formed one takes nothing.
func TestBallots(t *testing.T) {
	g := newTestGroup(t, 7, "1", "2", "3")
	f := g.start(g.options("2", t.TempDir()), nil).former
	first := testIdentity(g, map[string]string{"2": f.ServerID()})
	second := first
	second.Incarnation[3] = 1
	found := func(id Identity, ballot uint64) error {
		_, err := f.Found(context.Background(), &raftpb.FoundRequest{
			Identity: id.Proto(), Label: "2", ServerId: f.ServerID(), Ballot: ballot, Proposer: "1"})
		return err
	}
	for i, c := range []struct {
		id     Identity
		ballot uint64
		ok     bool
	}{
		{first, 0, false}, {first, 2, true}, {first, 2, true}, {second, 2, false}, {second, 1, false},
		{second, 3, true}, {first, 2, false}, {first, 3, false},
	} {
		if err := found(c.id, c.ballot); (err == nil) != c.ok {
			t.Fatalf("%d: ballot %d: %v", i, c.ballot, err)
		}
	}
	if done, err := f.commit(context.Background(), first.Incarnation, 2); done || err != nil {
		t.Fatalf("committed what was superseded: %v, %v", done, err)
	}
	if done, err := f.commit(context.Background(), second.Incarnation, 3); !done || err != nil {
		t.Fatalf("not committed: %v, %v", done, err)
	}
	if err := found(first, 4); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("a formed replica took another identity: %v", err)
	}
	if err := found(second, 1); err != nil {
		t.Fatalf("its own identity again: %v", err)
	}
}

// TestAdded: a replica without peers waits until it is given an identity, takes
// none with founders, and keeps the one it got.
func TestAdded(t *testing.T) {
	g := newTestGroup(t, 7, "1", "2", "3")
	dir := t.TempDir()
	o := g.options("9", dir)
	o.Peers = nil
	n := g.start(o, nil)
	id := testIdentity(g, nil)
	found := func(id Identity) error {
		_, err := n.former.Found(context.Background(), &raftpb.FoundRequest{
			Identity: id.Proto(), Label: "9", ServerId: n.former.ServerID(), Ballot: 1, Proposer: "1"})
		return err
	}
	if err := found(id); err == nil {
		t.Fatal("it took an identity that does not list it")
	}
	if _, ok := n.former.Identity(); ok {
		t.Fatal("formed before it was added")
	}
	id.Founders = nil
	otherDisk := "9." + strings.Repeat("0f", serverIDBytes)
	if _, err := n.former.Found(context.Background(), &raftpb.FoundRequest{
		Identity: id.Proto(), Label: "9", ServerId: otherDisk, Proposer: "1"}); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("an identity that was meant for another disk: %v", err)
	}
	if err := found(id); err != nil {
		t.Fatal(err)
	}
	got, err := n.wait()
	if err != nil || got.Incarnation != id.Incarnation || len(got.Founders) != 0 || got.Label != "9" {
		t.Fatalf("%+v, %v", got, err)
	}
	n.stop()
	if again, err := g.start(o, nil).wait(); err != nil || again.ServerID != got.ServerID || again.Incarnation != id.Incarnation {
		t.Fatalf("after a restart: %+v, %v", again, err)
	}
	withPeers := g.start(g.options("2", t.TempDir()), nil)
	_, err = withPeers.former.Found(context.Background(), &raftpb.FoundRequest{
		Identity: id.Proto(), Label: "2", ServerId: withPeers.former.ServerID(), Proposer: "1"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "--peers") {
		t.Fatalf("a replica with peers was added: %v", err)
	}
}

// TestControllersMintTheCluster: two groups of controllers are two clusters, and
// a group asks for its cluster until it is told, only the proposer.
func TestControllersMintTheCluster(t *testing.T) {
	clusters := map[shardcfg.ClusterID]bool{}
	for range 2 {
		g := newTestGroup(t, 0, "1", "2", "3")
		var nodes []*node
		for _, label := range g.labels {
			nodes = append(nodes, g.start(g.options(label, t.TempDir()), nil))
		}
		clusters[expectGroup(t, nodes...).Cluster] = true
	}
	if len(clusters) != 2 {
		t.Fatal("two clusters share a name")
	}
	g := newTestGroup(t, 5, "a", "b", "c")
	var nodes []*node
	var calls atomic.Int64
	for _, label := range g.labels {
		o := g.options(label, t.TempDir())
		o.Cluster = func(context.Context) (shardcfg.ClusterID, int, error) {
			if label != "a" {
				t.Errorf("%q asked the controllers, it is up to \"a\"", label)
			}
			if calls.Add(1) < 3 {
				return shardcfg.ClusterID{}, 0, errors.New("no controller answers")
			}
			return shardcfg.ClusterID{4}, 128, nil
		}
		nodes = append(nodes, g.start(o, nil))
	}
	if id := expectGroup(t, nodes...); id.Cluster != (shardcfg.ClusterID{4}) || id.ShardCount != 128 {
		t.Fatalf("formed %+v", id)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) // poll
	}
}
