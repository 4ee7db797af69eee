package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A call whose context ended before it began is not done, and nothing of it
// reaches a server.
func TestEndedContext(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, stop := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer stop()
	for _, ended := range []struct {
		ctx   context.Context
		cause error
	}{{cancelled, context.Canceled}, {late, clerk.ErrTimeout}} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, nil)
			putAll(t, f, c)
			elapse(time.Second)
			f.mu.Lock()
			messages, ops, changes := f.messages, f.ops, f.changes
			f.mu.Unlock()
			check := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, ended.cause) {
					t.Fatalf("%s: %v; want not done, %v", what, err, ended.cause)
				}
			}
			for i := range 500 {
				key := fmt.Appendf(nil, "x%d", i)
				_, err := c.Put(ended.ctx, key, []byte("v"))
				check("put", err)
				_, err = c.Append(ended.ctx, key, []byte("v"))
				check("append", err)
				check("delete", c.Delete(ended.ctx, key))
				_, err = c.Get(ended.ctx, key)
				check("get", err)
			}
			for _, r := range c.PutMulti(ended.ctx, []clerk.Pair{{Key: []byte("x"), Value: []byte("v")}, {Key: []byte("y")}}) {
				check("put of many", r.Err)
			}
			for _, err := range c.Scan(ended.ctx, nil) {
				check("scan", err)
			}
			_, err := c.Admin().Move(ended.ctx, 0, 2)
			check("move", err)
			_, err = c.Admin().Latest(ended.ctx)
			check("query", err)
			check("wait", c.Admin().WaitSettled(ended.ctx, 1, nil))
			elapse(time.Second)
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.messages != messages || f.ops != ops || f.changes != changes {
				t.Errorf("%d messages, %d operations, %d changes came", f.messages-messages, f.ops-ops, f.changes-changes)
			}
		})
	}
}

// A caller that gives up says nothing of the server: the others go on asking the
// leader. A server that is silent is asked last, also where no caller is patient
// enough to see it.
func TestImpatientCallers(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		mustPut(t, c, "k", "v")
		g := f.holder("k")
		slow := true
		f.setFault(func(string, *kvpb.Operation) fault {
			if slow {
				slow = false
				return faultSlow
			}
			return faultNone
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx, []byte("k")); !errors.Is(err, clerk.ErrTimeout) {
			t.Fatalf("the slow get: %v", err)
		}
		f.mu.Lock()
		before := f.ops
		f.mu.Unlock()
		mustGet(t, c, "k", "v")
		f.mu.Lock()
		if n := f.ops - before; n != 1 {
			t.Errorf("the next get needed %d requests", n)
		}
		f.mu.Unlock()
		f.freeze(g.addresses[0])
		g.elect(1)
		for begun := time.Now(); ; {
			elapse(300 * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err := c.Get(ctx, []byte("k"))
			cancel()
			if err == nil {
				break
			}
			if time.Since(begun) > 2*time.Second {
				t.Fatalf("the frozen leader is still asked first: %v", err)
			}
		}
	})
}

// A change is dated by the controllers' clock, whatever the client's says.
func TestClockOfAdministrator(t *testing.T) {
	for _, off := range []time.Duration{-100 * time.Hour, -2 * time.Hour, 2 * time.Hour, 100 * time.Hour} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, func(config *clerk.Config) { config.Now = func() time.Time { return time.Now().Add(off) } })
			elapse(3 * time.Hour)
			if change, err := c.Admin().Move(t.Context(), 0, 2); err != nil || !change.Changed {
				t.Errorf("clock off by %v: %+v, %v", off, change, err)
			}
		})
	}
}

// A wait that ends names what stood in its way, and nothing that did not: a look
// that was cut off blames nobody.
func TestWaitBlamesNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		a := c.Admin()
		for _, limit := range []time.Duration{time.Second, 1100 * time.Millisecond, 1250 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			time.AfterFunc(limit-50*time.Millisecond, func() { f.freeze(f.controllerAddresses()...) })
			err := a.WaitDrained(ctx, []shardcfg.GroupID{2}, nil)
			cancel()
			f.thaw(f.controllerAddresses()...)
			if !errors.Is(err, clerk.ErrTimeout) || strings.Contains(err.Error(), "no controller serves") {
				t.Errorf("after %v: %v", limit, err)
			}
		}
		f.stop(f.controllerAddresses()...)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := a.WaitDrained(ctx, []shardcfg.GroupID{2}, nil); !strings.Contains(err.Error(), "no controller serves") {
			t.Errorf("without controllers: %v", err)
		}
	})
}
