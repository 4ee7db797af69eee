package raftgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// smallLog makes the log be cut early and short.
func smallLog(_ *node, o *Options) {
	o.SnapshotLogBytes, o.TrailingLogBytes, o.LogBytesMax = 4<<10, 1<<10, 2<<10
}

// fill proposes n commands of some hundred bytes, one entry each, on whoever
// leads.
func (n *node) fill(commands int) {
	n.c.t.Helper()
	for i := range commands {
		n.put("fill%d=%s", i, strings.Repeat("x", 200))
	}
}

// Claim: a follower that was away for longer than the log reaches back gets a
// snapshot, and its machine forgets what it had cached.
func TestInstallSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = smallLog
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		away := c.followers(leader)[0]
		away.isolate()
		leader.fill(100)
		c.eventually("cut of the log", func() bool {
			return leader.replica.Status().FirstIndex > away.replica.Status().LastIndex+1
		})
		away.rejoin()
		c.converge()
		if s := away.replica.Status(); s.Counters.Installed != 1 || away.machine.resets != 2 {
			t.Fatalf("%d snapshots were installed, the machine was reset %d times", s.Counters.Installed, away.machine.resets)
		}
		c.leader().put("b=1")
		c.converge()
		c.leader().put("c=1") // the count in the machine's cache is right
		c.converge()
		for i, n := range c.nodes {
			c.eventually("bounded log", func() bool {
				c.put("d%d=1", i)
				return n.replica.Status().LogBytes <= 8<<10
			})
		}
	})
}

// Claim: what an installed snapshot contradicts does not keep a replica from
// following, whether Raft is running when the snapshot comes or the replica
// crashes just after it was adopted.
func TestConflictBehindSnapshot(t *testing.T) {
	for _, unsafe := range []bool{false, true} {
		for _, crashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("keepConflict=%v,crashed=%v", unsafe, crashed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { conflictBehindSnapshot(t, unsafe, crashed) })
			})
		}
	}
}

// Claim: a replica that crashes when what a snapshot contradicts was cut off up to its
// index, and not behind it, follows by entries, also while nobody writes.
func TestCrashBehindSnapshot(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "keepConflict": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3)
				c.tune = smallLog
				c.startAll()
				defer c.stopAll()
				away, leader := conflict(c)
				away.start()
				c.eventually("snapshot", func() bool { return away.replica.Status().Counters.Installed == 1 })
				away.crash(0)
				at, err := readPosition(away.store)
				first, _ := away.log.FirstIndex()
				if err != nil || first != at.index+1 {
					t.Fatalf("the log begins at %d, the machine stands at %d: the test shows nothing (%v)", first, at.index, err)
				}
				c.tune = func(n *node, o *Options) {
					smallLog(n, o)
					o.unsafe.keepConflict = unsafe
				}
				sent := leader.replica.Status().Counters.SnapshotsSent
				away.start()
				if left := away.replica.Status().FirstIndex; left > 0 != unsafe {
					t.Fatalf("the log begins at %d, with what contradicts the machine", left)
				}
				time.Sleep(time.Minute) // virtual
				leader.put("b=1")
				c.converge()
				if sent = leader.replica.Status().Counters.SnapshotsSent - sent; sent > 0 != unsafe {
					t.Fatalf("%d snapshots were sent to a replica that had one", sent)
				}
			})
		})
	}
}

// Claim: a follower that has a snapshot and no log goes on by entries when the answer
// to its first ones is lost, whether it was started anew meanwhile or not.
func TestLostAnswerBehindSnapshot(t *testing.T) {
	for name, restarts := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lostAnswerBehindSnapshot(t, restarts) })
		})
	}
}

func lostAnswerBehindSnapshot(t *testing.T, restarts bool) {
	c := newCluster(t, 3)
	c.tune = smallLog
	c.startAll()
	defer c.stopAll()
	leader := c.leader()
	away, other := c.followers(leader)[0], c.followers(leader)[1]
	away.isolate()
	leader.fill(100)
	c.eventually("cut of the log", func() bool { return leader.replica.Status().FirstIndex > away.replica.Status().LastIndex+1 })
	away.rejoin()
	c.converge()
	if restarts {
		away.stop()
		away.start()
	}
	other.isolate() // what is committed now is answered by the one that was away
	if log := away.replica.Status().LogBytes; log > 0 {
		t.Fatalf("the log has %d bytes: the test shows nothing", log)
	}
	sent, lost := leader.replica.Status().Counters.SnapshotsSent, 0
	leader.transport.hook(func() {
		leader.transport.installing = func(io.Reader) io.Reader {
			return strings.NewReader("") // else nothing would end what this test guards against: it takes no time
		}
		leader.transport.answered = func(args *raft.AppendEntriesRequest) error {
			if len(args.Entries) > 0 && lost == 0 {
				lost++
				return errDisk
			}
			return nil
		}
	})
	leader.put("b=1")
	if n := leader.replica.Status().Counters.SnapshotsSent - sent; lost != 1 || n > 0 {
		t.Fatalf("%d answers were lost; %d snapshots were sent to a replica that had one", lost, n)
	}
}

func conflictBehindSnapshot(t *testing.T, unsafe, crashed bool) {
	c := newCluster(t, 3)
	c.tune = func(n *node, o *Options) {
		smallLog(n, o)
		o.unsafe.keepConflict = unsafe
	}
	c.startAll()
	defer c.stopAll()
	away, leader := conflict(c)
	if crashed {
		away.store = leader.store.Clone() // it was adopted, and the log is as before
		if err := away.log.SetUint64([]byte("CurrentTerm"), leader.replica.Status().Term); err != nil {
			t.Fatal(err)
		}
	}
	away.start()
	for i := range 5 {
		leader.put("b=%d", i)
		time.Sleep(2 * time.Second) // virtual
	}
	// Following means by entries, not by one snapshot after another.
	follows := valueOf(away.store, "b") == "4" && away.replica.Status().Counters.Installed <= 1
	if follows == unsafe {
		t.Fatalf("the replica follows: %v, want %v; %+v", follows, !unsafe, away.replica.Status())
	}
	if valueOf(away.store, "never") != "absent" {
		t.Fatal("an entry was applied that was never committed")
	}
}

// conflict stops a replica whose log has many entries that were never committed,
// and has the log of a later leader cut behind where they begin.
func conflict(c *cluster) (away, leader *node) {
	t := c.t
	leader = c.leader()
	leader.put("a=1")
	c.converge()
	away = c.followers(leader)[0]
	status := away.replica.Status()
	away.stop()
	// An earlier leader had sent it entries that were never committed.
	e := entry.Entry{Clock: 1, Commands: []entry.Command{set("never=1")}}
	for i := range uint64(300) {
		err := away.log.StoreLog(&raft.Log{Index: status.LastIndex + 1 + i, Term: status.Term, Type: raft.LogCommand, Data: e.Append(nil)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.followers(leader) {
		if n != away {
			if err := leader.replica.Transfer(within(t, 10*time.Second), n.member.Label); err != nil {
				t.Fatal(err)
			}
		}
	}
	leader = c.leaderOtherThan(leader)
	leader.fill(100)
	c.eventually("cut of the log", func() bool { return leader.replica.Status().FirstIndex > status.LastIndex+1 })
	return away, leader
}

// freeze opens n's present state as Raft and the transport would.
func (n *node) freeze(to raft.ServerID) (*raft.SnapshotMeta, io.ReadCloser) {
	n.c.t.Helper()
	meta, rc, err := n.replica.snapshots.Open(liveID)
	if err != nil {
		n.c.t.Fatal(err)
	}
	var req raft.InstallSnapshotRequest
	if err := rc.(*liveReader).Freeze(to, &req); err != nil {
		n.c.t.Fatal(err)
	}
	if req.LastLogIndex != meta.Index || req.LastLogTerm != meta.Term || req.Size != meta.Size {
		n.c.t.Fatalf("the request says %+v, raft is told %+v", req, meta)
	}
	return meta, rc
}

// take returns the stream of n's present state.
func (n *node) take() (*raft.SnapshotMeta, []byte) {
	n.c.t.Helper()
	meta, rc := n.freeze("receiver")
	b, err := io.ReadAll(rc)
	if err != nil {
		n.c.t.Fatal(err)
	}
	rc.Close()
	if int64(len(b)) != meta.Size {
		n.c.t.Fatalf("a snapshot of %d bytes was announced with %d", len(b), meta.Size)
	}
	return meta, b
}

// give hands a stream to n as Raft would.
func (n *node) give(meta *raft.SnapshotMeta, stream []byte) error {
	s := n.replica.snapshots
	sink, err := s.Create(1, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, bytes.NewReader(stream)); err != nil {
		sink.Cancel()
		return err
	}
	if err := sink.Close(); err != nil {
		return err
	}
	_, rc, err := s.Open(sink.ID())
	if err != nil {
		return err
	}
	defer rc.Close()
	return n.replica.fsm.Restore(rc)
}

// Claim: a snapshot that is not newer changes nothing, a damaged one is refused
// before it touches anything, and a newer one replaces the whole state.
func TestRefusedSnapshots(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "adoptOlder": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				c.tune = func(_ *node, o *Options) { o.unsafe.adoptOlder = unsafe }
				c.startAll()
				defer c.stopAll()
				n := c.leader()
				n.put("a=old")
				n.replica.recordLabels(t.Context())
				older, olderStream := n.take()
				n.put("a=new")
				same, sameStream := n.take()
				sum := n.store.Hash()
				if err := n.give(same, sameStream); err != nil {
					t.Fatalf("the state it has: %v", err)
				}
				bad := bytes.Clone(sameStream)
				for _, at := range []int{0, 20, len(bad) / 2, len(bad) - 1} {
					bad[at] ^= 1
					if err := n.give(same, bad); err == nil {
						t.Fatalf("a stream with a flipped bit at %d was accepted", at)
					}
					bad[at] ^= 1
				}
				if n.give(same, bad[:len(bad)-1]) == nil || n.give(same, append(bad, 0)) == nil || n.give(older, sameStream) == nil {
					t.Fatal("a stream of a wrong length, or of another index, was accepted")
				}
				if n.store.Hash() != sum {
					t.Fatal("a refused snapshot changed the state")
				}
				err := n.give(older, olderStream)
				if adopted := valueOf(n.store, "a") == "old"; adopted != unsafe || (err == nil) != unsafe {
					t.Fatalf("an older snapshot was adopted: %v (%v), want %v", adopted, err, unsafe)
				}
				if open := len(n.replica.snapshots.mu.received); open != 0 {
					t.Fatalf("%d snapshots are left over", open)
				}
			})
		})
	}
}

// Claim: the log is cut only behind what the store can't lose any more, so that
// a loss of power at any moment loses nothing; and a replica whose log begins
// above its machine refuses to start.
func TestPowerLossAfterCut(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "compactFirst": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				c.tune = func(n *node, o *Options) {
					smallLog(n, o)
					o.unsafe.compactFirst = unsafe
				}
				c.startAll()
				defer c.stopAll()
				n := c.leader()
				n.fill(200)
				c.eventually("cut of the log", func() bool { return n.replica.Status().FirstIndex > 50 })
				n.crash(0)
				err := n.open()
				if unsafe {
					if err == nil || !strings.Contains(err.Error(), "are missing") {
						t.Fatalf("open with a gap between machine and log: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatalf("open after the loss of power: %v", err)
				}
				c.leader()
				for i := range 200 {
					if key := fmt.Sprintf("fill%d", i); valueOf(n.store, key) == "absent" {
						t.Fatalf("%s is lost", key)
					}
				}
			})
		})
	}
}

// Claim: whatever prefix of its batches a store keeps in a loss of power, the
// log brings it to the same state.
func TestReplayAfterPowerLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		n := c.leader()
		n.fill(20)
		n.stop()
		lost, last := n.store.Unsynced(), valueOf(n.store, "fill19")
		if lost < 20 {
			t.Fatalf("%d batches are not durable, the test needs 20", lost)
		}
		before, log := n.store, n.log
		for keep := 0; keep <= lost; keep += 3 {
			n.store, n.log = before.Crash(keep), log
			n.start()
			c.leader()
			count, _, err := n.store.Get(keyCount)
			if err != nil || len(count) != 8 || count[7] != 20 || valueOf(n.store, "fill19") != last {
				t.Fatalf("with %d batches kept: count %x, %v", keep, count, err)
			}
			n.stop()
		}
		c.stopAll()
	})
}

// Claim: Raft does not cut the log for a store that a snapshot has replaced
// meanwhile.
func TestPersistOfReplacedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		point, err := n.replica.fsm.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		n.replica.fsm.mu.Lock()
		n.replica.fsm.mu.generation++
		n.replica.fsm.mu.Unlock()
		sink, _ := n.replica.snapshots.Create(1, 1, 1, raft.Configuration{}, 1, nil)
		if err := point.Persist(sink); !errors.Is(err, errStoreSwapped) {
			t.Fatal(err)
		}
		point.Release()
		n.put("a=1") // nothing is locked
	})
}

// Claim: an unfinished transfer leaves nothing behind, on either side.
func TestCancelledTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = smallLog
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		away := c.followers(leader)[0]
		away.isolate()
		leader.fill(100)
		c.eventually("cut of the log", func() bool {
			return leader.replica.Status().FirstIndex > away.replica.Status().LastIndex+1
		})
		cut := 0
		leader.transport.hook(func() {
			leader.transport.installing = func(data io.Reader) io.Reader {
				if cut++; cut <= 2 {
					return io.LimitReader(data, int64(1000*cut))
				}
				return data
			}
		})
		away.rejoin()
		c.converge()
		if cut < 3 || away.replica.Status().Counters.Installed != 1 {
			t.Fatalf("%d transfers, %d installed", cut, away.replica.Status().Counters.Installed)
		}
	})
}

// Claim: an entry that the state has is not applied again, should Raft replay it.
func TestReplayedEntryIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		leader := c.leader()
		leader.put("x=old")
		var old raft.Log
		if err := leader.log.GetLog(leader.replica.Status().AppliedIndex, &old); err != nil {
			t.Fatal(err)
		}
		leader.put("x=new")
		synctest.Wait() // nothing else is being applied
		before := leader.replica.Status().AppliedIndex
		leader.replica.fsm.ApplyBatch([]*raft.Log{&old})
		if got, at := valueOf(leader.store, "x"), leader.replica.Status().AppliedIndex; got != "new" || at != before {
			t.Errorf("after a replay x=%s at %d, want new at %d", got, at, before)
		}
	})
}
