package kvfsm_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A twin is one machine with its store.
type twin struct {
	t *rapid.T
	m *kvfsm.Machine
	s *store.Mem
	i uint64
}

func newTwin(t *rapid.T, gid int) *twin {
	w := &twin{t: t, s: store.NewMem(), m: kvfsm.New(kvfsm.Config{
		Group: shardcfg.GroupID(gid), Incarnation: incOf(gid), ShardCount: 1})}
	if err := w.m.Reset(w.s); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *twin) apply(clock uint64, list ...kvfsm.Command) []any {
	w.i++
	e := entry.Entry{Index: w.i, Term: 1, Clock: clock}
	for _, c := range list {
		e.Commands = append(e.Commands, kvfsm.Encode(c))
	}
	b, err := w.s.NewBatch()
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	results, err := w.m.Apply(b, &e)
	if err == nil {
		err = b.Commit()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return results
}

// Claim: how commands are packed into entries changes neither their results nor
// the state that they lead to, also while the shard moves: writes of one key, steps
// of its handoff and the expiry of sessions in one entry; and what the receiver
// fetched between the entries becomes what the holder froze.
func TestPackingOfAMovingShard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		packed, single, receiver := newTwin(t, 1), newTwin(t, 1), newTwin(t, 2)
		clock, num := uint64(1000), shardcfg.ConfigNum(1)
		config := func(owner int) *kvfsm.Adopt {
			num++
			return &kvfsm.Adopt{Cluster: shardcfg.ClusterID{1}, Config: threeGroups(num, owner)}
		}
		first := []kvfsm.Command{config(1), &kvfsm.Create{Claimer: incOf(1)}}
		packed.apply(clock, first...)
		single.apply(clock, first...)
		record := func(w *twin) kvfsm.Record {
			r, err := kvfsm.ReadRecord(w.s, 0)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		n := &naive{values: map[string]naiveValue{}}
		for range rapid.IntRange(1, 25).Draw(t, "entries") {
			clock += uint64(rapid.IntRange(0, 50).Draw(t, "ms"))
			var list []kvfsm.Command
			for range rapid.IntRange(1, 8).Draw(t, "commands") {
				list = append(list, drawStep(t, n, record(packed), clock, config, &num))
			}
			results := packed.apply(clock, list...)
			for i, c := range list {
				if r := single.apply(clock, c)[0]; !reflect.DeepEqual(r, results[i]) {
					t.Fatalf("command %d, %+v: %+v in one entry, %+v alone", i, c, results[i], r)
				}
			}
			if packed.s.Hash() != single.s.Hash() {
				t.Fatalf("the state depends on the packing: %s\n%s", dump(packed.s), dump(single.s))
			}
			if err := errors.Join(kvfsm.CheckContent(packed.s, 0), kvfsm.CheckLeftovers(packed.s, 0)); err != nil {
				t.Fatal(err)
			}
			fetch(t, packed, receiver, clock, rapid.IntRange(1, 3).Draw(t, "pages"))
		}
		// To the end.
		h := record(packed)
		if h.Phase == kvfsm.PhaseServing || h.Phase == kvfsm.PhaseLeaving {
			packed.apply(clock, config(2), &kvfsm.Start{Handoff: num})
			h = record(packed)
			packed.apply(clock, &kvfsm.Freeze{Epoch: h.Epoch, Handoff: h.Handoff})
		}
		if h = record(packed); h.To.Incarnation != incOf(2) {
			return
		}
		for range 1000 {
			if fetch(t, packed, receiver, clock, 1); record(receiver).Phase == kvfsm.PhaseServing {
				break
			}
		}
		got, want := record(receiver), record(packed)
		if got.Phase != kvfsm.PhaseServing || got.Summary() != want.Summary() {
			t.Fatalf("installed %+v, frozen %+v", got, want)
		}
		if err := errors.Join(kvfsm.CheckContent(receiver.s, 0), kvfsm.CheckLeftovers(receiver.s, 0)); err != nil {
			t.Fatal(err)
		}
	})
}

// drawStep draws a command for a holder: a write, mostly, or something that moves the
// shard or expires its sessions.
func drawStep(t *rapid.T, n *naive, h kvfsm.Record, clock uint64, config func(int) *kvfsm.Adopt, num *shardcfg.ConfigNum) kvfsm.Command {
	switch rapid.IntRange(0, 24).Draw(t, "kind") {
	case 0:
		return &kvfsm.RaiseFloor{Floor: clock - uint64(rapid.IntRange(0, 20).Draw(t, "age"))}
	case 1:
		return &kvfsm.Prune{Max: uint32(rapid.IntRange(1, 3).Draw(t, "max"))}
	case 2:
		return config(rapid.IntRange(1, 3).Draw(t, "owner"))
	case 3, 4:
		return &kvfsm.Start{Handoff: *num}
	case 5:
		return &kvfsm.Freeze{Epoch: h.Epoch, Handoff: rapid.SampledFrom([]shardcfg.ConfigNum{0, h.Handoff, *num}).Draw(t, "handoff")}
	}
	w := drawWrite(t, n)
	if w.Stamp.Sequence != 0 {
		w.Stamp.Key.Birth = clock - 20*uint64(rapid.IntRange(0, 2).Draw(t, "born"))
		w.Stamp.Sequence += 3
		w.Stamp.AckedBelow = uint64(rapid.IntRange(0, 3).Draw(t, "acked"))
	}
	return w
}

// fetch lets the receiver take the next pages, of hardly an item each.
func fetch(t *rapid.T, holder, receiver *twin, clock uint64, pages int) {
	h, err := kvfsm.ReadRecord(holder.s, 0)
	if err != nil {
		t.Fatal(err)
	}
	if (h.Phase != kvfsm.PhaseLeaving && h.Phase != kvfsm.PhaseFrozen) || h.To.Incarnation != incOf(2) {
		return
	}
	if r, err := kvfsm.ReadRecord(receiver.s, 0); err != nil || r.Phase == kvfsm.PhaseServing {
		return
	}
	receiver.apply(clock, &kvfsm.Adopt{Cluster: shardcfg.ClusterID{1}, Config: threeGroups(h.Handoff, 2)})
	receiver.apply(clock, &kvfsm.Stage{Epoch: h.Epoch.Next(), Handoff: h.Handoff, From: kvfsm.Peer{Incarnation: incOf(1), Group: 1}, To: incOf(2)})
	for range pages {
		r, err := kvfsm.ReadRecord(receiver.s, 0)
		if err != nil || r.Staging == nil || r.Staging.Wanted() != h.Mark() {
			t.Fatalf("no staging: %+v, %v", r, err)
		}
		at := r.Staging.Cursor
		p, err := kvfsm.ReadPage(holder.s, incOf(2), kvfsm.Want{Mark: h.Mark(), Cursor: at}, 60)
		if err != nil || p.NotYours {
			t.Fatalf("page %+v: %v", p, err)
		}
		var v any
		if p.Last {
			v = receiver.apply(clock, &kvfsm.Install{Epoch: r.Staging.Epoch, Handoff: h.Handoff, From: at, Items: p.Items, Summary: p.Summary})[0]
		} else {
			v = receiver.apply(clock, &kvfsm.Chunk{Epoch: r.Staging.Epoch, Handoff: h.Handoff, From: at, Next: p.Next, Items: p.Items})[0]
		}
		if !v.(kvfsm.Verdict).Done {
			t.Fatalf("page %+v: %+v", p, v)
		}
		if p.Last {
			return
		}
	}
}

func dump(s *store.Mem) (text string) {
	it, err := s.Iterate(nil, nil)
	if err != nil {
		return err.Error()
	}
	defer it.Close()
	for it.Next() {
		text += fmt.Sprintf("\n%x = %x", it.Key(), it.Value())
	}
	return text
}
