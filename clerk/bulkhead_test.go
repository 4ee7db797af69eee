package clerk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// The keys of living groups come, although one group is gone, and as many keys as
// one likes wait for it.
func TestMultiBesideDeadGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		var pairs []clerk.Pair
		var keys [][]byte
		for i := range 5000 {
			keys = append(keys, fmt.Appendf(nil, "m%05d", i))
			pairs = append(pairs, clerk.Pair{Key: keys[i], Value: keys[i]})
		}
		for _, r := range c.PutMulti(t.Context(), pairs) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		dead := f.groups[0]
		f.stop(dead.addresses...)
		for i, r := range c.GetMulti(t.Context(), keys) {
			if f.holder(string(keys[i])) == dead {
				if !errors.Is(r.Err, clerk.ErrTimeout) {
					t.Fatalf("key %s of the dead group: %v", keys[i], r.Err)
				}
			} else if r.Err != nil || !bytes.Equal(r.Value.Bytes, keys[i]) {
				t.Fatalf("key %s of a living group: %q, %v", keys[i], r.Value.Bytes, r.Err)
			}
		}
	})
}

// One shard that nobody serves holds up no other key of a call for many.
func TestMultiBesideStuckShard(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		stuck := f.shardOf("{stuck}")
		f.setFault(func(_ string, op *kvpb.Operation) fault {
			if f.shardOf(string(op.GetKey())) == stuck {
				return faultBusy
			}
			return faultNone
		})
		var pairs []clerk.Pair
		for i := range 1000 {
			pairs = append(pairs, clerk.Pair{Key: fmt.Appendf(nil, "{stuck}%d", i)})
		}
		for i := range 1000 {
			pairs = append(pairs, clerk.Pair{Key: fmt.Appendf(nil, "k%d", i)})
		}
		for i, r := range c.PutMulti(t.Context(), pairs) {
			if key := string(pairs[i].Key); f.shardOf(key) != stuck && r.Err != nil {
				t.Fatalf("key %s: %v", key, r.Err)
			}
		}
	})
}

// As many operations as may be under way wait for one group; those of another find
// room. Who waits for room goes where its shard goes.
func TestBulkheads(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, func(config *clerk.Config) { config.InFlightMax = 64 })
		putAll(t, f, c)
		stuck := f.holder("k")
		f.setFault(func(addr string, _ *kvpb.Operation) fault {
			if addr == stuck.addresses[0] {
				return faultBusy
			}
			return faultNone
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		defer wait.Wait()
		defer cancel()
		for range 64 {
			wait.Go(func() { _, _ = c.Put(ctx, []byte("k"), []byte("v")) })
		}
		synctest.Wait()
		living := ""
		for i := 0; living == ""; i++ {
			if key := fmt.Sprintf("living%d", i); f.holder(key) != stuck {
				living = key
			}
		}
		start := time.Now()
		mustPut(t, c, living, "v")
		if took := time.Since(start); took > time.Millisecond {
			t.Errorf("a put at a living group took %v", took)
		}
		time.AfterFunc(time.Second, func() { f.move(f.shardOf("k"), other(f, stuck), true) })
		mustPut(t, c, "k", "w")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("a put that waited for room took %v after its shard had moved", took)
		}
	})
}

// However many operations wait for a dead group, the others are asked a few times
// whether they have its shards.
func TestOutsidersAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(8, 3, 64)
		t.Cleanup(f.close)
		c := f.open(t, nil)
		for i := range 200 {
			mustPut(t, c, fmt.Sprintf("w%d", i), "v")
		}
		dead := f.holder("k")
		f.stop(dead.addresses...)
		f.mu.Lock()
		before := f.ops
		f.mu.Unlock()
		var wait sync.WaitGroup
		waiting := 0
		for i := range 5000 {
			if key := fmt.Sprintf("k%d", i); f.holder(key) == dead {
				waiting++
				wait.Go(func() {
					if _, err := c.Get(t.Context(), []byte(key)); !errors.Is(err, clerk.ErrTimeout) {
						t.Errorf("get %s: %v", key, err)
					}
				})
			}
		}
		wait.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := f.ops - before; waiting < 500 || n == 0 || n > 200 {
			t.Errorf("%d operations waited for 10 s, and made %d requests at other groups", waiting, n)
		}
	})
}

// A shard that only one of many groups knows of is found, although no controller
// tells, and its own group knows nothing.
func TestLostShardIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(16, 1, 64)
		t.Cleanup(f.close)
		c := f.open(t, func(config *clerk.Config) { config.Pinned = f.config })
		s, last := f.shardOf("k"), f.groups[len(f.groups)-1]
		from := f.holder("k")
		f.move(s, last, false)
		f.mu.Lock()
		f.ignorant = true
		f.mu.Unlock()
		start := time.Now()
		mustPut(t, c, "k", "v")
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("found after %v", took)
		}
		if from == last {
			t.Fatal("the shard did not move")
		}
	})
}
