package kvfsm_test

import (
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Claim: a reformed state inherits data and no tokens: in every phase of the
// destroyed group the shard is frozen for that group, whole, without a staging; it is
// served only by a thaw, once that group is retired, with every change log gone.
func TestReform(t *testing.T) {
	destroyed := peerOf(1)
	for name, c := range map[string]struct {
		reach func(h *holder)
		want  kvfsm.Phase
	}{
		"serving": {func(*holder) {}, kvfsm.PhaseFrozen},
		"leaving": {func(h *holder) { h.leave(); h.put("b") }, kvfsm.PhaseFrozen},
		"frozen": {func(h *holder) {
			h.leave()
			h.put("b")
			h.apply(&kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
		}, kvfsm.PhaseFrozen},
		"passed, and being fetched again": {func(h *holder) {
			h.leave()
			h.apply(&kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
			h.apply(&kvfsm.Drop{Epoch: shardcfg.Epoch{Num: 1}})
			h.adopt(3, 1)
			h.apply(&kvfsm.Stage{Epoch: shardcfg.Epoch{Num: 3}, Handoff: 3, From: peerOf(2), To: incOf(1)})
			key := append([]byte{4}, "c"...)
			h.apply(&kvfsm.Chunk{Epoch: shardcfg.Epoch{Num: 3}, Handoff: 3, Next: kvfsm.Cursor{Key: key}, Items: []kvfsm.Item{{Key: key, Value: storedValue(0)}}})
		}, kvfsm.PhasePassed},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHolder(t)
			h.put("a")
			c.reach(h)
			before := h.record()
			h.reform(destroyed)
			now := h.record()
			if now.Phase != c.want || now.Staging != nil || now.Epoch != before.Epoch || now.Handoff != before.Handoff || now.Content != before.Content || now.Revision != before.Revision {
				t.Fatalf("%+v became %+v", before, now)
			}
			h.checkAll()
			if c.want == kvfsm.PhasePassed {
				if now.To != before.To {
					t.Errorf("the tombstone points to %v, it was %v", now.To, before.To)
				}
				return
			}
			if now.To != destroyed {
				t.Errorf("it is frozen for %v", now.To)
			}
			if v := h.try(&kvfsm.Thaw{Epoch: now.Epoch, Gen: 1}); v.Done {
				t.Error("it was thawed before the destroyed group was retired")
			}
			h.retire(9, 1)
			h.apply(&kvfsm.Thaw{Epoch: now.Epoch, Gen: 1})
			h.checkAll()
			if got := h.record(); got.Phase != kvfsm.PhaseServing || got.Keys != before.Keys || got.Revision <= before.Revision || got.Epoch != (shardcfg.Epoch{Gen: 1, Num: 1}) {
				t.Errorf("thawed: %+v, before it was %+v", got, before)
			}
		})
	}
}

func (h *holder) leave() {
	h.adopt(2, 2)
	h.apply(&kvfsm.Start{Handoff: 2})
}

func (h *holder) record() kvfsm.Record {
	h.t.Helper()
	rec, err := kvfsm.ReadRecord(h.store, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return rec
}

// checkAll looks for content that is not what the record says, and for leftovers.
func (h *holder) checkAll() {
	h.t.Helper()
	h.check()
	if err := kvfsm.CheckLeftovers(h.store, 0); err != nil {
		h.t.Error(err)
	}
}

// reform makes the state that of a new incarnation, which is group 3.
func (h *holder) reform(destroyed kvfsm.Peer) {
	h.t.Helper()
	b, err := h.store.NewBatch()
	if err != nil {
		h.t.Fatal(err)
	}
	defer b.Close()
	if _, err := kvfsm.Reform(b, destroyed); err != nil {
		h.t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		h.t.Fatal(err)
	}
	h.machine = kvfsm.New(kvfsm.Config{Group: 3, Incarnation: incOf(3), ShardCount: 1})
	if err := h.machine.Reset(h.store); err != nil {
		h.t.Fatal(err)
	}
}
