package clerk_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (f *fakeCluster) sessionCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := map[[16]byte]bool{}
	for stamp := range f.executed {
		seen[stamp.session] = true
	}
	return len(seen)
}

// A session is used for 15 minutes, then a new one; writes go on unharmed.
func TestSessionRotation(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		for i := range 5 {
			mustPut(t, c, "k", "v")
			if want := i/2 + 1; f.sessionCount() != want {
				t.Fatalf("after %d times 8 minutes: %d sessions, want %d", i, f.sessionCount(), want)
			}
			elapse(8 * time.Minute)
		}
	})
}

// A write that is refused because its session is too old, on its only attempt,
// is stamped anew and succeeds.
func TestSessionExpired(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "a")
		f.expire()
		elapse(time.Second)
		mustPut(t, c, "k", "b")
		mustGet(t, c, "k", "b")
	})
}

// A write that was stamped anew is settled like any other: its session goes on
// acknowledging what it has the answers of, or the servers would keep them all.
func TestRestampedWriteIsSettled(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "a")
		f.expire()
		elapse(time.Second)
		const writes = 10
		for range writes {
			mustPut(t, c, "k", "b")
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		acked := uint64(0)
		for stamp := range f.executed {
			if stamp.birth >= f.floor {
				acked = f.acked[stamp.session]
			}
		}
		if acked != writes { // the last write acknowledges those before it
			t.Errorf("after %d writes those below %d are acknowledged", writes, acked)
		}
	})
}

// A client clock that is far off, either way, costs a retry and no more: birth
// times go by the cluster's clock, as far as it is known.
func TestClientClock(t *testing.T) {
	for name, skew := range map[string]time.Duration{"behind": -3 * time.Hour, "ahead": 3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeCluster) {
				f.floor = uint64(time.Now().Add(-time.Hour).UnixMilli())
				c := f.open(t, func(config *clerk.Config) {
					config.Now = func() time.Time { return time.Now().Add(skew) }
				})
				start := time.Now()
				for range 3 {
					mustPut(t, c, "k", "a")
				}
				if took := time.Since(start); took > 50*time.Millisecond {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// Groups whose clocks differ by more than a session may lie ahead do not shut
// each other's clients out: a clerk that writes to both keeps writing to both.
func TestClocksOfGroups(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		f.mu.Lock()
		f.groups[0].skew = uint64((10 * time.Minute).Milliseconds())
		f.mu.Unlock()
		keys := map[*fakeGroup]string{}
		for i := 0; len(keys) < 2; i++ {
			key := fmt.Sprint("key", i)
			f.mu.Lock()
			if g := f.shards[f.shardOf(key)].holder; keys[g] == "" {
				keys[g] = key
			}
			f.mu.Unlock()
		}
		c := f.open(t, nil)
		for round := range 5 {
			for g, key := range keys {
				start := time.Now()
				mustPut(t, c, key, "v")
				if took := time.Since(start); took > 50*time.Millisecond {
					t.Fatalf("round %d: a put to group %d took %v", round, g.gid, took)
				}
			}
			elapse(4 * time.Minute)
		}
		if n := f.sessionCount(); n > 6 {
			t.Errorf("%d sessions in 20 minutes", n)
		}
	})
}

// An explicit identity is used as it is, and a forgotten one is an error of
// unknown outcome, never a second execution.
func TestExplicitIdentity(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		id := clerk.Identity{Session: shardcfg.SessionID{9}, BirthMS: uint64(time.Now().UnixMilli()), Sequence: 41}
		c := f.open(t, func(config *clerk.Config) { config.Session = id })
		first, err := c.Append(t.Context(), []byte("k"), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.Append(t.Context(), []byte("k"), []byte("a"), clerk.As(id))
		if err != nil || again != first {
			t.Fatalf("the same write again: %+v, %v; want %+v", again, err, first)
		}
		f.expire()
		_, err = c.Append(t.Context(), []byte("k"), []byte("a"), clerk.As(id))
		if !errors.Is(err, clerk.ErrSessionExpired) || !errors.Is(err, clerk.ErrOutcomeUnknown) {
			t.Fatalf("after it was forgotten: %v", err)
		}
		if _, err = c.Append(t.Context(), []byte("k"), []byte("a")); !errors.Is(err, clerk.ErrSessionExpired) || !errors.Is(err, clerk.ErrNotDone) {
			t.Fatalf("a new write in the expired session: %v", err)
		}
		mustGet(t, c, "k", "a")
	})
}
