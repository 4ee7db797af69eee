package shardkv_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A doomedMachine stops its replica for good instead of installing a shard.
type doomedMachine struct {
	raftgroup.StateMachine
	met *atomic.Bool
}

func (m doomedMachine) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	for _, c := range e.Commands {
		if c.Kind == kvfsm.KindInstall {
			m.met.Store(true)
			return nil, errors.New("doomed")
		}
	}
	return m.StateMachine.Apply(b, e)
}

// destroy ends a process without ceremony and, unless its disk is kept, deletes
// what it had.
func (c *cluster) destroy(p *process, keepDisk bool) {
	p.cancel()
	<-p.done
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = p.host.Close(ctx) // a doomed one fails
	p.host = nil
	if !keepDisk {
		if err := os.RemoveAll(p.dir); err != nil {
			c.t.Error(err)
		}
	}
}

// call makes an administrative call, and repeats it only while no controller
// leads.
func (c *cluster) call(do func(context.Context, ctrlpb.ControllerClient) error) (err error) {
	eventually(c.t, "a controller leads", func() bool {
		for _, a := range c.controllerAddresses() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err = do(ctx, ctrlpb.NewControllerClient(c.conn(a)))
			cancel()
			if status.Code(err) != codes.Unavailable {
				return true
			}
		}
		return false
	})
	return err
}

func (c *cluster) incarnation(gid uint64) []byte {
	for _, g := range c.config().GetGroups() {
		if g.GetGid() == gid {
			return g.GetIncarnation()
		}
	}
	c.t.Fatalf("group %d is not listed", gid)
	return nil
}

func (c *cluster) retire(incarnation []byte, force bool) error {
	request := &ctrlpb.RetireRequest{Request: requestID(), Incarnation: incarnation, Force: force}
	return c.call(func(ctx context.Context, k ctrlpb.ControllerClient) error {
		_, err := k.Retire(ctx, request)
		return err
	})
}

// repair returns how many shards have which fate.
func (c *cluster) repair(lossAccepted bool) (fates map[ctrlpb.Fate]int, err error) {
	fates, _, err = c.repairBy(&ctrlpb.RepairRequest{LossAccepted: lossAccepted})
	return fates, err
}

// repairBy returns besides how many repairs were granted.
func (c *cluster) repairBy(q *ctrlpb.RepairRequest) (fates map[ctrlpb.Fate]int, granted int, err error) {
	err = c.call(func(ctx context.Context, k ctrlpb.ControllerClient) error {
		fates, granted = map[ctrlpb.Fate]int{}, 0
		reply, err := k.Repair(ctx, q)
		for _, f := range reply.GetShards() {
			fates[f.GetFate()]++
			if f.GetGen() > 0 {
				granted++
			}
		}
		return err
	})
	return fates, granted, err
}

// Claim: if a group is destroyed between the freeze and the install of its
// shards, the copies that they were frozen from serve again once the group is
// retired and the shards are repaired, with every write that was acknowledged; but
// not before a person has accepted that writes may be lost, because nobody that is
// left can say that the group had acknowledged none.
func TestDestinationDestroyed(t *testing.T) {
	const shards = 8
	c := newCluster(t, 1, shards)
	c.startGroup(1, 3)
	c.startGroup(3, 1)
	var doomed atomic.Bool
	c.tune = func(o *shardkv.Options) {
		o.Tune = func(r *raftgroup.Options) { r.Machine = doomedMachine{r.Machine, &doomed} }
	}
	c.startGroup(2, 1)
	c.join(1)
	c.waitSettled(shards)
	load := startAppenders(t, c, shards, 2, 16)
	eventually(t, "the load runs", func() bool { return load.count() > 20 })
	c.join(2)
	eventually(t, "group 2 is stopped by its first install", doomed.Load)
	frozen := func() (n int) {
		for _, s := range c.leaderStatus(1).GetShards() {
			if s.GetPhase() == kvpb.Phase_FROZEN {
				n++
			}
		}
		return n
	}
	eventually(t, "a shard is frozen", func() bool { return frozen() > 0 })
	incarnation := c.incarnation(2)
	if _, err := c.repair(false); ctrlpb.ReasonOf(err) != ctrlpb.Reason_GROUP_SILENT {
		t.Errorf("a repair while a group is silent: %v", err)
	}
	c.destroy(c.groups[2][0], false)
	delete(c.groups, 2)
	if err := c.retire(incarnation, false); err != nil {
		t.Fatal(err)
	}
	c.join(3)
	n := frozen()
	for _, accepted := range []bool{false, true} {
		fates, _, err := c.repairBy(&ctrlpb.RepairRequest{LossAccepted: accepted, CopiesOnly: true})
		if err != nil || fates[ctrlpb.Fate_THAWED] != n || fates[ctrlpb.Fate_LOST] != 0 {
			t.Fatalf("%d shards are frozen; repaired: %v, %v", n, fates, err)
		}
		if !accepted && frozen() != n {
			t.Fatalf("%d shards of %d stay frozen, and nobody accepted a loss", frozen(), n)
		}
	}
	c.waitSettled(shards)
	load.check(t)
	if fates, err := c.repair(false); err != nil || len(fates) != 0 {
		t.Errorf("when all is served: %v, %v", fates, err)
	}
}

// Claim: a group that lives is not retired, unless that is forced; one that is
// retired stops when it comes back; its shards begin anew, empty, only if the
// loss is accepted, and other shards do not notice.
func TestHolderDestroyed(t *testing.T) {
	const shards = 8
	c := newCluster(t, 1, shards)
	c.startGroup(1, 1)
	c.startGroup(2, 3)
	c.join(1)
	c.join(2)
	c.waitSettled(shards)
	k := c.client(shards)
	keys := map[string]*kvpb.Outcome{}
	for i := range 64 {
		key := fmt.Sprintf("key-%d", i)
		keys[key] = k.do(t, put(key, "value"))
	}
	held := map[shardcfg.ShardID]bool{}
	for _, s := range c.leaderStatus(2).GetShards() {
		if s.GetPhase() == kvpb.Phase_SERVING {
			held[shardcfg.ShardID(s.GetShard())] = true
		}
	}
	incarnation := c.incarnation(2)
	if err := c.retire(incarnation, false); ctrlpb.ReasonOf(err) != ctrlpb.Reason_GROUP_ALIVE {
		t.Fatalf("a living group is retired: %v", err)
	}
	if err := c.retire(random16(), true); ctrlpb.ReasonOf(err) != ctrlpb.Reason_UNKNOWN_GROUP {
		t.Errorf("an unknown group is retired: %v", err)
	}
	ghosts := c.groups[2]
	for _, p := range ghosts {
		c.destroy(p, true)
	}
	delete(c.groups, 2)
	for range 2 { // it may be said again
		if err := c.retire(incarnation, false); err != nil {
			t.Fatal(err)
		}
	}
	if fates, err := c.repair(false); err != nil || fates[ctrlpb.Fate_LOST] != len(held) || len(fates) != 1 {
		t.Fatalf("group 2 held %d shards; found: %v, %v", len(held), fates, err)
	}
	copies := &ctrlpb.RepairRequest{LossAccepted: true, CopiesOnly: true}
	if fates, granted, err := c.repairBy(copies); err != nil || fates[ctrlpb.Fate_LOST] != len(held) || granted != 0 {
		t.Fatalf("only copies, of which there is none: %v, %d granted, %v", fates, granted, err)
	}
	if fates, err := c.repair(true); err != nil || fates[ctrlpb.Fate_LOST] != len(held) {
		t.Fatalf("repaired: %v, %v", fates, err)
	}
	c.waitSettled(shards)
	k = c.client(shards)
	for key, before := range keys {
		o := k.do(t, get(key))
		if want := held[shardcfg.ShardOf([]byte(key), shards)]; want != (o.GetCode() == kvpb.Code_NOT_FOUND) {
			t.Errorf("%s: %v; its group was destroyed: %v", key, o.GetCode(), want)
		}
		if after := k.do(t, put(key, "again")); after.GetVersion() <= before.GetVersion() {
			t.Errorf("%s: version %d after version %d", key, after.GetVersion(), before.GetVersion())
		}
	}
	// Two of them come back, elect a leader, and learn that they are no more.
	for _, p := range ghosts[:2] {
		c.restart(p)
	}
	first := ghosts[0]
	var ended error
	select {
	case ended = <-first.done:
	case ended = <-ghosts[1].done:
		first = ghosts[1]
	case <-time.After(eventuallyMax):
		t.Fatal("a retired group goes on")
	}
	if !errors.Is(ended, shardkv.ErrRetired) {
		t.Errorf("%s ended with %v", first.label, ended)
	}
	first.done <- nil // for destroy
	for _, p := range ghosts[:2] {
		c.destroy(p, false)
	}
}
