package raftgroup

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Claim: a leader that was paused while another one took over, and that finds
// old answers waiting when it wakes up, does not serve a read. Raft's VerifyLeader
// lets it.
//
// The followers' answers are held back, so that they arrive when the leader goes
// on; its disk stalls, so that its main loop neither notices the lease nor the
// new leader; and the new leader acknowledges a write meanwhile.
func TestDeposedLeaderServesNoStaleRead(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "verifyOnly": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stale := staleRead(t, unsafe)
				if stale != unsafe {
					t.Fatalf("a stale read was served: %v, want %v", stale, unsafe)
				}
			})
		})
	}
}

func staleRead(t *testing.T, verifyOnly bool) (stale bool) {
	c := newCluster(t, 3)
	c.tune = func(_ *node, o *Options) {
		o.unsafe.verifyOnly = verifyOnly
		o.StallLimit = time.Hour
	}
	c.startAll()
	defer c.stopAll()
	old := c.leader()
	old.put("x=old")
	c.converge()

	// Answers to the old leader are now held until the test lets them go: those to
	// heartbeats and those to entries apart.
	heartbeats, entries := make(chan struct{}), make(chan struct{})
	var held atomic.Int32
	old.transport.hook(func() {
		old.transport.answered = func(args *raft.AppendEntriesRequest) error {
			held.Add(1)
			if args.PrevLogEntry == 0 {
				<-heartbeats
			} else {
				<-entries
			}
			return nil
		}
	})
	proposals := make(chan error, 2)
	propose := func(key string) {
		go func() {
			_, err := old.replica.Propose(context.Background(), set("%s=1", key))
			proposals <- err
		}()
		synctest.Wait()
	}
	propose("y")
	c.eventually("four held answers", func() bool { return held.Load() == 4 })
	// The leader's main loop stalls in its disk.
	stall := make(chan struct{})
	old.log.hook(func() { old.log.store = func([]*raft.Log) error { <-stall; return nil } })
	propose("z")
	old.isolate()
	c.leaderOtherThan(old).put("x=new")

	// A read begins on the old leader. What waited in its sockets arrives, and the
	// disk comes back in between, before the lease is looked at.
	read := make(chan error, 1)
	go func() { read <- old.replica.ReadBarrier(within(t, 10*time.Second)) }()
	synctest.Wait()
	close(entries)
	synctest.Wait()
	old.log.hook(func() { old.log.store = nil })
	close(stall)
	synctest.Wait()
	close(heartbeats)
	err := <-read
	stale = err == nil && valueOf(old.store, "x") == "old"
	old.transport.hook(func() { old.transport.answered = nil })
	old.rejoin()
	<-proposals
	if err := <-proposals; err != nil && !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("a proposal that was in the stalled disk: %v", err)
	}
	return stale
}

// Claim: a leader that has voted for its successor confirms no read by its own
// voice, though it has not learnt yet that its leadership is over. A transfer of
// leadership gets there: Raft raises the term and votes, and only then tells of
// the loss. Nor does such a leader count itself as a live voter.
//
// The third replica hears of the new term late, and answers the old leader's
// heartbeats, which go on while a message with entries is under way to it.
func TestVoteForSuccessorEndsReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		old := c.leader()
		old.put("x=old")
		c.converge()
		next, third := c.followers(old)[0], c.followers(old)[1]
		slow := make(chan struct{})
		old.transport.hook(func() {
			old.transport.answered = func(args *raft.AppendEntriesRequest) error {
				if args.PrevLogEntry > 0 {
					<-slow
				}
				return nil
			}
		})
		next.block(third)
		third.block(next)
		time.Sleep(2 * time.Second) // virtual: a message with entries is under way
		lead := old.replica.leading()
		transfer := old.replica.node().LeadershipTransferToServer(raft.ServerID(next.member.ServerID), raft.ServerAddress(next.member.Address))
		if err := transfer.Error(); err != nil {
			t.Fatal(err)
		}
		c.eventually("next leads", func() bool { return next.leads() })
		next.put("x=new") // acknowledged: the old leader stores it
		// The loss of its leadership has not been noted yet.
		unaware := &leadership{ready: lead.ready, node: lead.node}
		unaware.ctx, unaware.cancel = context.WithCancel(t.Context())
		unaware.ownTerm.Store(lead.term())
		old.replica.leads.mu.Lock()
		old.replica.leads.mu.current = unaware
		old.replica.leads.mu.Unlock()

		number := old.replica.transport.BeginRound()
		if err := old.replica.ReadBarrier(within(t, time.Second)); err == nil && valueOf(old.store, "x") == "old" {
			t.Errorf("a read passed on a leader of term %d that had voted in term %d", lead.term(), old.replica.node().CurrentTerm())
		}
		if !old.replica.acknowledged(unaware, raft.ServerID(third.member.ServerID), number) {
			t.Error("the third replica did not answer in the old term: the test shows nothing")
		}
		if old.replica.acknowledged(unaware, raft.ServerID(old.member.ServerID), 0) {
			t.Error("the old leader counts itself for its old term")
		}

		old.replica.lost()
		close(slow)
		old.transport.hook(func() { old.transport.answered = nil })
		next.rejoin()
		c.converge()
	})
}

// Claim: a learner's answer confirms no read.
func TestLearnerDoesNotConfirmReads(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "countLearners": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3)
				c.tune = func(_ *node, o *Options) { o.unsafe.countLearners = unsafe }
				c.startAll()
				defer c.stopAll()
				leader := c.leader()
				learner := c.add(3, nil)
				learner.start()
				if err := leader.replica.AddLearner(within(t, 10*time.Second), learner.member); err != nil {
					t.Fatal(err)
				}
				c.converge()
				for _, f := range c.followers(leader) {
					if f != learner {
						f.isolate()
					}
				}
				err := leader.replica.ReadBarrier(within(t, 300*time.Millisecond))
				if confirmed := err == nil; confirmed != unsafe {
					t.Fatalf("a leader and a learner confirmed a read: %v (%v), want %v", confirmed, err, unsafe)
				}
				for _, f := range c.followers(leader) {
					f.rejoin()
				}
			})
		})
	}
}

// Claim: a new leader serves no read before an entry of its own term was applied:
// until then its commit index may lag behind what was acknowledged.
func TestNewLeaderWaitsForItsNoop(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "noNoop": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3)
				c.tune = func(_ *node, o *Options) { o.unsafe.noNoop = unsafe }
				c.startAll()
				defer c.stopAll()
				old := c.leader()
				old.put("x=old")
				c.converge()
				// One follower stores the next entry and does not hear that it is
				// committed, the other one misses it.
				f := c.followers(old)
				old.block(f[1])
				old.put("x=new")
				old.isolate()
				if s := f[0].replica.Status(); s.CommitIndex == s.LastIndex {
					t.Fatal("the follower knows of the commit")
				}
				// It becomes leader, and may send heartbeats but no entries.
				f[0].transport.hook(func() {
					f[0].transport.sending = func(args *raft.AppendEntriesRequest) error {
						if args.PrevLogEntry > 0 {
							return errors.New("dropped")
						}
						return nil
					}
				})
				c.eventually("another leader", func() bool { return f[0].replica.leading() != nil })
				err := f[0].replica.ReadBarrier(within(t, 200*time.Millisecond))
				if stale := err == nil && valueOf(f[0].store, "x") == "old"; stale != unsafe {
					t.Fatalf("a stale read was served: %v, want %v", stale, unsafe)
				}
				f[0].transport.hook(func() { f[0].transport.sending = nil })
				newer := c.leaderOtherThan(old)
				if err := newer.replica.ReadBarrier(within(t, 10*time.Second)); err != nil || valueOf(newer.store, "x") != "new" {
					t.Fatalf("read of the new leader: %v, x=%s", err, valueOf(newer.store, "x"))
				}
				old.rejoin()
			})
		})
	}
}

// Claim: a read waits for our machine, not for what Raft has merely queued for it.
func TestReadWaitsForTheMachine(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "raftAppliedIdx": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				c.tune = func(_ *node, o *Options) { o.unsafe.raftAppliedIdx = unsafe }
				c.startAll()
				defer c.stopAll()
				leader := c.leader()
				leader.put("x=old")
				gate := make(chan struct{})
				leader.machine.setGate(gate)
				go leader.replica.Propose(context.Background(), set("x=new"))
				synctest.Wait() // committed, and waiting in the machine
				err := leader.replica.ReadBarrier(within(t, time.Second))
				stale := err == nil && valueOf(leader.store, "x") == "old"
				leader.machine.setGate(nil)
				close(gate)
				if stale != unsafe {
					t.Fatalf("a stale read was served: %v (%v), want %v", stale, err, unsafe)
				}
			})
		})
	}
}

// Claim: reads that wait together share a round, and none waits longer than its
// context or the leadership.
func TestReadsShareRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		before := leader.replica.Status().Counters
		const readers = 200
		errs := make(chan error, readers)
		for range readers {
			go func() { errs <- leader.replica.ReadBarrier(within(t, time.Second)) }()
		}
		for range readers {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		after := leader.replica.Status().Counters
		if rounds := after.ReadRounds - before.ReadRounds; rounds > readers/2 {
			t.Fatalf("%d rounds for %d reads", rounds, readers)
		}
		leader.isolate()
		if err := leader.replica.ReadBarrier(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("a read without a quorum: %v", err)
		}
		begin := time.Now()
		var other *NotLeaderError
		if err := leader.replica.ReadBarrier(within(t, time.Minute)); !errors.As(err, &other) {
			t.Fatalf("a read of a leader that lost its quorum: %v", err)
		}
		if waited := time.Since(begin); waited > 5*time.Second {
			t.Fatalf("it took %v", waited)
		}
		leader.rejoin()
	})
}

// Claim: a read that comes while a round is under way is served by the next one,
// not by this: its index was noted before the read came.
func TestReadJoinsTheNextRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("x=1")
		before := leader.replica.Status().Counters.ReadRounds
		answers := make(chan struct{})
		leader.transport.hook(func() {
			leader.transport.answered = func(*raft.AppendEntriesRequest) error { <-answers; return nil }
		})
		reads := make(chan error, 2)
		for range 2 {
			go func() { reads <- leader.replica.ReadBarrier(within(t, 10*time.Second)) }()
			synctest.Wait() // the first waits for its quorum
		}
		leader.transport.hook(func() { leader.transport.answered = nil })
		close(answers)
		for range 2 {
			if err := <-reads; err != nil {
				t.Fatal(err)
			}
		}
		if rounds := leader.replica.Status().Counters.ReadRounds - before; rounds != 2 {
			t.Fatalf("%d rounds for two reads, the second of which came during the first round", rounds)
		}
	})
}
