package shardkv

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// sessionsLeft counts the sessions that the shards of a fake still know.
func sessionsLeft(t *testing.T, r store.Reader, shards int) (n int) {
	t.Helper()
	for s := range shards {
		rec, err := kvfsm.ReadRecord(r, shardcfg.ShardID(s))
		if err != nil {
			t.Fatal(err)
		}
		if some, err := kvfsm.HasSessionsBefore(r, &rec, 1<<62); err != nil {
			t.Fatal(err)
		} else if some {
			n++
		}
	}
	return n
}

// writeEverywhere writes to every shard, in a session that begins at a time.
func writeEverywhere(t *testing.T, s *Server, shards int, birth uint64) {
	t.Helper()
	r := &kvpb.ExecuteRequest{Session: &kvpb.Session{Id: []byte("0123456789abcdef"), BirthMs: birth, AckedBelow: 1}}
	met := map[shardcfg.ShardID]bool{}
	for i := 0; len(met) < shards; i++ {
		key := fmt.Sprint("k", i)
		if shard := shardcfg.ShardOf([]byte(key), shards); !met[shard] {
			met[shard] = true
			op := putOp(key, "v")
			op.Sequence = uint64(i + 1)
			r.Operations = append(r.Operations, op)
		}
	}
	for _, o := range executeNow(t, s, r) {
		if o.GetCode() != kvpb.Code_OK {
			t.Fatal(o)
		}
	}
}

// A seekingStore counts the iterators that are made through its snapshots.
type seekingStore struct {
	store.Store
	seeks *int
}

func (s seekingStore) NewSnapshot() (store.Snapshot, error) {
	snapshot, err := s.Store.NewSnapshot()
	return seekingSnapshot{snapshot, s.seeks}, err
}

type seekingSnapshot struct {
	store.Snapshot
	seeks *int
}

func (s seekingSnapshot) Iterate(lower, upper []byte) (store.Iterator, error) {
	*s.seeks++
	return s.Snapshot.Iterate(lower, upper)
}

// Claim: an expiry costs a few looks at each shard, not one for each shard and
// each list of commands.
func TestExpiryIsLinear(t *testing.T) {
	const shards = 1024
	synctest.Test(t, func(t *testing.T) {
		s, f := newFakeOf(t, Limits{}, shards)
		writeEverywhere(t, s, shards, clockMs)
		f.clock = clockMs + 2*3_600_000
		seeks := 0
		f.store = seekingStore{f.store, &seeks}
		e := &expirer{n: s.node.Load(), age: time.Hour}
		if err := e.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if seeks > 8*shards {
			t.Errorf("%d iterators for %d shards", seeks, shards)
		}
		if n := sessionsLeft(t, f.store, shards); n != 0 {
			t.Errorf("%d shards still know sessions", n)
		}
	})
}

// Claim: sessions expire by the cluster's clock, however far that is from this
// machine's.
func TestExpiryFollowsTheClusterClock(t *testing.T) {
	const year = 365 * 24 * 3_600_000
	synctest.Test(t, func(t *testing.T) {
		s, f := newFake(t, Limits{})
		f.clock = clockMs + year // once a leader's clock was a year ahead
		writeEverywhere(t, s, fakeShards, f.clock)
		e := &expirer{n: s.node.Load(), age: time.Hour}
		for _, c := range []struct {
			minutes uint64
			left    int
		}{{59, fakeShards}, {61, 0}} {
			f.clock = clockMs + year + c.minutes*60_000
			if err := e.pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := sessionsLeft(t, f.store, fakeShards); n != c.left {
				t.Errorf("after %d minutes %d shards know the session, want %d", c.minutes, n, c.left)
			}
		}
	})
}
