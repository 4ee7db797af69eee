package clerk_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// someKeys are keys of all 16 shards.
func someKeys(f *fakeCluster) (keys []string) {
	seen := map[int]bool{}
	for i := 0; len(seen) < len(f.shards); i++ {
		key := "key" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		if s := f.shardOf(key); !seen[s] {
			seen[s] = true
			keys = append(keys, key)
		}
	}
	return keys
}

func putAll(t *testing.T, f *fakeCluster, c *clerk.Clerk) {
	t.Helper()
	for _, key := range someKeys(f) {
		mustPut(t, c, key, key)
		mustGet(t, c, key, key)
	}
}

// Without controllers, a Clerk starts from seeds, and finds shards of groups
// that it was not told of by redirects.
func TestStartFromSeeds(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		f.stop(f.controllerAddresses()...)
		f.move(3, f.groups[0], false)
		f.stop(f.groups[0].addresses[0])
		f.groups[0].elect(2)
		c := f.open(t, func(config *clerk.Config) { config.Seeds = f.groups[0].addresses[:2] })
		putAll(t, f, c)
		if c.Cluster() != f.id {
			t.Errorf("cluster is %s", c.Cluster())
		}
	})
}

// One controller is enough to start from and to follow the shards with, though it
// has no majority to lead; changes of configuration fail in time then.
func TestStartWithMinorityOfControllers(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		f.stop(f.controllerAddresses()[:2]...)
		f.move(3, other(f, f.shards[3].holder), false)
		start := time.Now()
		c := f.open(t, nil)
		putAll(t, f, c)
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		start = time.Now()
		_, err := c.Admin().Move(t.Context(), 1, 1)
		if !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, clerk.ErrUnavailable) || !strings.Contains(err.Error(), f.controllers[2].addr+" says: this controller does not lead") {
			t.Errorf("move: %v", err)
		}
		if took := time.Since(start); took > 7*time.Second {
			t.Errorf("move failed after %v", took)
		}
	})
}

// A controller that accepts connections and says nothing, as a frozen one or one
// whose host is gone, does not hold up the start, though it is the first.
func TestStartBesideSilentController(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		silent := f.controllers[0].addr
		f.stop(silent)
		start := time.Now()
		c := f.open(t, func(config *clerk.Config) {
			config.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == silent {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return f.dial(ctx, addr)
			}
		})
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		putAll(t, f, c)
	})
}

// Before any group has joined, the error of an operation says just that.
func TestNoGroups(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		f.config = &shardcfg.Config{Shards: make([]shardcfg.GroupID, len(f.shards)), Groups: map[shardcfg.GroupID]shardcfg.Group{}}
		for s := range f.shards {
			f.shards[s].holder = &fakeGroup{f: f}
		}
		_, err := f.open(t, nil).Put(t.Context(), []byte("k"), nil)
		if !errors.Is(err, clerk.ErrNotDone) || !strings.Contains(err.Error(), "no group has joined the cluster") {
			t.Errorf("put: %v", err)
		}
	})
}

// Without controllers, a Clerk starts from what an earlier one left in the cache
// file, however the shards have moved since.
func TestStartFromCache(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		cached := func(config *clerk.Config) { config.CacheFile = filepath.Join(t.TempDir(), "config") }
		file := ""
		first := f.open(t, func(config *clerk.Config) { cached(config); file = config.CacheFile })
		putAll(t, f, first)
		synctest.Wait() // until the file is written: Open does not wait for that
		f.stop(f.controllerAddresses()...)
		for s := range f.shards {
			f.move(s, f.groups[s/4%2], false)
		}
		c := f.open(t, func(config *clerk.Config) { config.CacheFile = file })
		putAll(t, f, c)
		start := time.Now()
		_, err := c.Admin().Latest(t.Context())
		if !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, clerk.ErrUnavailable) {
			t.Errorf("query without controllers: %v", err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("it took %v to find out that no controller is there", took)
		}
		for _, addr := range f.controllerAddresses() {
			if !strings.Contains(err.Error(), addr+" does not accept connections: connection refused") {
				t.Errorf("nothing of %s in: %v", addr, err)
			}
		}
	})
}

// A cache file without a directory in its name is written in the working
// directory, and nowhere else on the way.
func TestCacheFileWithoutDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TMPDIR", "/nowhere")
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		mustPut(t, f.open(t, func(config *clerk.Config) { config.CacheFile = "config" }), "k", "v")
		synctest.Wait()
		if left, err := filepath.Glob("*"); err != nil || len(left) != 1 || left[0] != "config" {
			t.Errorf("the directory holds %q, %v", left, err)
		}
	})
}

// A cache file that is left from another cluster gives way to the controllers that
// were named, and is replaced.
func TestCacheOfAnotherCluster(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		file := filepath.Join(t.TempDir(), "config")
		cached := func(config *clerk.Config) { config.CacheFile = file }
		mustPut(t, f.open(t, cached), "k", "v")
		synctest.Wait()
		f.mu.Lock()
		f.id = shardcfg.ClusterID{3}
		f.mu.Unlock()
		for range 2 { // the second time, from the file that the first one wrote
			c := f.open(t, cached)
			putAll(t, f, c)
			if c.Cluster() != f.id {
				t.Errorf("the cluster is %v", c.Cluster())
			}
			synctest.Wait()
		}
	})
}

// A pinned configuration that is wrong about every shard serves all the same.
func TestPinnedConfig(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		lying := f.config.Clone()
		for s := range lying.Shards {
			lying.Shards[s] = other(f, f.shards[s].holder).gid
		}
		c := f.open(t, func(config *clerk.Config) { config.Pinned = lying })
		putAll(t, f, c)
		putAll(t, f, c)
		if c.Placement().Num != lying.Num || c.Placement().Shards[0] != lying.Shards[0] {
			t.Error("the pinned configuration was replaced")
		}
	})
}

// Nothing to reach, and another cluster than the one that is meant, are definite
// and timely errors of Open.
func TestOpenFails(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		config := clerk.Config{Controllers: f.controllerAddresses(), Dialer: f.dial, Timeout: time.Second, Cluster: shardcfg.ClusterID{2}}
		start := time.Now()
		if _, err := clerk.Open(t.Context(), config); !errors.Is(err, clerk.ErrWrongCluster) || !errors.Is(err, clerk.ErrNotDone) {
			t.Errorf("another cluster: %v", err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("found out after %v", took)
		}
		f.stop(f.controllerAddresses()...)
		config.Cluster = shardcfg.ClusterID{}
		start = time.Now()
		if _, err := clerk.Open(t.Context(), config); !errors.Is(err, clerk.ErrUnavailable) || !errors.Is(err, clerk.ErrTimeout) {
			t.Errorf("nobody there: %v", err)
		}
		if took := time.Since(start); took > 1100*time.Millisecond {
			t.Errorf("gave up after %v", took)
		}
		config.Timeout, start = time.Minute, time.Now()
		if _, err := clerk.Open(t.Context(), config); !errors.Is(err, clerk.ErrUnavailable) || !errors.Is(err, clerk.ErrNotDone) {
			t.Errorf("nobody there for a minute: %v", err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("nobody was there for %v", took)
		}
		if _, err := clerk.Open(t.Context(), clerk.Config{}); !errors.Is(err, clerk.ErrInvalid) {
			t.Errorf("no addresses: %v", err)
		}
		f.start(f.controllers[0].addr)
		c := f.open(t, nil)
		mustPut(t, c, "k", "v")
		f.mu.Lock()
		f.id = shardcfg.ClusterID{3} // the addresses were given to others
		f.mu.Unlock()
		if _, err := c.Put(t.Context(), []byte("k"), nil); !errors.Is(err, clerk.ErrWrongCluster) || !errors.Is(err, clerk.ErrNotDone) {
			t.Errorf("servers of another cluster: %v", err)
		}
	})
}

// Losing the controllers does not stop reads and writes, moves included.
func TestControllersLost(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		putAll(t, f, c)
		f.stop(f.controllerAddresses()...)
		for s := range f.shards {
			f.move(s, other(f, f.shards[s].holder), false)
		}
		start := time.Now()
		putAll(t, f, c)
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}
