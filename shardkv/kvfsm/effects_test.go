package kvfsm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// A countingBatch counts the bytes that are read and written.
type countingBatch struct {
	store.Batch
	read, written int
}

func (b *countingBatch) Get(key []byte) ([]byte, bool, error) {
	v, ok, err := b.Batch.Get(key)
	b.read += len(v)
	return v, ok, err
}

func (b *countingBatch) Set(key, value []byte) error {
	b.written += len(key) + len(value)
	return b.Batch.Set(key, value)
}

// entry applies writes as one entry and returns their outcomes, and what the
// entry read and wrote.
func (h *holder) entry(list ...*kvfsm.Write) (outcomes []kvfsm.Outcome, b *countingBatch) {
	h.t.Helper()
	inner, err := h.store.NewBatch()
	if err != nil {
		h.t.Fatal(err)
	}
	defer inner.Close()
	b = &countingBatch{Batch: inner}
	h.index++
	e := entry.Entry{Index: h.index, Term: 1, Clock: 1000}
	for _, w := range list {
		e.Commands = append(e.Commands, kvfsm.Encode(w))
	}
	results, err := h.machine.Apply(b, &e)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		h.t.Fatal(err)
	}
	for _, r := range results {
		outcomes = append(outcomes, r.(kvfsm.Outcome))
	}
	return outcomes, b
}

func (h *holder) check() {
	h.t.Helper()
	if err := kvfsm.CheckContent(h.store, 0); err != nil {
		h.t.Error(err)
	}
}

func (h *holder) value(key string) string {
	h.t.Helper()
	found, err := kvfsm.Get(h.store, 1, []byte(key))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(found.Value)
}

// Claim: many appends to one large value in one entry read it once and write it
// once, and the change log names it once.
func TestAppendsOfAnEntryWriteOnce(t *testing.T) {
	const appends, size = 512, 2 << 20
	h := newHolder(t)
	h.adopt(2, 2)
	h.apply(&kvfsm.Start{Handoff: 2})
	h.entry(&kvfsm.Write{Op: kvfsm.OpPut, Key: []byte("log"), Value: make([]byte, size)})
	var list []*kvfsm.Write
	for i := range appends {
		list = append(list, &kvfsm.Write{Op: kvfsm.OpAppend, Key: []byte("log"), Value: []byte{byte(i)}})
	}
	outcomes, b := h.entry(list...)
	for i, o := range outcomes {
		if o.Code != kvfsm.CodeOK || o.Length != uint64(size+i+1) || o.Version != shardcfg.Revision(i+2) {
			t.Fatalf("append %d: %+v", i, o)
		}
	}
	if limit := size + 64<<10; b.read > limit || b.written > limit {
		t.Errorf("the entry read %d bytes and wrote %d, want at most %d of each", b.read, b.written, limit)
	}
	h.check()
	if n := h.logged(); n != 1 {
		t.Errorf("%d changes are logged, want 1", n)
	}
	if v := h.value("log"); len(v) != size+appends || v[size] != 0 || v[size+appends-1] != (appends-1)&0xFF {
		t.Errorf("the value has %d bytes", len(v))
	}
}

// Claim: what an entry reads and writes beyond its own bytes is bounded, whatever
// its commands are. Writes behind that are refused and leave no trace, with their
// sessions too; proposed again, each takes effect once.
func TestEffectsOfAnEntryAreBounded(t *testing.T) {
	const keys = 24
	large := strings.Repeat("v", shardcfg.ValueBytesMax-keys)
	for op, want := range map[kvfsm.Op]int{kvfsm.OpAppend: len(large) + 1, kvfsm.OpPut: 1, kvfsm.OpDelete: 0} {
		h := newHolder(t)
		for i := range keys {
			h.entry(&kvfsm.Write{Op: kvfsm.OpPut, Key: fmt.Appendf(nil, "k%d", i), Value: []byte(large)})
		}
		var list []*kvfsm.Write
		for i := range keys {
			w := &kvfsm.Write{Op: op, Key: fmt.Appendf(nil, "k%d", i), Value: []byte("x"),
				Stamp: session.Stamp{Key: session.Key{ID: shardcfg.SessionID{1}, Birth: 1000}, Sequence: uint64(i + 1)}}
			if op == kvfsm.OpDelete {
				w.Value = nil
			}
			list = append(list, w)
		}
		entries := 0
		for len(list) > 0 {
			if entries++; entries > keys {
				t.Fatalf("op %d: %d writes are left after %d entries", op, len(list), entries)
			}
			outcomes, b := h.entry(list...)
			if limit := shardcfg.EffectBytesMax + 3*shardcfg.ValueBytesMax; b.read+b.written > limit {
				t.Errorf("op %d: an entry read %d bytes and wrote %d, want at most %d together", op, b.read, b.written, limit)
			}
			var refused []*kvfsm.Write
			for i, o := range outcomes {
				switch {
				case o.Code == kvfsm.CodeBusy && o.Why == kvfsm.ReasonEntryFull:
					refused = append(refused, list[i])
				case o.Code != kvfsm.CodeOK || o.Repeat || len(refused) > 0:
					t.Fatalf("op %d: write %d behind %d refused ones: %+v", op, i, len(refused), o)
				}
			}
			list = refused
		}
		h.check()
		if entries < 2 {
			t.Errorf("op %d: one entry had room for all", op)
		}
		for i := range keys {
			if n := len(h.value(fmt.Sprint("k", i))); n != want {
				t.Errorf("op %d: k%d has %d bytes, want %d", op, i, n, want)
			}
		}
	}
}

// Claim: a page of a tail is no larger than asked for, or than what one revision
// changed, even where that is a record of the largest size behind a full page.
func TestTailPageIsBounded(t *testing.T) {
	h := newHolder(t)
	h.adopt(2, 2)
	h.apply(&kvfsm.Start{Handoff: 2})
	write := func(key string, size int, sequence uint64) {
		out, _ := h.entry(&kvfsm.Write{Op: kvfsm.OpPut, Key: []byte(key), Value: make([]byte, size),
			Stamp: session.Stamp{Key: session.Key{ID: shardcfg.SessionID{1}, Birth: 1000}, AckedBelow: sequence, Sequence: sequence}})
		if out[0].Code != kvfsm.CodeOK {
			t.Fatal(out)
		}
	}
	const asked = 1 << 20
	write("b", asked-3000, 1)
	write(strings.Repeat("k", shardcfg.KeyBytesMax), shardcfg.ValueBytesMax, 2)
	want := kvfsm.Want{Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2}}
	pages := func() string {
		var met []string
		for want.Cursor = (kvfsm.Cursor{Tail: true}); ; met = append(met, "|") {
			p, err := kvfsm.ReadPage(h.store, incOf(2), want, asked)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, it := range p.Items {
				size += len(it.Key) + len(it.Value)
				met = append(met, map[bool]string{true: "session", false: string(it.Key[1:2])}[it.Key[0] == 2])
			}
			if size > shardcfg.ChangeBytesMax {
				t.Errorf("a page of %d bytes, want at most %d", size, shardcfg.ChangeBytesMax)
			}
			if p.Next.Equal(want.Cursor) {
				return strings.Join(met, " ")
			}
			want.Cursor = p.Next
		}
	}
	if got := pages(); got != "b | session k |" {
		t.Errorf("the pages hold %q", got)
	}
	write("c", 1, 3)
	if got := pages(); got != "b | k | session c |" {
		t.Errorf("the pages hold %q", got)
	}
}

// Claim: the state tells how a write ended that it remembers, and claims nothing
// else: not what it does not know, what was acknowledged, of sessions below the
// floor, or where the shard is not served.
func TestRecall(t *testing.T) {
	h := newHolder(t)
	stamp := session.Stamp{Key: session.Key{ID: shardcfg.SessionID{1}, Birth: 1000}, AckedBelow: 1, Sequence: 1}
	recall := func(sequence, acked uint64) string {
		s := stamp
		s.Sequence, s.AckedBelow = sequence, acked
		out, ok, err := kvfsm.Recall(h.store, 0, s)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return "unknown"
		}
		return fmt.Sprintf("%v at %d, repeat %v", out.Code, out.Version, out.Repeat)
	}
	want := func(when string, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	want("before anything", recall(1, 1), "unknown")
	h.entry(&kvfsm.Write{Op: kvfsm.OpPut, Key: []byte("k"), Stamp: stamp})
	want("executed", recall(1, 1), "ok at 1, repeat true")
	want("another number", recall(2, 1), "unknown")
	want("acknowledged", recall(1, 2), "unknown")
	h.adopt(2, 2)
	h.apply(&kvfsm.Start{Handoff: 2})
	want("while the shard leaves", recall(1, 1), "ok at 1, repeat true")
	h.apply(&kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	want("frozen", recall(1, 1), "unknown")

	h = newHolder(t)
	h.entry(&kvfsm.Write{Op: kvfsm.OpPut, Key: []byte("k"), Stamp: stamp})
	stamp.Key.Birth = 999
	h.entry(&kvfsm.Write{Op: kvfsm.OpPut, Key: []byte("k"), Stamp: stamp})
	want("born before", recall(1, 1), "ok at 2, repeat true")
	h.apply(&kvfsm.RaiseFloor{Floor: 1000})
	want("below the floor", recall(1, 1), "unknown")
	stamp.Key.Birth = 1000
	want("at the floor", recall(1, 1), "ok at 1, repeat true")
}
