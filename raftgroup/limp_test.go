package raftgroup

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Claim: a leader hands over, on ten seconds of evidence, to the fastest follower
// that is three times faster; not for what nobody would notice, not for one slow
// append, and not where all are slow.
func TestAppendTimes(t *testing.T) {
	const ms = time.Millisecond
	type every struct {
		id         string // "": the leader
		interval   time.Duration
		took       time.Duration
		from, till time.Duration // 0: always
	}
	candidates := []raft.ServerID{"a", "b"}
	for _, tc := range []struct {
		name    string
		happens []every
		at      time.Duration
		want    raft.ServerID // "": stay
	}{
		{"limps", []every{{"", 100 * ms, 100 * ms, 0, 0}, {"a", 100 * ms, 30 * ms, 0, 0}, {"b", 100 * ms, 20 * ms, 0, 0}}, 10 * time.Second, "b"},
		{"too early", []every{{"", 100 * ms, 100 * ms, 0, 0}, {"b", 100 * ms, 20 * ms, 0, 0}}, 9 * time.Second, ""},
		{"not three times", []every{{"", 100 * ms, 100 * ms, 0, 0}, {"a", 100 * ms, 34 * ms, 0, 0}, {"b", 100 * ms, 100 * ms, 0, 0}}, time.Minute, ""},
		{"all are slow", []every{{"", 100 * ms, 900 * ms, 0, 0}, {"a", 100 * ms, 901 * ms, 0, 0}, {"b", 100 * ms, 901 * ms, 0, 0}}, time.Minute, ""},
		{"all are fast", []every{{"", 100 * ms, 15 * ms, 0, 0}, {"a", 100 * ms, ms, 0, 0}}, time.Minute, ""},
		{"is no candidate", []every{{"", 100 * ms, 100 * ms, 0, 0}, {"learner", 100 * ms, ms, 0, 0}}, time.Minute, ""},
		{"was slow for four seconds", []every{{"", 100 * ms, ms, 0, 50 * time.Second}, {"", 100 * ms, 900 * ms, 50 * time.Second, 54 * time.Second},
			{"", 100 * ms, ms, 54 * time.Second, 0}, {"a", 100 * ms, 5 * ms, 0, 0}}, 55 * time.Second, ""},
		{"has been slow for ten seconds", []every{{"", 100 * ms, ms, 0, 50 * time.Second}, {"", 100 * ms, 900 * ms, 50 * time.Second, 0},
			{"a", 100 * ms, 5 * ms, 0, 0}}, 60 * time.Second, "a"},
		{"one append stalled", []every{{"", 100 * ms, ms, 0, 0}, {"", 3 * time.Second, 2 * time.Second, 57 * time.Second, 58 * time.Second},
			{"a", 100 * ms, ms, 0, 0}}, time.Minute, ""},
		{"appends take seconds", []every{{"", 3 * time.Second, 3 * time.Second, 0, 0}, {"a", 3 * time.Second, 100 * ms, 0, 0}}, time.Minute, "a"},
		{"idle", nil, time.Minute, ""},
		{"idle for long", []every{{"", 100 * ms, 100 * ms, 0, 30 * time.Second}, {"a", 100 * ms, ms, 0, 30 * time.Second}}, time.Minute, ""},
		{"the follower was silent", []every{{"", 100 * ms, 100 * ms, 0, 0}, {"a", 100 * ms, ms, 0, 20 * time.Second}}, time.Minute, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Unix(1000, 0)
			p := newAppendTimes(began)
			for at := time.Duration(0); at <= tc.at; at += 100 * ms {
				for _, e := range tc.happens {
					if at < e.from || e.till > 0 && at >= e.till || at%e.interval != 0 {
						continue
					}
					if e.id == "" {
						p.appended(began.Add(at), e.took)
					} else {
						p.answered(began.Add(at), raft.ServerID(e.id), e.took)
					}
				}
			}
			if got, ok := p.better(began.Add(tc.at), candidates); got.to != tc.want && ok || ok != (tc.want != "") {
				t.Errorf("%+v, %v; want %q", got, ok, tc.want)
			}
		})
	}
}

// slow makes every append of the node's log take d.
func (n *node) slow(d time.Duration) {
	n.log.hook(func() {
		n.log.store = func([]*raft.Log) error { time.Sleep(d); return nil } // virtual
	})
}

// load proposes on whoever leads until the test ends it.
func (c *cluster) load() (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			for _, n := range c.nodes {
				if n.leads() {
					n.replica.Propose(c.t.Context(), set("load=1"))
				}
			}
		}
	}()
	return func() { close(stop); <-done }
}

// Claim: under load, leadership moves to a follower whose disk is faster, within
// half a minute of the disk's getting slow; not again for five minutes; and not at
// all while all are slow.
func TestLimpingLeaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		defer c.stopAll()
		first := c.leader()
		end := c.load()
		defer end()
		handovers := func() (n uint64) {
			for _, n2 := range c.nodes {
				n += n2.replica.Status().Counters.Handovers
			}
			return n
		}
		for _, n := range c.nodes {
			n.slow(120 * time.Millisecond)
		}
		time.Sleep(10 * time.Minute) // virtual
		if n := handovers(); n != 0 || !first.leads() {
			t.Fatalf("%d handovers among replicas that are all slow", n)
		}
		second, third := c.followers(first)[0], c.followers(first)[1]
		second.slow(5 * time.Millisecond)
		third.slow(20 * time.Millisecond)
		time.Sleep(30 * time.Second) // virtual
		if n := handovers(); n != 1 || !second.leads() {
			t.Fatalf("%d handovers; the fast replica leads: %v", n, second.leads())
		}
		second.slow(120 * time.Millisecond)
		time.Sleep(4 * time.Minute) // virtual
		if n := handovers(); n != 1 || !second.leads() {
			t.Fatalf("%d handovers within five minutes", n)
		}
		time.Sleep(time.Minute) // virtual
		if n := handovers(); n != 2 || !third.leads() {
			t.Fatalf("%d handovers; the replica that is fast now leads: %v", n, third.leads())
		}
	})
}
