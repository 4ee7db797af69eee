package raftgroup

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
)

func (s Status) member(label string) MemberStatus {
	for _, m := range s.Members {
		if m.Label == label {
			return m
		}
	}
	return MemberStatus{}
}

// Claim: a replica joins as a learner, catches up by a snapshot, becomes a voter,
// knows everybody's label, and can then be the one that keeps the quorum.
func TestReplaceReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = smallLog
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		leader.fill(100)
		added := c.add(3, nil)
		added.start()
		r, ctx := leader.replica, within(t, time.Minute)
		if err := r.Promote(ctx, "r3"); err != ErrNoMember || !errors.Is(err, ErrNotDone) {
			t.Fatalf("promote a stranger: %v", err)
		}
		for range 2 { // again is no error
			if err := r.AddLearner(ctx, added.member); err != nil {
				t.Fatal(err)
			}
		}
		var refused *RefusedError
		if err := r.AddLearner(ctx, formation.Member{Label: "x", ServerID: "x", Address: added.member.Address}); !errors.As(err, &refused) {
			t.Fatalf("a second member at one address: %v", err)
		}
		if err := r.Transfer(ctx, "r3"); !errors.As(err, &refused) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("leadership for a learner: %v", err)
		}
		c.converge()
		if s := added.replica.Status(); s.Role != RoleLearner {
			t.Fatalf("the added replica is a %s", s.Role)
		}
		for range 2 {
			if err := r.Promote(ctx, "r3"); err != nil {
				t.Fatal(err)
			}
		}
		old := c.followers(leader)[0]
		if old == added {
			old = c.followers(leader)[1]
		}
		if err := r.Remove(ctx, old.member.Label); err != nil {
			t.Fatal(err)
		}
		old.stop()
		c.eventually("three known members", func() bool {
			s := added.replica.Status()
			return len(s.Members) == 3 && s.member("r3").Role == RoleFollower && s.member(leader.member.Label).ServerID != "" && s.member(old.member.Label).ServerID == ""
		})
		if err := r.Transfer(ctx, "r3"); err != nil {
			t.Fatal(err)
		}
		if c.leaderOtherThan(leader) != added {
			t.Fatal("someone else took over")
		}
		leader.isolate()
		added.put("b=1")
		leader.rejoin()
		c.converge()
	})
}

// Claim: no change of membership is made that would leave the group without a
// live quorum, and a transfer goes to nobody who is not there.
func TestQuorumIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		r, ctx := leader.replica, within(t, time.Minute)
		f := c.followers(leader)
		f[0].isolate()
		time.Sleep(5 * time.Second) // virtual
		var refused *RefusedError
		if err := r.Remove(ctx, f[1].member.Label); !errors.As(err, &refused) || !errors.Is(err, ErrRefused) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("remove the other live one: %v", err)
		}
		if err := r.Transfer(ctx, f[0].member.Label); !errors.As(err, &refused) {
			t.Fatalf("leadership for a dead replica: %v", err)
		}
		if err := r.Remove(ctx, f[0].member.Label); err != nil {
			t.Fatalf("remove the dead one: %v", err)
		}
		if err := r.Remove(ctx, f[1].member.Label); err != nil {
			t.Fatalf("remove down to one: %v", err)
		}
		if err := r.Remove(ctx, leader.member.Label); !errors.As(err, &refused) {
			t.Fatalf("remove the last one: %v", err)
		}
		leader.put("b=1")
		var other *NotLeaderError
		if err := f[1].replica.Remove(ctx, leader.member.Label); !errors.As(err, &other) {
			t.Fatalf("a change on a follower: %v", err)
		}
	})
}

// Claim: only an answer to a question asked after the change was counts for the
// quorum; that a voter answered a moment ago does not. The refusal names who is
// silent.
func TestQuorumIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		r, f := leader.replica, c.followers(leader)
		f[0].isolate()
		if !r.Status().member(f[0].member.Label).Healthy {
			t.Fatal("the test is late: its silence is known")
		}
		var refused *RefusedError
		err := r.Remove(within(t, time.Minute), f[1].member.Label)
		if !errors.As(err, &refused) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("remove the only other voter that lives: %v", err)
		}
		if len(refused.Silent) != 1 || refused.Silent[0].ServerID != f[0].member.ServerID || !strings.Contains(err.Error(), f[0].member.Label) {
			t.Errorf("silent are %v: %v", refused.Silent, err)
		}
		if n := len(r.Status().Members); n != 3 {
			t.Fatalf("%d members", n)
		}
		// The dead one may go at once, and then only those that are left count.
		if err := r.Remove(within(t, time.Minute), f[0].member.Label); err != nil {
			t.Fatalf("remove the dead one: %v", err)
		}
		leader.put("b=1")
	})
}

// Claim: a removal may be repeated: the member is surely gone, which a leader that
// was deposed does not claim.
func TestRemoveTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		gone := c.followers(leader)[0]
		if err := leader.replica.Remove(within(t, time.Minute), gone.member.Label); err != nil {
			t.Fatal(err)
		}
		for _, who := range []string{gone.member.Label, gone.member.ServerID} {
			if err := leader.replica.Remove(within(t, time.Minute), who); err != ErrNoMember {
				t.Errorf("remove %s again: %v", who, err)
			}
		}
		leader.isolate()
		var other *NotLeaderError
		err := leader.replica.Remove(within(t, time.Minute), gone.member.Label)
		if !errors.As(err, &other) {
			t.Errorf("a leader that nobody answers says of a member: %v", err)
		}
		leader.rejoin()
	})
}

// Claim: the feature level is a fact of the log: raised at all replicas by a
// command, never above what this version understands, and never lowered.
func TestRaiseFeature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		var refused *RefusedError
		if err := leader.replica.RaiseFeature(within(t, time.Minute), entry.FeatureLevel+1); !errors.As(err, &refused) {
			t.Errorf("a level that this version does not understand: %v", err)
		}
		for _, level := range []uint8{entry.FeatureLevel, 0} {
			if err := leader.replica.RaiseFeature(within(t, time.Minute), level); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := leader.replica.Status().FeatureLevel; got != entry.FeatureLevel {
				t.Errorf("level %d after it was raised to %d", got, level)
			}
		}
	})
}

// Claim: the address of a member is not changed in place: the disks at the old
// and at the new one could both vote as one.
func TestAddressIsNotChangedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		voter := c.followers(leader)[0].member
		if err := leader.replica.AddLearner(within(t, time.Minute), voter); err != nil {
			t.Errorf("add a voter again: %v", err)
		}
		moved := voter
		moved.Address = "elsewhere"
		var refused *RefusedError
		err := leader.replica.AddLearner(within(t, time.Minute), moved)
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "replace") {
			t.Errorf("add it at another address: %v", err)
		}
		if m := leader.replica.Status().member(voter.Label); m.Address != voter.Address || m.Role != RoleFollower {
			t.Errorf("it is %+v", m)
		}
	})
}

// Claim: a vote that was given to one disk is not repeated for another disk that
// came to the same address: Raft would take its request for a duplicate, and
// grant it without a look at its log.
func TestVoteIsForOneDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		// A majority voted for the leader: itself, and at least one of the others.
		voter, other := c.followers(leader)[0], c.followers(leader)[1]
		votedFor := func(n *node) []byte {
			candidate, err := n.log.Get([]byte("LastVoteCand"))
			if err != nil && err.Error() != "not found" {
				t.Fatal(err)
			}
			return candidate
		}
		if !bytes.Contains(votedFor(voter), []byte(leader.member.ServerID)) {
			voter, other = other, voter
		}
		if !bytes.Contains(votedFor(voter), []byte(leader.member.ServerID)) {
			t.Fatalf("the vote was recorded for %q, and for %q", votedFor(voter), votedFor(other))
		}
		ask := func(id string) bool {
			header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id),
				Addr: leader.replica.transport.EncodePeer(raft.ServerID(id), raft.ServerAddress(leader.member.Address))}
			request := raft.RequestVoteRequest{RPCHeader: header, Term: leader.replica.Status().Term, LeadershipTransfer: true}
			var response raft.RequestVoteResponse
			err := leader.transport.RequestVote(raft.ServerID(voter.member.ServerID), raft.ServerAddress(voter.member.Address), &request, &response)
			if err != nil {
				t.Fatal(err)
			}
			return response.Granted
		}
		if !ask(leader.member.ServerID) {
			t.Error("the same request of the same disk was refused")
		}
		if ask(other.member.ServerID) {
			t.Error("another disk at that address was given the vote a second time")
		}
	})
}

// Claim: a change without a quorum does not block its caller beyond its bound,
// and the outcome is unknown.
func TestChangeWithoutQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		leader.isolate()
		err := leader.replica.AddLearner(within(t, 10*time.Second), memberNumber(7))
		if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrNotDone) {
			t.Fatal(err)
		}
		leader.rejoin()
	})
}

// Claim: adding a learner is not called undone when the learner was added and
// only its label could not be recorded.
func TestLearnerWithoutLabelIsNotUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = func(_ *node, o *Options) { o.CommandBytesMax = 64 }
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		learner := memberNumber(3)
		learner.Label = strings.Repeat("r", 100) // the record of it is refused
		err := leader.replica.AddLearner(within(t, 10*time.Second), learner)
		if s := leader.replica.Status(); len(s.Members) != 4 {
			t.Fatalf("members %v", s.Members)
		}
		if !errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrNotDone) {
			t.Fatalf("the learner is there, the error says %v", err)
		}
	})
}

// Claim: a leader's loop runs in each leadership once, never twice at a time,
// only after the no-op, and its context ends with the leadership.
func TestWhileLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		var running, most, runs atomic.Int32
		loop := func(n *node) func(ctx context.Context) {
			return func(ctx context.Context) {
				runs.Add(1)
				most.Store(max(most.Load(), running.Add(1)))
				if !n.replica.Status().Ready {
					t.Error("a loop runs before the no-op was applied")
				}
				<-ctx.Done()
				time.Sleep(100 * time.Millisecond) // virtual: a slow end
				running.Add(-1)
			}
		}
		first := c.leader()
		for _, n := range c.nodes {
			n.replica.WhileLeader("test", loop(n))
		}
		c.eventually("the loop", func() bool { return running.Load() == 1 })
		if err := first.replica.Transfer(within(t, 10*time.Second), ""); err != nil {
			t.Fatal(err)
		}
		second := c.leaderOtherThan(first)
		c.eventually("the loop of the next leader", func() bool { return runs.Load() == 2 && running.Load() == 1 })
		if err := second.replica.Transfer(within(t, 10*time.Second), first.member.Label); err != nil {
			t.Fatal(err)
		}
		c.eventually("the loop of the first leader again", func() bool { return runs.Load() == 3 && running.Load() == 1 })
		c.stopAll()
		if running.Load() != 0 {
			t.Fatal("Close did not wait for the loop")
		}
	})
}

// Claim: Close hands leadership over, so that the group goes on without an
// election timeout.
func TestCloseHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		leader.stop()
		stopped := time.Now()
		c.leader().put("b=1")
		if took := time.Since(stopped); took > 200*time.Millisecond {
			t.Fatalf("the group was without a leader for %v", took)
		}
	})
}

// Claim: a learner that does not catch up is not made a voter, even where a live
// quorum would be left.
func TestPromoteWaitsForTheLearner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		added := c.add(3, nil)
		added.start()
		if err := leader.replica.AddLearner(within(t, time.Minute), added.member); err != nil {
			t.Fatal(err)
		}
		c.converge()
		added.isolate()
		leader.put("x=1")
		if err := leader.replica.Promote(within(t, 2*time.Second), added.member.Label); !errors.Is(err, ErrNotDone) {
			t.Errorf("promote a learner that is away: %v", err)
		}
		for _, m := range leader.replica.Status().Members {
			if m.ServerID == added.member.ServerID && m.Role != RoleLearner {
				t.Errorf("it is a %s", m.Role)
			}
		}
		added.rejoin()
	})
}
