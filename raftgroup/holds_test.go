package raftgroup

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// heldLog is a small log of which much may be held.
func heldLog(n *node, o *Options) {
	smallLog(n, o)
	o.LogBytesMax = 1 << 20
}

// Claim: while a snapshot is being sent, and until its receiver has answered, the
// log keeps what the receiver will ask for next; not for ever after that, if
// nothing is heard of it.
func TestOpenTransferHoldsTheLog(t *testing.T) {
	for name, unsafe := range map[string]bool{"contained": false, "noClamp": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				c.tune = func(n *node, o *Options) {
					heldLog(n, o)
					o.unsafe.noClamp = unsafe
				}
				c.startAll()
				defer c.stopAll()
				n := c.leader()
				n.fill(10)
				meta, rc := n.freeze("receiver")
				defer rc.Close()
				cuts := n.replica.Status().Counters.Snapshots
				twoCuts := func() {
					n.fill(100)
					c.eventually("two cuts", func() bool { return n.replica.Status().Counters.Snapshots > cuts+1 })
					cuts = n.replica.Status().Counters.Snapshots
				}
				twoCuts()
				if held := n.replica.Status().FirstIndex <= meta.Index; held == unsafe {
					t.Fatalf("the log begins at %d, the transfer stands at %d", n.replica.Status().FirstIndex, meta.Index)
				}
				// All of it is in the receiver's hands, which is at work and does not answer.
				if _, err := io.Copy(io.Discard, rc); err != nil {
					t.Fatal(err)
				}
				twoCuts()
				if held := n.replica.Status().FirstIndex <= meta.Index; held == unsafe {
					t.Fatalf("the log begins at %d, the transfer that was not answered stands at %d", n.replica.Status().FirstIndex, meta.Index)
				}
				rc.Close()
				twoCuts()
				if held := n.replica.Status().FirstIndex <= meta.Index; held == unsafe {
					t.Fatalf("the log begins at %d, the receiver that has yet to follow stands at %d", n.replica.Status().FirstIndex, meta.Index)
				}
				time.Sleep(holdIdleMax + time.Second) // virtual
				twoCuts()
				if first := n.replica.Status().FirstIndex; first <= meta.Index {
					t.Fatalf("the log begins at %d, and is held for a receiver of which nothing was heard for %v", first, holdIdleMax)
				}
			})
		})
	}
}

// Claim: the log is held for a receiver up to LogBytesMax and no further.
func TestHoldIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = func(n *node, o *Options) {
			smallLog(n, o)
			o.LogBytesMax = 64 << 10
		}
		c.startAll()
		defer c.stopAll()
		n := c.leader()
		meta, rc := n.freeze("receiver")
		defer rc.Close()
		most := int64(0)
		for n.replica.Status().FirstIndex <= meta.Index {
			n.fill(10)
			synctest.Wait() // a cut that is due takes no time; without this it gets none, where proposals keep the processors
			most = max(most, n.replica.Status().LogBytes)
			if most > 72<<10 { // with SnapshotLogBytes, and what was just written
				t.Fatalf("the log grew to %d bytes", most)
			}
		}
		if most < 60<<10 {
			t.Fatalf("the log was held up to %d bytes only", most)
		}
	})
}

// slowEnd delays the end of a stream: the receiver has every byte, and is at work.
type slowEnd struct {
	io.Reader
	work func()
}

func (s slowEnd) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		s.work()
	}
	return n, err
}

// Claim: a receiver that needs as long for a snapshot as some cuts of the log, and
// that has as much to catch up with after it, follows by entries after one.
func TestSlowReceiverFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = heldLog
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		away := c.followers(leader)[0]
		away.isolate()
		leader.fill(100)
		c.eventually("cut", func() bool { return leader.replica.Status().FirstIndex > away.replica.Status().LastIndex+1 })
		sent := 0
		work := func() {
			for i := range 200 {
				leader.put("load%d=%s", i, fmt.Sprintf("%0200d", sent))
			}
		}
		leader.transport.hook(func() {
			leader.transport.installing = func(data io.Reader) io.Reader {
				if sent++; sent > 10 {
					return data
				}
				return slowEnd{data, work}
			}
		})
		away.rejoin()
		c.converge()
		if sent != 1 {
			t.Fatalf("%d snapshots were sent before the follower could follow by entries", sent)
		}
		leader.fill(100)
		c.eventually("end of the hold", func() bool { return len(leader.replica.holds.needs()) == 0 })
	})
}

// Claim: the log keeps more of a larger store, so that a replica that was away for
// a while needs no copy of it.
func TestTrailingLogScales(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = heldLog
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		leader.fill(800) // 160 KiB and more
		c.converge()
		away := c.followers(leader)[0]
		away.isolate()
		before := leader.replica.Status().Counters
		leader.fill(200) // 40 KiB and more: many times SnapshotLogBytes and TrailingLogBytes
		c.eventually("cuts", func() bool { return leader.replica.Status().Counters.Snapshots > before.Snapshots+3 })
		away.rejoin()
		c.converge()
		if s := leader.replica.Status(); s.Counters.SnapshotsSent > before.SnapshotsSent || s.LogBytes > leader.store.DiskUsage() {
			t.Fatalf("%d copies were sent; %d bytes of log, %d of state", s.Counters.SnapshotsSent-before.SnapshotsSent, s.LogBytes, leader.store.DiskUsage())
		}
	})
}

// Claim: for a member that is down nothing is frozen, however long; when it is back
// it gets what it needs.
func TestNothingIsFrozenForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.tune = smallLog
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		dead := c.followers(leader)[0]
		dead.isolate()
		before := leader.replica.Status().Counters.SnapshotsSent
		leader.fill(100)
		c.eventually("cut", func() bool { return leader.replica.Status().FirstIndex > dead.replica.Status().LastIndex+1 })
		time.Sleep(10 * time.Minute) // virtual
		if n := leader.replica.Status().Counters.SnapshotsSent - before; n > 0 {
			t.Errorf("%d checkpoints were made in ten minutes for a member that is down", n)
		}
		dead.rejoin()
		c.converge()
		if n := leader.replica.Status().Counters.SnapshotsSent - before; n != 1 {
			t.Errorf("%d checkpoints were made for a member that is back", n)
		}
	})
}

// Claim: a hold that begins while a cut is decided outlives it, though the same
// receiver's last one had become too long, or was no longer needed.
func TestHoldThatBeginsUnderACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = heldLog
		c.startAll()
		defer c.stopAll()
		r := c.leader().replica
		tail := &logTail{cacheMax: 1}
		for i := range uint64(1000) {
			tail.append(&raft.Log{Index: i + 1, Data: make([]byte, 2<<10)})
		}
		for name, old := range map[string]uint64{"too long": 100, "near": 900} {
			r.holds.begin("receiver", old)
			r.holds.sent("receiver")
			needs := r.holds.needs()
			r.holds.begin("receiver", 950)
			r.holds.clamp(tail, needs, 800)
			if needs := r.holds.needs(); needs["receiver"] != 950 {
				t.Errorf("%s: held are %v, want the log from 950 on", name, needs)
			}
			r.holds.end("receiver")
		}
	})
}

// Claim: of several receivers each is judged by what the cut would take from it:
// the hold of one that lags far does not end that of another.
func TestHoldsOfSeveralReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.tune = heldLog
		c.startAll()
		defer c.stopAll()
		r := c.leader().replica
		tail := &logTail{cacheMax: 1}
		for i := range uint64(1000) {
			tail.append(&raft.Log{Index: i + 1})
		}
		receivers := map[raft.ServerID]uint64{"far": 100, "middle": 400, "near": 900}
		for range 20 { // the order of a map differs
			for id, index := range receivers {
				r.holds.begin(id, index)
				r.holds.sent(id)
			}
			if high := r.holds.clamp(tail, r.holds.needs(), 800); high != 99 {
				t.Fatalf("the cut goes up to %d, a receiver needs the log from 100 on", high)
			}
			if needs := r.holds.needs(); len(needs) != 2 || needs["far"] != 100 || needs["middle"] != 400 {
				t.Fatalf("held are %v, want those of far and middle", needs)
			}
		}
	})
}
