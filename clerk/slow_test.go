package clerk_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A slowLink passes so many bytes a second each way, for all connections over it
// together.
type slowLink struct {
	rate     int
	up, down chan struct{} // held by whose bytes pass
}

func newSlowLink(rate int) *slowLink {
	return &slowLink{rate: rate, up: make(chan struct{}, 1), down: make(chan struct{}, 1)}
}

func (l *slowLink) pass(way chan struct{}, n int) {
	way <- struct{}{}
	elapse(time.Duration(n) * time.Second / time.Duration(l.rate))
	<-way
}

// piece is how many bytes pass at once: as on a real link, few on a slow one.
func (l *slowLink) piece() int { return min(16<<10, l.rate/16) }

// over makes the connections of a Clerk pass the link.
func (l *slowLink) over(f *fakeCluster) func(*clerk.Config) {
	return func(config *clerk.Config) {
		config.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := f.dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return slowConn{conn, l}, nil
		}
	}
}

type slowConn struct {
	net.Conn
	l *slowLink
}

func (c slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), c.l.piece())])
	c.l.pass(c.l.down, n)
	return n, err
}

func (c slowConn) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		var n int
		n, err = c.Conn.Write(b[done:min(len(b), done+c.l.piece())])
		c.l.pass(c.l.up, n)
		done += n
	}
	return done, err
}

// Whatever takes long to pass a slow link is not asked for again while it is on its
// way: large values both ways, many small ones at once, pages of a scan.
func TestSlowLink(t *testing.T) {
	for _, rate := range []int{128 << 10, 1 << 20, 8 << 20} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeCluster(1, 1, 16)
			t.Cleanup(f.close)
			fast := f.open(t, nil)
			c := f.open(t, newSlowLink(rate).over(f))
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			once := func(what string, operations int, do func() error) {
				t.Helper()
				f.mu.Lock()
				before := f.ops + f.pages
				f.mu.Unlock()
				start := time.Now()
				err := do()
				f.mu.Lock()
				defer f.mu.Unlock()
				if n := f.ops + f.pages - before; err != nil || n != operations {
					t.Errorf("%s at %d KiB/s: %d executions, want %d; %v after %v", what, rate>>10, n, operations, err, time.Since(start))
				}
			}
			large := bytes.Repeat([]byte("x"), shardcfg.ValueBytesMax)
			once("a large put", 1, func() error {
				_, err := c.Put(ctx, []byte("large"), large)
				return err
			})
			once("a large get", 1, func() error {
				v, err := c.Get(ctx, []byte("large"))
				if err == nil && !bytes.Equal(v.Bytes, large) {
					err = fmt.Errorf("%d bytes came", len(v.Bytes))
				}
				return err
			})
			var keys [][]byte
			for i := range 256 {
				keys = append(keys, fmt.Appendf(nil, "small%d", i))
				if _, err := fast.Put(ctx, keys[i], large[:16<<10]); err != nil {
					t.Fatal(err)
				}
			}
			once("many gets", len(keys), func() error {
				for _, r := range c.GetMulti(ctx, keys) {
					if r.Err != nil {
						return r.Err
					}
				}
				return nil
			})
			once("a scan", len(f.shards), func() error {
				for _, err := range c.Scan(ctx, []byte("large")) {
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// Connections to many groups share a slow link: each is quiet now and then, and none
// is given up.
func TestSharedSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(8, 1, 64)
		t.Cleanup(f.close)
		fast := f.open(t, nil)
		var keys [][]byte
		for i := range 64 {
			keys = append(keys, fmt.Appendf(nil, "big%d", i))
			if _, err := fast.Put(t.Context(), keys[i], bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		c := f.open(t, newSlowLink(12<<20).over(f))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		f.mu.Lock()
		before := f.ops
		f.mu.Unlock()
		for i, r := range c.GetMulti(ctx, keys) {
			if r.Err != nil {
				t.Errorf("%s: %v", keys[i], r.Err)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		// Only those are asked for again that had no room in an answer.
		if n := f.ops - before; n > len(keys)*3/2 {
			t.Errorf("%d gets needed %d operations", len(keys), n)
		}
	})
}

// A configuration that takes seconds to pass the link is learned, from the
// controllers or, where they are gone, from the replicas; and anew when it changes.
func TestPlacementOverSlowLink(t *testing.T) {
	for _, controllers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeCluster(2, 1, shardcfg.ShardCountMax)
			t.Cleanup(f.close)
			if !controllers {
				f.stop(f.controllerAddresses()...)
			}
			c := f.open(t, func(config *clerk.Config) {
				newSlowLink(16 << 10).over(f)(config)
				config.Timeout = 5 * time.Minute
				config.Seeds = f.groups[0].addresses
			})
			mustPut(t, c, "k", "v")
			if !controllers {
				return
			}
			f.move(f.shardOf("k"), other(f, f.holder("k")), true)
			for begun := time.Now(); c.Placement().Num < 2; {
				mustPut(t, c, "k", "v")
				elapse(time.Second)
				if time.Since(begun) > 2*time.Minute {
					t.Fatal("the new configuration is not learned")
				}
			}
		})
	}
}
