package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// hasFailed reports whether the replica stopped for good, and why.
func (n *node) hasFailed() error {
	synctest.Wait()
	select {
	case err := <-n.fatal:
		return err
	default:
		return nil
	}
}

// Claim: any error of the disk, and any operation that outlasts the limit, stops
// the replica once and for good: it tells why, ends its waiters, and leaves the
// group to the others. Without that, Raft goes on.
func TestFailStop(t *testing.T) {
	hang := make(chan struct{})
	for _, tc := range []struct {
		name    string
		trusted bool
		damage  func(n *node)
		want    error // wrapped by what OnFatal gets; nil: any StallError
	}{
		{name: "append fails", want: errDisk, damage: func(n *node) {
			n.log.store = func([]*raft.Log) error { return errDisk }
		}},
		{name: "append fails, trusted", trusted: true, want: errDisk, damage: func(n *node) {
			n.log.store = func([]*raft.Log) error { return errDisk }
		}},
		{name: "append stalls", damage: func(n *node) {
			n.log.store = func([]*raft.Log) error { <-hang; return nil }
		}},
		{name: "append stalls, trusted", trusted: true, damage: func(n *node) {
			n.log.store = func([]*raft.Log) error { <-hang; return nil }
		}},
		{name: "apply stalls", damage: func(n *node) { // as it does in a read of the store
			n.machine.setGate(hang)
		}},
		{name: "commit of the store fails", want: errDisk, damage: func(n *node) {
			n.store.SetHook(func(op store.Op) error {
				if op == store.OpCommit {
					return errDisk
				}
				return nil
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang = make(chan struct{})
				c := newCluster(t, 3)
				c.tune = func(_ *node, o *Options) { o.unsafe.trustStorage = tc.trusted }
				c.startAll()
				defer c.stopAll()
				n := c.leader()
				n.log.hook(func() { tc.damage(n) })
				_, err := n.replica.Propose(within(t, 30*time.Second), set("a=1"))
				if !errors.Is(err, ErrOutcomeUnknown) {
					t.Errorf("the proposal: %v", err)
				}
				var stall *StallError
				fatal := n.hasFailed()
				if tc.trusted {
					if fatal != nil {
						t.Errorf("it stopped: %v", fatal)
					}
				} else {
					if stalled := errors.As(fatal, &stall); stalled != (tc.want == nil) || !stalled && !errors.Is(fatal, tc.want) {
						t.Errorf("OnFatal got %v", fatal)
					}
					if again := n.replica.Status().Failed; again != fatal {
						t.Errorf("status says %v", again)
					}
					if _, err := n.replica.Propose(t.Context(), set("b=1")); !errors.Is(err, ErrNotDone) || !errors.Is(err, fatal) {
						t.Errorf("a proposal to a replica that stopped: %v", err)
					}
					c.leaderOtherThan(n).put("c=1")
				}
				n.log.hook(func() { n.log.store = nil })
				n.store.SetHook(nil)
				n.machine.setGate(nil)
				close(hang)
				if n.hasFailed() != nil {
					t.Error("OnFatal was called twice")
				}
			})
		})
	}
}

// Claim: a term that can't be written stops the replica with its reason, not
// with a panic of Raft; nothing is stored or answered after that.
func TestFailingTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		f := c.followers(leader)
		f[0].log.hook(func() { f[0].log.term = func() error { return errDisk } })
		leader.isolate()
		f[1].isolate()
		f[0].rejoin()
		leader.isolate()
		c.eventually("stop of the follower", func() bool { return f[0].replica.Status().Failed != nil })
		if err := f[0].hasFailed(); !errors.Is(err, errDisk) {
			t.Fatalf("OnFatal got %v", err)
		}
		last, _ := f[0].log.LastIndex()
		if err := f[0].replica.guard.StoreLog(&raft.Log{Index: last + 1, Term: 9}); !errors.Is(err, errDisk) {
			t.Fatalf("an append after the stop: %v", err)
		}
		if now, _ := f[0].log.LastIndex(); now != last {
			t.Fatal("an entry was stored after the stop")
		}
		f[0].log.hook(func() { f[0].log.term = nil })
		leader.rejoin()
		c.leaderOtherThan(f[0]).put("b=1")
	})
}

// Claim: an entry that can't be read, a command that is not known, and an error
// of the machine stop the replica before anything of the batch is visible.
func TestUnknownEntriesStop(t *testing.T) {
	good := entry.Entry{Commands: []entry.Command{set("a=2")}}
	damaged := good.Append(nil)
	damaged[len(damaged)-6] ^= 1
	future := entry.Entry{Feature: entry.FeatureLevel + 1, Commands: good.Commands}
	ownUnknown := entry.Entry{Commands: []entry.Command{set("a=2"), {Kind: entry.KindMachineMin - 1}}}
	machineUnknown := entry.Entry{Commands: []entry.Command{set("a=2"), {Kind: kindFail}}}
	level := entry.Entry{Commands: []entry.Command{{Kind: entry.KindRaiseFeature, Body: []byte{entry.FeatureLevel + 1}}}}
	for name, data := range map[string][]byte{
		"damaged":                damaged,
		"of a later version":     future.Append(nil),
		"an unknown own command": ownUnknown.Append(nil),
		"an unknown command":     machineUnknown.Append(nil),
		"a later feature level":  level.Append(nil),
		"empty":                  nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startCluster(t, 1)
				n := c.leader()
				n.put("a=1")
				sum, at := n.store.Hash(), n.replica.Status().AppliedIndex
				n.replica.node().Apply(data, 0)
				if err := n.hasFailed(); err == nil {
					t.Fatal("it goes on")
				}
				if n.store.Hash() != sum || n.replica.Status().AppliedIndex != at {
					t.Fatal("a part of the entry was applied")
				}
				if err := n.replica.ReadBarrier(t.Context()); !errors.Is(err, ErrNotDone) {
					t.Fatalf("a read of a replica that stopped: %v", err)
				}
				c.stopAll()
			})
		})
	}
}

// Claim: a transfer of leadership that never ends does not keep a leader that
// rejects everything.
func TestStuckTransfer(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "noBounce": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3)
				c.tune = func(_ *node, o *Options) { o.unsafe.noBounce = unsafe }
				c.startAll()
				defer c.stopAll()
				leader := c.leader()
				leader.put("a=1")
				hang := make(chan struct{})
				for _, n := range c.nodes {
					n.transport.hook(func() { n.transport.timeoutNow = func() error { <-hang; return errors.New("lost") } })
				}
				if err := leader.replica.Transfer(within(t, 10*time.Second), ""); err == nil {
					t.Fatal("the transfer succeeded without a message")
				}
				_, err := leader.replica.Propose(within(t, time.Second), set("b=1"))
				if !errors.Is(err, ErrTransferring) || !errors.Is(err, ErrNotDone) {
					t.Fatalf("a proposal during the transfer: %v", err)
				}
				recovered := false
				for begin := time.Now(); time.Since(begin) < 30*time.Second && !recovered; time.Sleep(100 * time.Millisecond) { // poll
					for _, n := range c.nodes {
						_, err := n.replica.Propose(within(t, time.Second), set("b=1"))
						recovered = recovered || err == nil
					}
				}
				if recovered == unsafe {
					t.Fatalf("the group recovered: %v, want %v", recovered, !unsafe)
				}
				if bounces := leader.replica.Status().Counters.Bounces; (bounces == 1) == unsafe {
					t.Fatalf("%d bounces", bounces)
				}
				close(hang)
				if !unsafe {
					c.converge()
				}
			})
		})
	}
}

// Claim: Raft is restarted within one message's timeout, though every message of
// the old life hangs until its own. Raft sends the next one before it looks
// whether it should end, as often as not: ten restarts would take many timeouts.
func TestBounceUnderHangingPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		for range 10 {
			leader := c.leader()
			timeout := leader.replica.rpcTimeout()
			leader.transport.hook(func() {
				leader.transport.sending = func(*raft.AppendEntriesRequest) error {
					time.Sleep(timeout)
					return errors.New("timed out")
				}
			})
			leader.goPropose(set("b=1"))
			time.Sleep(100 * time.Millisecond) // load: messages are under way
			leader.goPropose(set("b=2"))       // and there is a next one
			time.Sleep(10 * time.Millisecond)  // load: which waits for its turn
			begin := time.Now()
			if err := leader.replica.bounce(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > timeout {
				t.Fatalf("raft was restarted after %v, messages hang for %v", took, timeout)
			}
			leader.transport.hook(func() { leader.transport.sending = nil })
			c.put("a=1")
		}
		c.converge()
	})
}

// Claim: a caller is not kept by a future that Raft lost.
func TestLostFuture(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "waitForFuture": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				c.tune = func(_ *node, o *Options) { o.unsafe.waitForFuture = unsafe }
				c.startAll()
				n := c.leader()
				gate := make(chan struct{})
				n.machine.setGate(gate)
				proposal := n.goPropose(set("a=1")) // committed, and stuck on its way through Raft
				if err := n.replica.Close(within(t, 5*time.Second)); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				synctest.Wait()
				if ended := len(proposal) == 1; ended == unsafe {
					t.Fatalf("the caller was answered: %v, want %v", ended, !unsafe)
				}
				close(gate)
				if got := <-proposal; !unsafe && !errors.Is(got.err, ErrOutcomeUnknown) {
					t.Fatal(got.err)
				}
				time.Sleep(time.Minute) // virtual
			})
		})
	}
}

// Claim: an entry that the log store has lost, in the middle of its log, stops
// the replica with the reason, not with a panic of Raft.
func TestLostEntryStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = func(_ *node, o *Options) { o.CacheBytesMax = 1 }
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		f := c.followers(leader)[0]
		f.log.hook(func() {
			f.log.store = func(logs []*raft.Log) error {
				// What was stored last is lost.
				last, err := f.log.InmemStore.LastIndex()
				if err == nil {
					err = f.log.InmemStore.DeleteRange(last, last)
				}
				return err
			}
		})
		c.eventually("stop of the follower", func() bool {
			leader.put("a=1") // tells that the last one is committed, too
			return f.replica.Status().Failed != nil
		})
		if err := f.hasFailed(); !errors.Is(err, errEntryLost) {
			t.Fatalf("OnFatal got %v", err)
		}
	})
}

// Claim: a replica that has failed leads no more, whatever Raft says on its way
// out.
func TestNoLeadershipAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		n.replica.fatal(errDisk)
		n.replica.gained(n.replica.node())
		if _, leads := n.replica.Leader(); leads || n.replica.Status().Role == RoleLeader {
			t.Fatal("it leads")
		}
	})
}

// Claim: a log that ends below the machine is thrown away only once the machine
// can't fall back behind it.
func TestStoreIsSyncedBeforeTheLogGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		n.fill(20)
		n.stop()
		last, err := n.log.LastIndex()
		if err != nil || n.store.Unsynced() == 0 {
			t.Fatalf("everything is durable already; %v", err)
		}
		if err := n.log.InmemStore.DeleteRange(last-3, last); err != nil {
			t.Fatal(err)
		}
		unsynced := -1
		n.log.hook(func() { n.log.cut = func() error { unsynced = n.store.Unsynced(); return nil } })
		n.start()
		if unsynced != 0 {
			t.Fatalf("the log went while %d batches were not durable", unsynced)
		}
	})
}

// Claim: a disk that is full, or a file that may not grow, stops the replica with
// a message that says so; nothing that was acknowledged is lost, and with more
// room it comes back.
func TestDiskFull(t *testing.T) {
	c := newCluster(t, 1)
	n := c.nodes[0]
	dir := t.TempDir()
	var log logstore.LogStore
	c.tune = func(_ *node, o *Options) {
		var err error
		if log, err = logstore.Open(logstore.KindBolt, dir, logstore.Options{}); err != nil {
			t.Fatal(err)
		}
		o.Log, o.Timeout = log, 100*time.Millisecond
	}
	n.start()
	c.leader()
	size, err := log.SizeBytes()
	if err != nil {
		t.Fatal(err)
	}
	limitFiles(t, uint64(size))
	acknowledged := 0
	for {
		_, err := n.replica.Propose(within(t, 30*time.Second), set("k%d=%s", acknowledged, make([]byte, 16<<10)))
		if err != nil {
			if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrNotDone) {
				t.Fatalf("the proposal: %v", err)
			}
			break
		}
		acknowledged++
	}
	select {
	case err := <-n.fatal:
		if text := err.Error(); !strings.Contains(text, "append to the log") || !strings.Contains(text, syscall.EFBIG.Error()) {
			t.Errorf("OnFatal got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the replica goes on")
	}
	reopen := func() {
		n.stop()
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	limitFiles(t, math.MaxInt64)
	n.store = n.store.Crash(0)
	n.start()
	c.leader()
	for i := range acknowledged {
		if valueOf(n.store, fmt.Sprintf("k%d", i)) == "absent" {
			t.Fatalf("k%d of %d is lost", i, acknowledged)
		}
	}
	n.put("more=1")
	reopen()
}

// limitFiles bounds the size of files that this process writes.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	before := limit
	limit.Cur = bytes
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before) })
}
