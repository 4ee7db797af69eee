package raftgroup

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// Claim: a submission goes on without anyone who waits; withdrawn, what was queued
// is not done, and what was on its way ends as it ends.
func TestWithdrawnSubmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.startAll()
		defer c.stopAll()
		n := c.leader()
		stall := n.stallLog()
		submit := func(commands ...entry.Command) *Submission {
			t.Helper()
			s, err := n.replica.Submit(commands)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return s
		}
		inLog, inWindow, queued := submit(set("a=1")), submit(set("b=1")), submit(set("c=1"))
		reason := errors.New("nobody waits")
		for _, s := range []*Submission{inLog, inWindow, queued} {
			s.Withdraw(reason)
		}
		<-queued.Done()
		if err, ok := queued.Results()[0].(*ProposalError); !ok || !errors.Is(err, ErrNotDone) || !errors.Is(err, reason) {
			t.Errorf("the queued command: %v, want not done for the reason given", queued.Results())
		}
		if got := inLog.Results(); got[0] != nil {
			t.Errorf("the command on its way: %v, want no result yet", got)
		}
		close(stall)
		<-inLog.Done()
		<-inWindow.Done()
		if a, b := inLog.Results()[0], inWindow.Results()[0]; a != uint64(1) || b != uint64(2) {
			t.Errorf("the commands on their way: %v and %v", a, b)
		}
		if got := valueOf(n.store, "c"); got != "absent" {
			t.Errorf("the withdrawn command was applied: c=%s", got)
		}
	})
}

// Claim: to withdraw a submission costs what it is, not what else is queued: nobody
// else's command is looked at, whether its caller withdraws it or has given up.
func TestWithdrawalLooksAtNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		p := n.replica.packer
		stall := n.stallLog()
		calls := []chan outcome{n.goPropose(set("a=1")), n.goPropose(set("b=1"))} // the window is full
		ctx, giveUp := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() {
			_, err := n.replica.ProposeAll(ctx, []entry.Command{set("gone=1"), set("gone=2")})
			given <- err
		}()
		synctest.Wait()
		calls = append(calls, n.goPropose(set("c=1"), set("d=1"), set("e=1"), set("f=1")))
		s, err := n.replica.Submit([]entry.Command{set("gone=3"), set("gone=4")})
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, n.goPropose(set("g=1")))

		// Who looks at another's command panics.
		p.mu.Lock()
		others := slices.Clone(p.mu.queue.foreground.list)
		for i, q := range others {
			if !strings.HasPrefix(string(q.command.Body), "gone") {
				p.mu.queue.foreground.list[i] = nil
			}
		}
		p.mu.Unlock()
		s.Withdraw(errDisk)
		giveUp()
		if err := <-given; !errors.Is(err, ErrNotDone) {
			t.Errorf("given up: %v", err)
		}
		if _, ok := <-s.Done(); ok || !errors.Is(s.Results()[1].(error), ErrNotDone) {
			t.Errorf("withdrawn: %v", s.Results())
		}
		p.mu.Lock()
		copy(p.mu.queue.foreground.list, others)
		p.mu.Unlock()

		close(stall)
		for i, call := range calls {
			if got := <-call; got.err != nil {
				t.Errorf("call %d: %v", i, got.err)
			}
		}
		if got := valueOf(n.store, "gone"); got != "absent" {
			t.Errorf("what was withdrawn was applied: %s", got)
		}
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.mu.bytes != [classCount]int{} || p.mu.pace.small != 0 || p.mu.pace.smallBytes != 0 {
			t.Errorf("still counted: %v bytes, %+v", p.mu.bytes, p.mu.pace)
		}
	})
}

// A load offers commands at a rate, whatever becomes of them, each with some seconds
// for its result.
type load struct {
	n    *node
	wait sync.WaitGroup
	mu   sync.Mutex
	done int // in time
}

func (l *load) offer(perSecond int, length time.Duration) (perSecondDone float64) {
	command := []entry.Command{set("k=%s", bytes.Repeat([]byte("v"), 200))}
	l.done = 0
	gap := time.Second / time.Duration(perSecond)
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(gap) { // load
		s, err := l.n.replica.Submit(command)
		if err != nil {
			continue
		}
		l.wait.Go(func() {
			timer := time.NewTimer(5 * time.Second)
			defer timer.Stop()
			select {
			case <-s.Done():
				l.mu.Lock()
				l.done++
				l.mu.Unlock()
			case <-timer.C:
				s.Withdraw(context.DeadlineExceeded)
			}
		})
	}
	l.wait.Wait()
	return float64(l.done) / length.Seconds()
}

// Claim: where an entry takes 50 ms, and where it takes 600, as many commands are done
// in time under 4 and 16 times the load that a group can take as under the best
// load; and when the overload ends, everything is done in time at once.
func TestGoodputUnderOverload(t *testing.T) {
	for _, commit := range []time.Duration{50 * time.Millisecond, 600 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 1)
			c.tune = func(_ *node, o *Options) { o.EntryBytesMax = 4 << 10 }
			c.startAll()
			defer c.stopAll()
			l := &load{n: c.leader()}
			l.n.log.hook(func() {
				l.n.log.store = func(entries []*raft.Log) error {
					time.Sleep(commit * time.Duration(len(entries))) // virtual
					return nil
				}
			})
			const length = 40 * time.Second
			capacity := int(l.offer(4<<10/200*int(time.Second/commit+1), length))
			peak := 0.0
			for _, times := range []int{1, 2, 4, 16} {
				got := l.offer(times*capacity, length)
				t.Logf("commits of %v: %d times %d/s: %.0f/s in time", commit, times, capacity, got)
				if peak = max(peak, got); got < 0.9*peak {
					t.Fatalf("commits of %v: at %d times the capacity %.0f/s are done in time, the peak is %.0f/s", commit, times, got, peak)
				}
			}
			if got, want := l.offer(capacity/2, length), float64(capacity/2); got < 0.98*want {
				t.Errorf("commits of %v: after the overload %.0f/s of %.0f are done in time", commit, got, want)
			}
		})
	}
}
