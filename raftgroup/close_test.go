package raftgroup

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// closeWithin closes n in a goroutine of its own, with a context of ten seconds,
// and fails the test if Close outlasts it.
func (n *node) closeWithin() error {
	n.c.t.Helper()
	closed := make(chan error, 1)
	go func() { closed <- n.replica.Close(within(n.c.t, 10*time.Second)) }()
	select {
	case err := <-closed:
		return err
	case <-time.After(20 * time.Second):
		n.c.t.Error("Close outlasts its context")
		return nil
	}
}

// Claim: Close ends with its context, whoever hangs: the machine while the log
// is being cut, the disk that it is cut on, or a leader's loop. It says
// that the replica may still be at work.
func TestCloseEndsWithItsContext(t *testing.T) {
	for name, hang := range map[string]func(n *node, release chan struct{}){
		"machine": func(n *node, release chan struct{}) {
			n.machine.setGate(release)
			n.goPropose(set("a=1"))
			poke(n.replica.compact)
		},
		"disk": func(n *node, release chan struct{}) {
			n.fill(20)
			n.log.hook(func() { n.log.cut = func() error { <-release; return nil } })
			poke(n.replica.compact)
		},
		"loop": func(n *node, release chan struct{}) {
			n.replica.WhileLeader("deaf", func(context.Context) { <-release })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				c.tune = func(_ *node, o *Options) { o.TrailingLogBytes, o.StallLimit = 1, 5*time.Second }
				c.startAll()
				n := c.leader()
				release := make(chan struct{})
				hang(n, release)
				synctest.Wait()
				if err := n.closeWithin(); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Close of a replica that hangs: %v", err)
				}
				close(release)
				time.Sleep(time.Minute) // virtual: what was left standing ends
			})
		})
	}
}

// Claim: a restart of Raft that failed half-way stops the replica, and Close
// still works.
func TestCloseAfterFailedRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		n := c.leader()
		n.put("a=1")
		n.log.hook(func() { n.log.cut = func() error { return errDisk } })
		// The log does not fit the machine any more, and can't be made to.
		n.replica.fsm.mu.Lock()
		n.replica.fsm.mu.at.term++
		n.replica.fsm.mu.Unlock()
		if err := n.replica.bounce(); !errors.Is(err, errDisk) {
			t.Fatalf("the restart: %v", err)
		}
		if err := n.closeWithin(); err != nil {
			t.Fatal(err)
		}
	})
}
