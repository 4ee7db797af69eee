package raftgroup

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// Claim: whatever prefix of its batches the store of a stopped replica kept, its log
// brings it to the end of all that the replica stored, an entry included that was
// never committed; and from there a new group of one begins, with no other member.
func TestReplayAndReform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		c.leader().fill(20)
		c.converge()
		n := c.followers(c.leader())[0]
		committed := n.replica.Status().AppliedIndex
		c.stopAll()
		last, err := n.log.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		never := entry.Entry{Clock: 1, Commands: []entry.Command{set("never=acknowledged")}}
		if err := n.log.StoreLog(&raft.Log{Index: last + 1, Term: 99, Type: raft.LogCommand, Data: never.Append(nil)}); err != nil {
			t.Fatal(err)
		}
		for keep := 0; keep <= n.store.Unsynced(); keep++ {
			st := n.store.Crash(keep)
			before, err := readPosition(st)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Replay(st, &logMachine{}, n.log)
			count, _, getErr := st.Get(keyCount)
			if err != nil || getErr != nil || r.StateIndex != before.index || r.AppliedIndex != last+1 || committed > last || r.Entries == 0 ||
				count[7] != 21 || valueOf(st, "never") != "acknowledged" {
				t.Fatalf("with %d batches kept, from %d: %+v, count %x, %v, %v", keep, before.index, r, count, err, getErr)
			}
			if st.Unsynced() != 0 {
				t.Errorf("%d batches are not durable", st.Unsynced())
			}
			c.beginsAnew(st)
		}
	})
}

// beginsAnew reforms a state, and opens it as the only member of a group.
func (c *cluster) beginsAnew(st *store.Mem) {
	t := c.t
	t.Helper()
	self := memberNumber(7)
	log := newTestLog()
	if err := Reform(st, log, self, func(b store.Batch) error { return b.Set([]byte("kedited"), []byte("yes")) }); err != nil {
		t.Fatal(err)
	}
	if st.Unsynced() != 0 {
		t.Errorf("%d batches are not durable after the reform", st.Unsynced())
	}
	alone := newCluster(t, 0)
	first := alone.add(7, []formation.Member{self})
	first.store, first.log = st, log
	first.start()
	alone.leader()
	first.put("new=yes")
	members := first.replica.Status().Members
	if len(members) != 1 || members[0].ServerID != self.ServerID || members[0].Label != self.Label || members[0].Role != RoleLeader {
		t.Errorf("members %+v", members)
	}
	for key, want := range map[string]string{"never": "acknowledged", "edited": "yes", "new": "yes"} {
		if got := valueOf(st, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	alone.stopAll()
}

// Claim: what can't be trusted is not salvaged: a log that begins above the state,
// and a replica that has nothing.
func TestReplayRefusals(t *testing.T) {
	if _, err := Replay(store.NewMem(), &logMachine{}, newTestLog()); !errors.Is(err, ErrNothing) {
		t.Errorf("nothing at all: %v", err)
	}
	if _, err := Replay(store.NewMem(), &logMachine{}, nil); !errors.Is(err, ErrNothing) {
		t.Errorf("no state, and no log wanted: %v", err)
	}
	log := newTestLog()
	e := entry.Entry{Clock: 1, Commands: []entry.Command{set("k=v")}}
	if err := log.StoreLog(&raft.Log{Index: 5, Term: 1, Type: raft.LogCommand, Data: e.Append(nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := Replay(store.NewMem(), &logMachine{}, log); err == nil {
		t.Error("a log that begins at entry 5 was replayed on an empty state")
	}
	if err := Reform(store.NewMem(), newTestLog(), memberNumber(1), nil); !errors.Is(err, ErrNothing) {
		t.Errorf("reform of nothing: %v", err)
	}
}
