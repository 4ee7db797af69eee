package raftgroup

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// Claim: a replica that the newest configuration it knows has at another address
// is not opened, whether it knows that from its founders, its log or its store,
// and takes part in nothing; where the configuration has it, it is.
func TestOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		moved := ""
		c.tune = func(n *node, o *Options) {
			if n.member.Label == "r2" && moved != "" {
				o.Advertise = moved
			}
			smallLog(n, o)
		}
		var elsewhere *formation.AddressError
		refused := func(from string) {
			t.Helper()
			moved = "somewhere-else"
			if err := c.nodes[2].open(); !errors.As(err, &elsewhere) || elsewhere.Listed != "addr-2" || elsewhere.Own != moved {
				t.Fatalf("opened elsewhere, %s: %v", from, err)
			}
			moved = ""
		}
		refused("by its founders")
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		c.nodes[2].stop()
		refused("by its log")
		c.nodes[2].start()
		c.nodes[2].rejoin()
		c.put("b=%d", 1)
		leader = c.leader()
		leader.fill(100)
		c.converge()
		c.eventually("cut log", func() bool { return c.nodes[2].replica.guard.configuration().index == 0 })
		c.nodes[2].stop()
		refused("by its store")
		c.nodes[2].start()
		c.nodes[2].rejoin()
		c.put("c=%d", 1)
		c.converge()
	})
}

// Claim: a replica that learns while it runs that its group has it at another
// address stops.
func TestOwnAddressIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		added := c.add(3, nil)
		added.start()
		// Named by an address that leads to it, though it is not its own.
		alias := added.member
		alias.Address = "alias"
		leader.transport.Connect("alias", added.transport.InmemTransport)
		if err := leader.replica.AddLearner(within(t, time.Minute), alias); err != nil {
			t.Fatal(err)
		}
		var elsewhere *formation.AddressError
		if err := <-added.fatal; !errors.As(err, &elsewhere) || elsewhere.Listed != "alias" {
			t.Fatalf("stopped with %v", err)
		}
	})
}

// Claim: a replica whose log ends before what it acknowledged in the present term,
// or a later one that it has forgotten, says so; one of a newer term may have lost
// it to a newer leader, and says nothing.
func TestCheckAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		follower := c.followers(leader)[0].replica
		st := follower.Status()
		var forgot *formation.OlderCopyError
		for _, tc := range []struct {
			term, index uint64
			forgot      bool
		}{
			{st.Term, st.LastIndex, false}, {st.Term, st.LastIndex + 1, true}, {st.Term + 1, st.LastIndex + 1, true},
			{st.Term - 1, st.LastIndex + 1, false}, {0, 0, false},
		} {
			err := follower.CheckAcknowledged("leader", tc.term, tc.index)
			if errors.As(err, &forgot) != tc.forgot {
				t.Errorf("entry %d in term %d, having %d in term %d: %v", tc.index, tc.term, st.LastIndex, st.Term, err)
			}
		}
	})
}
