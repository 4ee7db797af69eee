package host

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// TestPoolForgetsAddresses: a host that was connected to as many addresses as it may
// be at once can call another one, in the place of the one that nobody has asked for
// for longest; one that was asked for a moment ago, or is in use, keeps its place.
func TestPoolForgetsAddresses(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	h.run(7, map[string]string{"1": h.Addr()})
	h.ready()
	h.limits.outgoing = 4
	dial := func(addr string) error { _, err := h.Dial(addr); return err }
	rest := func(addr string, since time.Duration) {
		h.pool.mu.Lock()
		defer h.pool.mu.Unlock()
		h.pool.mu.conns[addr].asked = time.Now().Add(-since)
	}
	address := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", i) }
	inUse, err := h.Dial(h.Addr())
	if err != nil {
		t.Fatal(err)
	}
	list := func() error {
		_, err := raftpb.NewMembershipClient(inUse).List(context.Background(), &raftpb.ListRequest{})
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dial(address(1)), dial(address(2)), dial(address(3))); err != nil {
		t.Fatal(err)
	}
	if err := dial(address(4)); err == nil {
		t.Fatal("one that was just asked for was closed")
	}
	rest(h.Addr(), 3*poolRest)
	rest(address(1), poolRest)
	rest(address(2), 2*poolRest)
	if err := dial(address(4)); err != nil {
		t.Fatal(err)
	}
	if len(h.pool.mu.conns) != h.limits.outgoing || h.pool.mu.conns[address(2)] != nil {
		t.Fatalf("%d connections; %s kept: %t", len(h.pool.mu.conns), address(2), h.pool.mu.conns[address(2)] != nil)
	}
	if err := list(); err != nil {
		t.Fatalf("a call on the one that is in use: %v", err)
	}
}
