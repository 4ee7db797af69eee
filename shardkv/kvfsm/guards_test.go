package kvfsm_test

import (
	"fmt"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A holder is the machine of group 1 with one shard, which it created at config
// 1.
type holder struct {
	t       *testing.T
	store   *store.Mem
	machine *kvfsm.Machine
	index   uint64
}

func newHolder(t *testing.T) *holder {
	h := &holder{t: t, store: store.NewMem(), machine: kvfsm.New(kvfsm.Config{Group: 1, Incarnation: incOf(1), ShardCount: 1})}
	if err := h.machine.Reset(h.store); err != nil {
		t.Fatal(err)
	}
	h.adopt(1, 1)
	h.apply(&kvfsm.Create{Claimer: incOf(1)})
	return h
}

// apply applies a command that must take effect.
func (h *holder) apply(c kvfsm.Command) {
	h.t.Helper()
	if v := h.try(c); !v.Done {
		h.t.Fatalf("%T: %v", c, v.Why)
	}
}

// try applies a command; a write counts as done.
func (h *holder) try(c kvfsm.Command) kvfsm.Verdict {
	h.t.Helper()
	b, err := h.store.NewBatch()
	if err != nil {
		h.t.Fatal(err)
	}
	defer b.Close()
	h.index++
	results, err := h.machine.Apply(b, &entry.Entry{Index: h.index, Term: 1, Clock: 1000, Commands: []entry.Command{kvfsm.Encode(c)}})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		h.t.Fatal(err)
	}
	if v, ok := results[0].(kvfsm.Verdict); ok {
		return v
	}
	return kvfsm.Verdict{Done: true}
}

// adopt adopts a config of three groups that gives the shard to owner.
func (h *holder) adopt(num shardcfg.ConfigNum, owner int) {
	h.t.Helper()
	h.apply(&kvfsm.Adopt{Cluster: shardcfg.ClusterID{1}, Config: threeGroups(num, owner)})
}

// retire adopts a config that names a group as destroyed.
func (h *holder) retire(num shardcfg.ConfigNum, destroyed int) {
	h.t.Helper()
	c := threeGroups(num, 3)
	delete(c.Groups, shardcfg.GroupID(destroyed))
	c.Retired = []shardcfg.Incarnation{incOf(destroyed)}
	h.apply(&kvfsm.Adopt{Cluster: shardcfg.ClusterID{1}, Config: c})
}

func threeGroups(num shardcfg.ConfigNum, owner int) *shardcfg.Config {
	c := &shardcfg.Config{Num: num, Shards: []shardcfg.GroupID{shardcfg.GroupID(owner)},
		Groups: map[shardcfg.GroupID]shardcfg.Group{}, Pins: map[shardcfg.ShardID]shardcfg.Pin{}}
	for gid := 1; gid <= 3; gid++ {
		c.Groups[shardcfg.GroupID(gid)] = shardcfg.Group{Incarnation: incOf(gid), Replicas: []string{"a:1"}, Weight: 1, State: shardcfg.GroupMember}
	}
	return c
}

func (h *holder) put(key string) {
	h.t.Helper()
	h.apply(&kvfsm.Write{Op: kvfsm.OpPut, Key: []byte(key), Value: []byte("v")})
}

// logged counts the changes in the shard's change log.
func (h *holder) logged() int {
	h.t.Helper()
	rec, err := kvfsm.ReadRecord(h.store, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	changes, _, err := kvfsm.ReadTailSize(h.store, &rec, 0, 100)
	if err != nil {
		h.t.Fatal(err)
	}
	return changes
}

// A handoff that is called off, or gets another receiver, leaves no change log
// behind: nobody would ever read it (INV-9).
func TestCalledOffHandoffLeavesNoLog(t *testing.T) {
	for name, owner := range map[string]int{"cancelled": 1, "re-targeted": 3} {
		t.Run(name, func(t *testing.T) {
			h := newHolder(t)
			h.adopt(2, 2)
			h.apply(&kvfsm.Start{Handoff: 2})
			h.put("a")
			h.put("b")
			if got := h.logged(); got != 2 {
				t.Fatalf("%d changes are logged while leaving, want 2", got)
			}
			h.adopt(3, owner)
			if got := h.logged(); got != 0 {
				t.Errorf("%d changes are logged, want none", got)
			}
		})
	}
}

// A shard that begins anew has nothing of what was there: neither the copy that was
// held, nor its change log, nor what was being fetched (INV-9).
func TestCreateAnewLeavesNothing(t *testing.T) {
	h := newHolder(t)
	h.adopt(2, 2)
	h.put("a")
	h.apply(&kvfsm.Start{Handoff: 2})
	h.put("b")
	h.apply(&kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	h.adopt(3, 1)
	h.apply(&kvfsm.Stage{Epoch: shardcfg.Epoch{Num: 3}, Handoff: 3, From: peerOf(2), To: incOf(1)})
	key := append([]byte{4}, "c"...)
	h.apply(&kvfsm.Chunk{Epoch: shardcfg.Epoch{Num: 3}, Handoff: 3, Next: kvfsm.Cursor{Key: key}, Items: []kvfsm.Item{{Key: key, Value: storedValue(0)}}})
	stored := func() (n int) {
		it, err := h.store.Iterate(nil, []byte{0xFF})
		if err != nil {
			t.Fatal(err)
		}
		for it.Next() {
			n++
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if stored() < 4 {
		t.Fatalf("only %d keys are stored before", stored())
	}
	h.apply(&kvfsm.Create{Claimer: incOf(1), Gen: 1})
	if n := stored(); n != 1 {
		t.Errorf("%d keys are stored; want only the session floor", n)
	}
}

// A scan is served by the phase of the state that it reads (INV-3).
func TestScanFollowsThePhase(t *testing.T) {
	h := newHolder(t)
	h.put("a")
	want := func(code kvfsm.Code, entries int) {
		t.Helper()
		page, err := kvfsm.ReadScan(h.store, kvfsm.Scan{KeysMax: 10, BytesMax: 1 << 20})
		if err != nil || page.Code != code || len(page.Entries) != entries {
			t.Errorf("scan: %+v, %v; want %v and %d entries", page, err, code, entries)
		}
	}
	want(kvfsm.CodeOK, 1)
	h.adopt(2, 2)
	h.apply(&kvfsm.Start{Handoff: 2})
	want(kvfsm.CodeOK, 1)
	h.apply(&kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	want(kvfsm.CodeWrongGroup, 0)
	h.apply(&kvfsm.Drop{Epoch: shardcfg.Epoch{Num: 1}})
	want(kvfsm.CodeWrongGroup, 0)
}

// A value that is larger than a page travels alone, in the copy and in the
// tail.
func TestLargeValuesTravelAlone(t *testing.T) {
	h := newHolder(t)
	for _, key := range []string{"a", "b"} {
		h.put(key)
	}
	h.adopt(2, 2)
	h.apply(&kvfsm.Start{Handoff: 2})
	for _, key := range []string{"c", "d"} {
		h.put(key)
	}
	w := kvfsm.Want{Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2}}
	copied, changed := 0, 0
	for range 10 {
		p, err := kvfsm.ReadPage(h.store, incOf(2), w, 1)
		if err != nil || p.NotYours || len(p.Items) > 1 {
			t.Fatalf("page %+v, %v", p, err)
		}
		if w.Cursor.Tail {
			changed += len(p.Items)
		} else {
			copied += len(p.Items)
		}
		w.Cursor = p.Next
	}
	if copied != 4 || changed != 2 {
		t.Errorf("pages of one byte bring %d items and %d changes, want 4 and 2", copied, changed)
	}
}

// storedValue is how a value of n bytes is stored.
func storedValue(n int) []byte { return append([]byte{1, 1, 0}, make([]byte, 16+n)...) }

// What no replica could read is refused while it is copied. Once it was served it would
// stop all of them: whichever write met it is in the log for good.
func TestUnreadableItemsAreRefused(t *testing.T) {
	sessionKey := append([]byte{2}, make([]byte, 24)...)
	future := storedValue(0)
	future[0]++
	for name, it := range map[string]kvfsm.Item{
		"a session of no known format":    {Key: sessionKey, Value: []byte{99}},
		"a session without a whole name":  {Key: sessionKey[:20], Value: []byte{1, 0, 0}},
		"a value of no known format":      {Key: []byte("\x04k"), Value: future},
		"a value that is over the limit":  {Key: []byte("\x04k"), Value: storedValue(shardcfg.ValueBytesMax + 1)},
		"a key that is over the limit":    {Key: append([]byte{4}, make([]byte, shardcfg.KeyBytesMax+1)...), Value: storedValue(0)},
		"a session floor of three bytes":  {Key: []byte{1, 1}, Value: make([]byte, 3)},
		"a change log, which stays local": {Key: []byte{0x80, 1}, Value: []byte{1}},
	} {
		for _, from := range []kvfsm.Cursor{{}, {Tail: true, Revision: 1}} {
			t.Run(fmt.Sprintf("%s, tail %v", name, from.Tail), func(t *testing.T) {
				h := newHolder(t)
				h.adopt(2, 2)
				h.apply(&kvfsm.Start{Handoff: 2})
				h.apply(&kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
				h.adopt(3, 1)
				h.apply(&kvfsm.Stage{Epoch: shardcfg.Epoch{Num: 3}, Handoff: 3, From: peerOf(2), To: incOf(1)})
				chunk := kvfsm.Chunk{Epoch: shardcfg.Epoch{Num: 3}, Handoff: 3, From: from, Next: kvfsm.Cursor{Tail: true, Revision: 1}}
				if from.Tail {
					copied := chunk
					copied.From = kvfsm.Cursor{}
					h.apply(&copied)
				}
				bad := chunk
				bad.Items = []kvfsm.Item{it}
				if v := h.try(&bad); v.Done || v.Why != kvfsm.ReasonItems {
					t.Errorf("it is taken: %+v", v)
				}
				h.apply(&chunk)
			})
		}
	}
}
