package clerk_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/clerk"
)

// An address that left the cluster is let go of, whether it is dead or serves
// something else by now: its connection is closed, and nobody dials it again.
func TestAddressThatLeft(t *testing.T) {
	for _, dies := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeCluster(1, 3, 16)
			t.Cleanup(f.close)
			g := f.groups[0]
			gone := g.addresses[2]
			var dials, open atomic.Int64
			c := f.open(t, func(config *clerk.Config) {
				config.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
					if addr != gone {
						return f.dial(ctx, addr)
					}
					dials.Add(1)
					conn, err := f.dial(ctx, addr)
					if err != nil {
						return nil, err
					}
					open.Add(1)
					return &countedConn{Conn: conn, open: &open}, nil
				}
			})
			g.elect(2)
			mustPut(t, c, "k", "v")
			if open.Load() != 1 {
				t.Fatalf("%d connections to the leader", open.Load())
			}
			g.elect(0)
			if dies {
				f.stop(gone)
			}
			f.remove(gone)
			mustPut(t, c, "k", "w")
			use := func(d time.Duration) {
				for range int(d / (10 * time.Second)) {
					elapse(10 * time.Second)
					mustPut(t, c, "k", "w")
				}
			}
			use(10 * time.Minute)
			before := dials.Load()
			use(time.Hour)
			if n := dials.Load() - before; n != 0 || open.Load() != 0 {
				t.Errorf("dead %v: dialled %d times in an hour, %d connections open", dies, n, open.Load())
			}
		})
	}
}

// A server that nobody listens at is not dialled for ever either, if nothing is
// asked of it.
func TestDeadAddressIsLeftInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(1, 3, 16)
		t.Cleanup(f.close)
		var dials atomic.Int64
		c := f.open(t, func(config *clerk.Config) {
			config.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
				dials.Add(1)
				return f.dial(ctx, addr)
			}
		})
		mustPut(t, c, "k", "v")
		f.stop(f.groups[0].addresses...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Put(ctx, []byte("k"), nil); err == nil {
			t.Fatal("a put at a dead group")
		}
		elapse(10 * time.Minute)
		before := dials.Load()
		elapse(time.Hour)
		if n := dials.Load() - before; n != 0 {
			t.Errorf("dialled %d times in an hour without use", n)
		}
		f.start(f.groups[0].addresses[0])
		f.start(f.groups[0].addresses[1])
		mustPut(t, c, "k", "w")
	})
}

// A countedConn counts itself while it is open.
type countedConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}
