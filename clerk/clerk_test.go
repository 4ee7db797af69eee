package clerk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test in virtual time, with a cluster of two groups of three
// replicas and 16 shards.
func inBubble(t *testing.T, test func(t *testing.T, f *fakeCluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(2, 3, 16)
		t.Cleanup(f.close)
		test(t, f)
	})
}

// elapse lets virtual time pass, and whatever is due in it happen.
func elapse(d time.Duration) { <-time.After(d) }

func mustPut(t *testing.T, c *clerk.Clerk, key, value string) clerk.Version {
	t.Helper()
	v, err := c.Put(t.Context(), []byte(key), []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustGet(t *testing.T, c *clerk.Clerk, key, want string) {
	t.Helper()
	v, err := c.Get(t.Context(), []byte(key))
	if err != nil || string(v.Bytes) != want {
		t.Fatalf("get %s = %q, %v; want %q", key, v.Bytes, err, want)
	}
}

// Operations return what the service promises: values, versions, lengths, and
// the errors of the family "done"; callers' slices are not kept.
func TestOperations(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		ctx := t.Context()
		key, value := []byte("k"), []byte("one")
		v1, err := c.Put(ctx, key, value, clerk.IfAbsent())
		if err != nil || v1 == 0 {
			t.Fatalf("put if absent: %d, %v", v1, err)
		}
		copy(value, "xxx")
		mustGet(t, c, "k", "one")
		if _, err = c.Put(ctx, key, []byte("two"), clerk.IfAbsent()); !errors.Is(err, clerk.ErrVersionMismatch) || clerk.FamilyOf(err) != clerk.FamilyDone {
			t.Fatalf("second put if absent: %v", err)
		}
		var e *clerk.Error
		if !errors.As(err, &e) || e.Present != v1 {
			t.Fatalf("mismatch tells version %v, want %d", e, v1)
		}
		a, err := c.Append(ctx, key, []byte("+"))
		if err != nil || a.Length != 4 || a.Version <= v1 {
			t.Fatalf("append: %+v, %v", a, err)
		}
		if err := c.Delete(ctx, key, clerk.IfVersion(v1)); !errors.Is(err, clerk.ErrVersionMismatch) {
			t.Fatalf("delete of an old version: %v", err)
		}
		if err := c.Delete(ctx, key, clerk.IfVersion(a.Version)); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(ctx, key); !errors.Is(err, clerk.ErrNotFound) {
			t.Fatalf("delete of nothing: %v", err)
		}
		if _, err := c.Get(ctx, key); !errors.Is(err, clerk.ErrNotFound) || clerk.FamilyOf(err) != clerk.FamilyDone {
			t.Fatalf("get of nothing: %v", err)
		}
	})
}

// Bad input is refused, as not done, before anything is sent.
func TestInvalidInput(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		ctx, key := t.Context(), []byte("k")
		for name, do := range map[string]func() error{
			"empty key":      func() error { _, err := c.Get(ctx, nil); return err },
			"long key":       func() error { _, err := c.Put(ctx, make([]byte, shardcfg.KeyBytesMax+1), nil); return err },
			"large value":    func() error { _, err := c.Put(ctx, key, make([]byte, shardcfg.ValueBytesMax+1)); return err },
			"two conditions": func() error { _, err := c.Put(ctx, key, nil, clerk.IfAbsent(), clerk.IfVersion(3)); return err },
			"append if":      func() error { _, err := c.Append(ctx, key, nil, clerk.IfAbsent()); return err },
			"half identity":  func() error { return c.Delete(ctx, key, clerk.As(clerk.Identity{Sequence: 1})) },
			"alien cursor":   func() error { _, err := c.ScanPage(ctx, nil, clerk.Cursor{Shard: 99}); return err },
		} {
			if err := do(); !errors.Is(err, clerk.ErrInvalid) || !errors.Is(err, clerk.ErrNotDone) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if f.ops != 0 {
			t.Errorf("%d operations reached a server", f.ops)
		}
	})
}

// A lost reply is settled by the retry: the write is executed once, and its
// answer is the first execution's, although the shard moved in between.
func TestLostReplyAcrossMove(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "a")
		lost := false
		f.setFault(func(string, *kvpb.Operation) fault {
			if lost {
				return faultNone
			}
			lost = true
			s := f.shardOf("k")
			f.late.Go(func() { f.move(s, other(f, f.shards[s].holder), false) })
			return faultLoseReply
		})
		a, err := c.Append(t.Context(), []byte("k"), []byte("b"))
		if err != nil || a.Length != 2 {
			t.Fatalf("append: %+v, %v", a, err)
		}
		mustGet(t, c, "k", "ab")
	})
}

func other(f *fakeCluster, g *fakeGroup) *fakeGroup {
	if f.groups[0] == g {
		return f.groups[1]
	}
	return f.groups[0]
}

// A write whose attempts were all refused ends as not done; one with an attempt
// that got no answer ends as outcome unknown, whatever is refused afterwards;
// its identity settles it later, without a second execution.
func TestFamilies(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		f.setFault(func(string, *kvpb.Operation) fault { return faultBusy })
		start := time.Now()
		_, err := c.Put(t.Context(), []byte("k"), []byte("v"))
		if !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, clerk.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("all busy: %v", err)
		}
		if took := time.Since(start); took != clerk.TimeoutDefault {
			t.Errorf("deadline passed after %v", took)
		}
		g := f.holder("k")
		where := fmt.Sprintf("shard %d of group %d (%s)", f.shardOf("k"), g.gid, strings.Join(g.addresses, ","))
		for _, want := range []string{"not done", "BUSY", where} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("nothing of %q in: %v", want, err)
			}
		}
		for _, first := range []fault{faultLoseReply, faultLoseFirst, faultUnknown, faultSlow, faultLate} {
			key := []byte(fmt.Sprintf("k%d", first))
			seen := false
			f.setFault(func(string, *kvpb.Operation) fault {
				if seen {
					return faultBusy
				}
				seen = true
				return first
			})
			_, err := c.Append(t.Context(), key, []byte("x"))
			if !errors.Is(err, clerk.ErrOutcomeUnknown) || errors.Is(err, clerk.ErrNotDone) {
				t.Fatalf("fault %d: %v", first, err)
			}
			f.setFault(nil)
			var e *clerk.Error
			if !errors.As(err, &e) || e.Identity.IsZero() {
				t.Fatalf("fault %d: no identity: %v", first, err)
			}
			mustPut(t, c, "other", "x") // acknowledges whatever it may
			mustPut(t, c, "other", "y")
			for range 2 {
				if a, err := c.Append(t.Context(), key, []byte("x"), clerk.As(e.Identity)); err != nil || a.Length != 1 {
					t.Fatalf("fault %d: settled as %+v, %v", first, a, err)
				}
			}
			if _, err := c.Get(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		f.setFault(func(string, *kvpb.Operation) fault { return faultSlow })
		if _, err := c.Get(t.Context(), []byte("k")); !errors.Is(err, clerk.ErrNotDone) {
			t.Errorf("a get that got no answer: %v", err)
		}
	})
}

// Cancelling the caller's context ends the call at once, with the context's
// error and a true family.
func TestCancel(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "v")
		f.setFault(func(string, *kvpb.Operation) fault { return faultSlow })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		start := time.Now()
		_, err := c.Put(ctx, []byte("k"), []byte("w"))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, clerk.ErrOutcomeUnknown) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// Close ends what is under way, and everything after it fails as closed.
func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "v")
		f.setFault(func(string, *kvpb.Operation) fault { return faultSlow })
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := c.Put(t.Context(), []byte("k"), []byte("w")); !errors.Is(err, clerk.ErrClosed) || !errors.Is(err, clerk.ErrOutcomeUnknown) {
				t.Errorf("put under way: %v", err)
			}
		})
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		wait.Wait()
		if _, err := c.Get(t.Context(), []byte("k")); !errors.Is(err, clerk.ErrClosed) || !errors.Is(err, clerk.ErrNotDone) {
			t.Errorf("get afterwards: %v", err)
		}
		if _, err := c.Admin().Latest(t.Context()); !errors.Is(err, clerk.ErrClosed) {
			t.Errorf("query afterwards: %v", err)
		}
	})
}

// Frozen, dead and mistaken leaders are found out quickly.
func TestFailover(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "v0")
		g := f.holder("k")
		within := func(what string, limit time.Duration) {
			t.Helper()
			start := time.Now()
			mustPut(t, c, "k", what)
			if took := time.Since(start); took > limit {
				t.Errorf("%s: took %v", what, took)
			}
		}
		g.elect(1)
		within("another leader", 10*time.Millisecond)
		f.stop(g.addresses[1])
		g.elect(2)
		within("leader died", 10*time.Millisecond)
		g.elect(-1)
		time.AfterFunc(time.Second, func() { g.elect(0) })
		within("election", 1300*time.Millisecond)
		f.freeze(g.addresses[0])
		time.AfterFunc(500*time.Millisecond, func() { g.elect(2) })
		within("leader froze", 1500*time.Millisecond)
		within("after that", 10*time.Millisecond)
		f.thaw(g.addresses[0])
		g.misled = g.addresses[1] // which is down
		g.elect(0)
		within("followers name the wrong leader", 100*time.Millisecond)
		g.misled = ""
		f.start(g.addresses[1])
		g.elect(1)
		elapse(2 * time.Second) // the connection's back-off
		within("back", 100*time.Millisecond)
	})
}

// Whoever misleads the Clerk with its redirects, it neither spins nor gives up.
func TestRedirectLoop(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "v")
		s := f.shardOf("k")
		right := f.holder("k")
		nowhere := &fakeGroup{f: f, gid: 7, incarnation: shardcfg.Incarnation{7}, addresses: []string{"nowhere:1"}}
		f.move(s, nowhere, false)
		f.ops = 0
		time.AfterFunc(5*time.Second, func() { f.move(s, right, false) })
		start := time.Now()
		mustGet(t, c, "k", "v")
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("found after %v", took)
		}
		if f.ops > 300 {
			t.Errorf("%d operations in 5 s", f.ops)
		}
	})
}

// The routing machine numbers outcomes as the service does.
func TestCodes(t *testing.T) {
	for name, code := range map[string]route.Code{
		"OK": route.OK, "NOT_FOUND": route.NotFound, "VERSION_MISMATCH": route.VersionMismatch,
		"WRONG_GROUP": route.WrongGroup, "NOT_LEADER": route.NotLeader, "BUSY": route.Busy, "INVALID": route.Invalid,
		"SESSION_EXPIRED": route.SessionExpired, "SESSION_AHEAD": route.SessionAhead, "STALE_SEQUENCE": route.StaleSequence,
		"WRONG_CLUSTER": route.WrongCluster, "UNAVAILABLE": route.Unavailable, "OUTCOME_UNKNOWN": route.OutcomeUnknown,
	} {
		if kvpb.Code_value[name] != int32(code) {
			t.Errorf("%s is %d in the service, %d in the machine", name, kvpb.Code_value[name], code)
		}
	}
	if len(kvpb.Code_value) != 13 {
		t.Errorf("the service has %d codes, the machine 13", len(kvpb.Code_value))
	}
}

// The build links neither Raft nor Pebble into a client.
func TestLinksNoServer(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/shoalkv/shoal/clerk").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("google.golang.org/grpc\n")) {
		t.Fatal("the list of dependencies lacks gRPC: it is not what it seems")
	}
	for _, banned := range []string{"hashicorp/", "cockroachdb/", "bbolt", "shoal/raftgroup\n", "shoal/shardkv\n", "shoal/shardctrler\n"} {
		if bytes.Contains(out, []byte(banned)) {
			t.Errorf("clerk links %s", strings.TrimSpace(banned))
		}
	}
}
