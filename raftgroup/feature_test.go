package raftgroup

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// writtenLater makes the state one of a later version.
func writtenLater(t *testing.T, s store.Store, ahead uint64) {
	t.Helper()
	at, err := readPosition(s)
	if err != nil {
		t.Fatal(err)
	}
	at.index += ahead
	at.feature = entry.FeatureLevel + 1
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Set(keyPosition, at.encode()), b.Commit()); err != nil {
		t.Fatal(err)
	}
}

// Claim: a replica does not open a state of a later feature level, which a newer
// version left behind before it was replaced by an older one.
func TestLaterStateIsNotOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		n.put("a=1")
		n.stop()
		writtenLater(t, n.store, 0)
		if err := n.open(); !errors.Is(err, errFeature) {
			t.Fatalf("opened a state of a later level: %v", err)
		}
	})
}

// Claim: a replica does not adopt a snapshot of a later feature level; it stops,
// because the group has gone where it can't follow, and its own state stays.
func TestLaterSnapshotIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		defer c.stopAll()
		n := c.leader()
		n.put("a=1")
		later := n.store.Clone()
		writtenLater(t, later, 10)
		before := n.store.Hash()
		at, members, _ := n.replica.fsm.snapshotOf()
		h := header{index: at.index + 10, term: at.term, members: members}
		stream := bytes.NewBuffer(h.encode())
		cp, err := later.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cp.WriteTo(stream); err != nil {
			t.Fatal(err)
		}
		err = n.give(&raft.SnapshotMeta{Index: h.index, Term: h.term, Configuration: members.config}, stream.Bytes())
		if !errors.Is(err, errFeature) || n.store.Hash() != before {
			t.Fatalf("a snapshot of a later level was adopted: %v", err)
		}
		if failed := n.hasFailed(); !errors.Is(failed, errFeature) {
			t.Fatalf("the replica goes on: %v", failed)
		}
	})
}
