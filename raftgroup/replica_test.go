package raftgroup

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Claim: three replicas elect a leader, commit, read and agree; the others name
// the leader; pre-vote is on; everything ends with Close.
func TestThreeReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		if err := leader.replica.ReadBarrier(within(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		if got := valueOf(leader.store, "a"); got != "1" {
			t.Fatalf("the leader has a=%s behind a barrier", got)
		}
		c.converge()
		for _, f := range c.followers(leader) {
			var other *NotLeaderError
			_, err := f.replica.Propose(within(t, time.Second), set("b=1"))
			if !errors.As(err, &other) || other.Leader != leader.member.Address || !errors.Is(err, ErrNotDone) {
				t.Fatalf("propose on a follower: %v", err)
			}
			if err := f.replica.ReadBarrier(within(t, time.Second)); !errors.As(err, &other) {
				t.Fatalf("read on a follower: %v", err)
			}
		}
		s := leader.replica.Status()
		if s.Role != RoleLeader || len(s.Members) != 3 || s.AppliedIndex < 3 || s.FeatureLevel != featureLevelFirst || s.Clock == 0 {
			t.Fatalf("status of the leader: %+v", s)
		}
		for _, m := range s.Members {
			if !m.Healthy || m.Label == "" {
				t.Fatalf("member %+v", m)
			}
		}
		polled := 0
		for _, n := range c.nodes {
			polled += n.transport.preVotes
		}
		if polled == 0 {
			t.Fatal("nobody asked for a pre-vote")
		}
	})
}

// Claim: a founder whose power failed between the two writes of its bootstrap
// forms its group when it is started again: alone, and together with others.
func TestTornBootstrap(t *testing.T) {
	for _, founders := range []int{1, 3} {
		t.Run(fmt.Sprint(founders), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, founders)
				defer c.stopAll()
				for _, n := range c.nodes {
					if err := n.log.SetUint64([]byte("CurrentTerm"), 1); err != nil { // the first write
						t.Fatal(err)
					}
				}
				c.startAll()
				c.put("a=1")
				c.converge()
			})
		})
	}
}
