package raftgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// Claim: commands that arrive while the window is full share entries, within the
// bounds of count and bytes and in the order of the call, an oversized one
// travels alone, and each command gets its own result.
func TestPacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = func(_ *node, o *Options) { o.EntryBytesMax = 4 << 10 }
		c.startAll()
		defer c.stopAll()
		n := c.leader()
		stall := n.stallLog()
		first := n.goPropose(set("first=1"), set("first=2")) // one entry, in the disk
		second := n.goPropose(set("second=1"))               // the other place of the window
		var many []entry.Command
		for i := range 1000 {
			many = append(many, set("many=%d", i))
		}
		small := n.goPropose(many...)
		big := n.goPropose(
			set("big=%s", bytes.Repeat([]byte("x"), 5<<10)),
			set("after=1"))
		close(stall)
		seq := uint64(0)
		for _, call := range []chan outcome{first, second, small, big} {
			got := <-call
			if got.err != nil {
				t.Fatal(got.err)
			}
			for _, r := range got.results {
				if seq++; r != seq {
					t.Fatalf("result %v, want %d: commands were reordered", r, seq)
				}
			}
		}
		_, perEntry := n.machine.seen()
		if perEntry[0] != 2 || perEntry[1] != 1 {
			t.Fatalf("the first entries have %v commands", perEntry[:2])
		}
		bytesOfMany := len("many=999") + entry.CommandOverheadBytes
		for _, commands := range perEntry[2 : len(perEntry)-2] {
			if commands > entryCommandsMax || commands*(bytesOfMany-2) > 4<<10 {
				t.Fatalf("entries of %v commands", perEntry)
			}
		}
		if len(perEntry) > 2+6+2 {
			t.Fatalf("1000 commands in %d entries: %v", len(perEntry)-4, perEntry)
		}
		if last := perEntry[len(perEntry)-2:]; last[0] != 1 || last[1] != 1 {
			t.Fatalf("the oversized command did not travel alone: %v", perEntry)
		}
	})
}

type outcome struct {
	results []any
	err     error
}

// goPropose proposes in a goroutine, and returns when the commands are queued.
func (n *node) goPropose(commands ...entry.Command) chan outcome {
	out := make(chan outcome, 1)
	go func() {
		results, err := n.replica.ProposeAll(context.Background(), commands)
		out <- outcome{results, err}
	}()
	synctest.Wait()
	return out
}

// stallLog makes appends wait until the channel is closed.
func (n *node) stallLog() chan struct{} {
	stall := make(chan struct{})
	n.log.hook(func() { n.log.store = func([]*raft.Log) error { <-stall; return nil } })
	return stall
}

// Claim: budgets are in bytes and refuse before anything is queued; what a
// caller gives up is truly not done while it was queued, and unknown once it was
// on its way; the caller may reuse its buffers.
func TestBudgetsAndContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = func(_ *node, o *Options) { o.CommandBytesMax, o.QueueBytesMax = 1000, 3000 }
		c.startAll()
		defer c.stopAll()
		n := c.leader()
		if _, err := n.replica.Propose(t.Context(), set("k=%s", make([]byte, 1000))); err != ErrTooLarge || !errors.Is(err, ErrNotDone) {
			t.Fatalf("a command over the limit: %v", err)
		}
		stall := n.stallLog()
		inLog, inWindow := n.goPropose(set("a=1")), n.goPropose(set("b=1"))
		queued, more := n.goPropose(set("c=%s", make([]byte, 900))), n.goPropose(set("d=%s", make([]byte, 900)))
		if got := <-n.goPropose(set("e=%s", make([]byte, 900))); !errors.Is(got.err, ErrBusy) || got.results != nil {
			t.Fatalf("over the budget: %+v", got)
		}
		body := []byte("f=1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results, err := n.replica.ProposeAll(ctx, []entry.Command{{Kind: kindSet, Body: body}, {Kind: kindSet, Body: body}})
		if !errors.Is(err, ErrNotDone) || !errors.Is(err, context.DeadlineExceeded) || len(results) != 2 {
			t.Fatalf("a queued call whose context ended: %v", err)
		}
		copy(body, "???")
		var each *ProposalError
		if err, ok := results[1].(error); !ok || !errors.As(err, &each) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("its second command: %v", results[1])
		}
		close(stall)
		for _, call := range []chan outcome{inLog, inWindow, queued, more} {
			if got := <-call; got.err != nil {
				t.Fatal(got.err)
			}
		}
		if got := valueOf(n.store, "f"); got != "absent" {
			t.Fatalf("a proposal that was given up as not done is there: %s", got)
		}
		stall = n.stallLog()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.replica.Propose(ctx, set("g=1")); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a call in the log whose context ended: %v", err)
		}
		close(stall)
		c.eventually("the unknown one", func() bool { return valueOf(n.store, "g") == "1" })
		synctest.Wait()
		n.replica.packer.mu.Lock()
		defer n.replica.packer.mu.Unlock()
		if left := n.replica.packer.mu.bytes; left != [classCount]int{} {
			t.Fatalf("%d bytes of the budget are lost", left)
		}
	})
}

// Claim: no class of work is refused for what the others have queued: clients not
// for the copies of shards, nor the steps of a handoff for either.
func TestBudgetsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = func(_ *node, o *Options) { o.CommandBytesMax, o.QueueBytesMax = 8000, 8000 }
		c.startAll()
		defer c.stopAll()
		r := c.leader().replica
		stall := c.leader().stallLog()
		propose := func(class class, n int) chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := r.propose(t.Context(), []entry.Command{set("k=%s", make([]byte, n))}, class)
				ended <- err
			}()
			synctest.Wait()
			return ended
		}
		classes := []class{background, urgent, foreground}
		var admitted []chan error
		for _, class := range classes { // each takes all of its own room
			admitted = append(admitted, propose(class, 5000))
		}
		for i, class := range classes {
			if err := <-propose(class, 5000); !errors.Is(err, ErrBusy) {
				t.Errorf("class %d, over its budget: %v", class, err)
			}
			select {
			case err := <-admitted[i]:
				t.Errorf("class %d: %v, for what the others have queued", class, err)
			default:
			}
		}
		close(stall)
		for _, ended := range admitted {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// Claim: the pages of copies, which are large, do not count in what clients are told
// that they would have to wait.
func TestCopiesSetNoPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		pace := func() time.Duration {
			n.replica.packer.mu.Lock()
			defer n.replica.packer.mu.Unlock()
			return n.replica.packer.mu.pace.entry
		}
		before := pace()
		stall := n.stallLog()
		time.AfterFunc(time.Second, func() { close(stall) })
		if _, err := n.replica.ProposeBackground(t.Context(), []entry.Command{set("page=1")}); err != nil {
			t.Fatal(err)
		}
		if after := pace(); after != before {
			t.Errorf("a page that took a second changed the pace from %v to %v", before, after)
		}
		stall = n.stallLog()
		time.AfterFunc(time.Second, func() { close(stall) })
		if _, err := n.replica.Propose(t.Context(), set("k=1")); err != nil {
			t.Fatal(err)
		}
		if after := pace(); after <= before {
			t.Errorf("a write that took a second left the pace at %v", after)
		}
	})
}

// Claim: on loss of leadership, what was queued is not done and what was in
// flight is unknown, and both are told at once.
func TestWaitersEndWithLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		old := c.leader()
		old.isolate()
		var calls []chan outcome
		for i := range 4 {
			calls = append(calls, old.goPropose(set("k%d=1", i)))
		}
		begin := time.Now()
		var other *NotLeaderError
		for i, call := range calls {
			got := <-call
			switch {
			case i < window && !errors.Is(got.err, ErrOutcomeUnknown):
				t.Fatalf("proposal %d, in flight: %v", i, got.err)
			case i >= window && !errors.As(got.err, &other):
				t.Fatalf("proposal %d, queued: %v", i, got.err)
			}
		}
		if waited := time.Since(begin); waited > 3*time.Second {
			t.Fatalf("the callers waited %v", waited)
		}
		newer := c.leaderOtherThan(old)
		newer.put("new=1")
		old.rejoin()
		c.converge()
		for i := range calls {
			if got := valueOf(newer.store, fmt.Sprintf("k%d", i)); got != "absent" {
				t.Fatalf("k%d=%s", i, got)
			}
		}
	})
}

// Claim: Close ends every waiter, though Raft never answers a future again.
func TestCloseEndsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		n := c.leader()
		gate := make(chan struct{})
		n.machine.setGate(gate)
		proposal := n.goPropose(set("a=1"))
		read := make(chan error, 1)
		go func() { read <- n.replica.ReadBarrier(context.Background()) }()
		loops := make(chan error, 1)
		n.replica.WhileLeader("wait", func(ctx context.Context) { <-ctx.Done(); loops <- ctx.Err() })
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- n.replica.Close(within(t, 5*time.Second)) }()
		<-loops
		if err := <-read; !errors.Is(err, ErrNotDone) {
			t.Fatalf("the read: %v", err)
		}
		got := <-proposal
		if !errors.Is(got.err, ErrOutcomeUnknown) || !errors.Is(got.err, ErrClosed) {
			t.Fatalf("the proposal in flight: %v", got.err)
		}
		if err := <-closed; !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Close, with a machine that hangs: %v", err)
		}
		if _, err := n.replica.Propose(t.Context(), set("b=1")); !errors.Is(err, ErrClosed) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("a proposal after Close: %v", err)
		}
		if err := n.replica.ReadBarrier(t.Context()); !errors.Is(err, ErrNotDone) {
			t.Fatalf("a read after Close: %v", err)
		}
		close(gate)
		time.Sleep(time.Minute) // virtual
	})
}

// Claim: entry clocks never run backwards in a log, though the next leader's
// clock is hours behind.
func TestEntryClock(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "rawClock": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3)
				c.tune = func(n *node, o *Options) {
					behind := time.Duration(n.member.Label[1]-'0') * time.Hour
					o.Clock = func() time.Time { return time.Now().Add(-behind) }
					o.unsafe.rawClock = unsafe
				}
				c.startAll()
				defer c.stopAll()
				for range 4 {
					leader := c.put("k=1")
					if err := leader.replica.Transfer(within(t, 10*time.Second), ""); err != nil {
						t.Fatal(err)
					}
					c.leaderOtherThan(leader)
				}
				c.put("k=2")
				c.converge()
				backwards := false
				for _, n := range c.nodes {
					clocks, _ := n.machine.seen()
					for i := 1; i < len(clocks); i++ {
						backwards = backwards || clocks[i] < clocks[i-1]
					}
				}
				if backwards != unsafe {
					t.Fatalf("clocks ran backwards: %v, want %v", backwards, unsafe)
				}
			})
		})
	}
}

// Claim: a caller gets its buffers back only when they are not read any more,
// though the replica stops while its command is being encoded.
func TestBodiesAreReadBeforeTheCallerIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		var gate atomic.Pointer[chan struct{}]
		c.tune = func(_ *node, o *Options) {
			o.Clock = func() time.Time {
				if g := gate.Load(); g != nil {
					<-*g
				}
				return time.Now()
			}
		}
		c.startAll()
		defer c.stopAll()
		n := c.leader()
		encode := make(chan struct{})
		gate.Store(&encode)
		proposal := n.goPropose(set("a=1"))
		go n.replica.fatal(errDisk)
		synctest.Wait()
		if len(proposal) != 0 {
			t.Error("the caller was answered before its command was encoded")
		}
		close(encode)
		if got := <-proposal; !errors.Is(got.err, ErrNotDone) && !errors.Is(got.err, ErrOutcomeUnknown) {
			t.Fatal(got.err)
		}
	})
}

// Claim: the budget of the queue counts what a queued command takes in memory,
// not its body alone, which may be a byte.
func TestBudgetCountsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = func(_ *node, o *Options) { o.QueueBytesMax = 64 << 10 }
		c.startAll()
		defer c.stopAll()
		n := c.leader()
		stall := n.stallLog()
		var calls []chan outcome
		for range 64 {
			calls = append(calls, n.goPropose(slices.Repeat([]entry.Command{set("a=")}, 64)...))
		}
		refused := 0
		close(stall)
		for _, call := range calls {
			if got := <-call; errors.Is(got.err, ErrBusy) {
				refused++
			}
		}
		if refused < 32 {
			t.Fatalf("4096 commands entered a queue of 64 KiB, but for %d", refused*64)
		}
	})
}
