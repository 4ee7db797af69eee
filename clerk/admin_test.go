package clerk_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A change whose replies are lost is made once; a plan changes nothing; a refusal
// is definite and says why; without an answer the outcome is unknown.
func TestChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, func(config *clerk.Config) {
			config.Controllers = []string{f.controllers[2].addr, f.controllers[0].addr}
		})
		a, ctx := c.Admin(), t.Context()
		if change, err := a.Move(ctx, 0, 2, clerk.Plan()); err != nil || change.Changed || len(change.Moves) != 1 || f.config.Num != 1 {
			t.Errorf("plan: %+v, %v", change, err)
		}
		f.controllers[0].loseReplies = 3
		change, err := a.Move(ctx, 0, 2)
		if err != nil || change.Num != 2 || !change.Changed || f.config.Num != 2 {
			t.Errorf("move: %+v, %v; config %d", change, err, f.config.Num)
		}
		_, err = a.Leave(ctx, []shardcfg.GroupID{9})
		var refused *clerk.RefusedError
		if !errors.As(err, &refused) || refused.Reason != ctrlpb.Reason_UNKNOWN_GROUP || clerk.FamilyOf(err) != clerk.FamilyNotDone ||
			!errors.Is(err, clerk.ErrRefused) || !errors.Is(err, clerk.ErrNotFound) {
			t.Errorf("leave of an unknown group: %v", err)
		}
		if _, err := a.Query(ctx, 77); !errors.Is(err, clerk.ErrNotFound) {
			t.Errorf("config 77: %v", err)
		}
		f.controllers[0].loseReplies = 1 << 30
		if _, err := a.Move(ctx, 1, 1); !errors.Is(err, clerk.ErrOutcomeUnknown) || !errors.Is(err, clerk.ErrTimeout) {
			t.Errorf("never an answer: %v", err)
		}
		f.stop(f.controllerAddresses()...)
		synctest.Wait() // until the clerk has seen it: what it sent meanwhile, it could not be sure of
		if _, err := a.Move(ctx, 2, 1); !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, clerk.ErrUnavailable) {
			t.Errorf("nobody there: %v", err)
		}
	})
}

// A watch follows every change, across the loss of a controller, and ends with
// its context.
func TestWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		last := shardcfg.ConfigNum(0)
		for config, err := range c.Admin().Watch(ctx) {
			if err != nil {
				if !errors.Is(err, context.Canceled) || last != 8 {
					t.Errorf("ended at %d: %v", last, err)
				}
				break
			}
			if config.Num != last+1 || !config.Groups[1].Equal(f.config.Groups[1]) {
				t.Errorf("config %d after %d", config.Num, last)
			}
			last = config.Num
			switch {
			case last == 8:
				cancel()
			case last%3 == 0:
				f.stop(f.controllerAddresses()...)
				time.AfterFunc(100*time.Millisecond, func() {
					f.start(f.controllers[1].addr)
					f.start(f.controllers[2].addr)
				})
				fallthrough
			default:
				f.move(int(last), f.groups[last%2], true)
			}
		}
	})
}

// The status shows every replica and shard, and who does not answer; waiting for
// settled shards ends when the last one has arrived.
func TestStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		a, ctx := c.Admin(), t.Context()
		f.stop(f.groups[0].addresses[1], f.controllers[2].addr)
		f.move(0, f.groups[1], false) // the config says otherwise
		st, err := a.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if st.Total != 16 || st.Settled != 15 || st.Moving != 1 || len(st.Handoffs) != 1 || st.Handoffs[0].To != 1 || st.Handoffs[0].From != 2 {
			t.Errorf("shards: %d of %d settled, handoffs %+v", st.Settled, st.Total, st.Handoffs)
		}
		health := map[string]bool{}
		for _, r := range st.Controllers {
			health[r.Address] = r.Healthy
		}
		for _, g := range st.Groups {
			for _, r := range g.Replicas {
				health[r.Address] = r.Healthy
				if leads := r.Address == g.Leader; leads != (r.Role == "leader") {
					t.Errorf("%s is %s of %s", r.Address, r.Role, g.Leader)
				}
			}
		}
		for _, addr := range f.addresses() {
			down := addr == f.groups[0].addresses[1] || addr == f.controllers[2].addr
			if healthy, listed := health[addr]; !listed || healthy == down {
				t.Errorf("%s: listed %v, healthy %v", addr, listed, healthy)
			}
		}
		if st.ConfigErr != nil {
			t.Errorf("the configuration may be old: %v", st.ConfigErr)
		}
		f.stop(f.controllers[0].addr, f.controllers[1].addr)
		if st, err := a.Status(ctx); err != nil || st.ConfigErr == nil || st.Config.Num != 1 {
			t.Errorf("without controllers: %v, %+v", err, st)
		}
		for _, down := range f.controllers[:2] {
			f.start(down.addr)
		}
		time.AfterFunc(time.Minute, func() { f.move(0, f.groups[0], false) })
		start, looks := time.Now(), 0
		err = a.WaitSettled(ctx, 1, func(p clerk.Progress) { looks++ })
		if took := time.Since(start); err != nil || took < time.Minute || took > 62*time.Second || looks == 0 {
			t.Errorf("settled after %v, %d looks: %v", took, looks, err)
		}
		bounded, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if err := a.WaitDrained(bounded, []shardcfg.GroupID{2}, nil); !errors.Is(err, clerk.ErrTimeout) {
			t.Errorf("a group that stays: %v", err)
		}
		if err := a.WaitDrained(ctx, []shardcfg.GroupID{9}, nil); err != nil {
			t.Errorf("a group that is gone: %v", err)
		}
	})
}

// Waiting for settled shards asks the leader of each group for the shards that are on
// their way and for no others, and the less often the longer nothing happens.
func TestWaitingIsCheap(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		f.move(0, f.groups[1], false)
		f.groups[0].elect(1)
		time.AfterFunc(time.Minute, func() { f.move(0, f.groups[0], false) })
		time.AfterFunc(30*time.Second, func() { f.groups[1].elect(2) })
		if err := c.Admin().WaitSettled(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, g := range f.groups {
			// One look each second, and all replicas where the leader is not known.
			if g.asked > 80 || g.rows > g.asked {
				t.Errorf("group %d was asked %d times in a minute, and gave %d rows", g.gid, g.asked, g.rows)
			}
		}
	})
}

// Locate tells where a key is now, also where the configuration differs. Its errors
// are its own, not those of the read that it makes.
func TestLocate(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		s := f.shardOf("k")
		from := f.holder("k")
		to := other(f, from)
		f.move(s, to, false)
		l, err := c.Locate(t.Context(), []byte("k"))
		if err != nil || int(l.Shard) != s || l.Group != to.gid || l.Owner != from.gid || l.Leader != to.addresses[0] || l.Epoch.Num != 2 {
			t.Errorf("%+v, %v", l, err)
		}
		f.stop(to.addresses...)
		if _, err := c.Locate(t.Context(), []byte("k")); err == nil || !strings.HasPrefix(err.Error(), `locate "k": not done: `) {
			t.Errorf("with its group down: %v", err)
		}
	})
}
