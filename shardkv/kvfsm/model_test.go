package kvfsm_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// naive is a map for each shard and a session table that never forgets.
type naive struct {
	values   map[string]naiveValue
	revision map[shardcfg.ShardID]shardcfg.Revision
	outcomes map[naiveAttempt]kvfsm.Outcome
}

type naiveValue struct {
	value   string
	version shardcfg.Revision
}

type naiveAttempt struct {
	shard    shardcfg.ShardID
	session  shardcfg.SessionID
	sequence uint64
}

func (n *naive) apply(w *kvfsm.Write, shards int) kvfsm.Outcome {
	s := shardcfg.ShardOf(w.Key, shards)
	at := naiveAttempt{s, w.Stamp.Key.ID, w.Stamp.Sequence}
	if out, ok := n.outcomes[at]; ok && at.sequence != 0 {
		out.Repeat = true
		return out
	}
	out, changed := n.execute(w, n.revision[s]+1)
	if changed || at.sequence != 0 {
		n.revision[s]++
	}
	if at.sequence != 0 {
		n.outcomes[at] = out
	}
	return out
}

func (n *naive) execute(w *kvfsm.Write, revision shardcfg.Revision) (kvfsm.Outcome, bool) {
	key := string(w.Key)
	old, exists := n.values[key]
	switch {
	case w.Condition.Set && w.Condition.Version != old.version:
		return kvfsm.Outcome{Code: kvfsm.CodeVersionMismatch, Version: old.version}, false
	case w.Op == kvfsm.OpDelete && !exists:
		return kvfsm.Outcome{Code: kvfsm.CodeNotFound}, false
	case w.Op == kvfsm.OpDelete:
		delete(n.values, key)
		return kvfsm.Outcome{Code: kvfsm.CodeOK}, true
	case w.Op == kvfsm.OpPut:
		n.values[key] = naiveValue{string(w.Value), revision}
		return kvfsm.Outcome{Code: kvfsm.CodeOK, Version: revision}, true
	}
	value := old.value + string(w.Value)
	n.values[key] = naiveValue{value, revision}
	return kvfsm.Outcome{Code: kvfsm.CodeOK, Version: revision, Length: uint64(len(value))}, true
}

func drawWrite(t *rapid.T, n *naive) *kvfsm.Write {
	w := &kvfsm.Write{
		Op:  kvfsm.Op(rapid.IntRange(1, 3).Draw(t, "op")),
		Key: []byte(rapid.SampledFrom([]string{"a", "b", "ab", "ab\x00", "ab\xff", "abc", "\xff", "\xff\xff", "d"}).Draw(t, "key")),
	}
	if w.Op != kvfsm.OpDelete {
		w.Value = []byte(rapid.StringN(0, 3, 6).Draw(t, "value"))
	}
	switch rapid.IntRange(0, 5).Draw(t, "condition") {
	case 0:
		w.Condition = kvfsm.Condition{Set: true, Version: shardcfg.Revision(rapid.IntRange(0, 5).Draw(t, "version"))}
	case 1:
		w.Condition = kvfsm.Condition{Set: true, Version: n.values[string(w.Key)].version}
	}
	if seq := rapid.Uint64Range(0, 20).Draw(t, "sequence"); seq > 0 {
		w.Stamp = session.Stamp{Key: session.Key{Birth: 1000, ID: shardcfg.SessionID{byte(rapid.IntRange(1, 3).Draw(t, "session"))}}, Sequence: seq}
	}
	return w
}

// The machine answers as a plain map with an exact session table does, however
// commands are packed into entries and wherever it restarts; reads and scans of
// any page size show the map; and what it counts is what is stored.
func TestMachineAgainstMap(t *testing.T) {
	const shards = 4
	rapid.Check(t, func(t *rapid.T) {
		s := store.NewMem()
		restart := func() *kvfsm.Machine {
			m := kvfsm.New(kvfsm.Config{Group: 1, Incarnation: incOf(1), ShardCount: shards})
			if err := m.Reset(s); err != nil {
				t.Fatal(err)
			}
			return m
		}
		m := restart()
		n := &naive{values: map[string]naiveValue{}, revision: map[shardcfg.ShardID]shardcfg.Revision{}, outcomes: map[naiveAttempt]kvfsm.Outcome{}}
		e := entry.Entry{Clock: 1000}
		for i := range shards {
			e.Commands = append(e.Commands, kvfsm.Encode(&kvfsm.Create{Shard: shardcfg.ShardID(i), Claimer: incOf(1)}))
		}
		for index := range rapid.IntRange(1, 12).Draw(t, "entries") {
			e.Index = uint64(index + 1)
			var want []any
			for range e.Commands {
				want = append(want, kvfsm.Verdict{Done: true})
			}
			for range rapid.IntRange(0, 10).Draw(t, "commands") {
				w := drawWrite(t, n)
				e.Commands = append(e.Commands, kvfsm.Encode(w))
				want = append(want, n.apply(w, shards))
			}
			b, err := s.NewBatch()
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Apply(b, &e)
			if err != nil || b.Commit() != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("results %+v\nwant    %+v", got, want)
			}
			e.Commands = nil
			if rapid.Bool().Draw(t, "restart") {
				m = restart()
			}
			compare(t, s, n, shards)
		}
	})
}

// compare reads everything and compares it with the map.
func compare(t *rapid.T, s *store.Mem, n *naive, shards int) {
	prefix := rapid.SampledFrom([]string{"", "a", "ab", "\xff"}).Draw(t, "prefix")
	limit := rapid.IntRange(1, 4).Draw(t, "limit")
	for i := range shards {
		id := shardcfg.ShardID(i)
		if err := errors.Join(kvfsm.CheckContent(s, id), kvfsm.CheckLeftovers(s, id)); err != nil {
			t.Fatal(err)
		}
		var got, want []string
		q := kvfsm.Scan{Shard: id, Prefix: []byte(prefix), KeysMax: limit, BytesMax: 1 << 20}
		for {
			page, err := kvfsm.ReadScan(s, q)
			if err != nil || page.Code != kvfsm.CodeOK || len(page.Entries) > limit {
				t.Fatalf("page %+v: %v", page, err)
			}
			for _, e := range page.Entries {
				got = append(got, fmt.Sprintf("%q=%q@%d", e.Key, e.Value, e.Version))
				q.After = e.Key
			}
			if page.End {
				break
			}
		}
		for _, key := range slices.Sorted(maps.Keys(n.values)) {
			if strings.HasPrefix(key, prefix) && shardcfg.ShardOf([]byte(key), shards) == id {
				v := n.values[key]
				want = append(want, fmt.Sprintf("%q=%q@%d", key, v.value, v.version))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("scan of shard %d, prefix %q: %v, want %v", id, prefix, got, want)
		}
	}
	for key, v := range n.values {
		got, err := kvfsm.Get(s, shards, []byte(key))
		if err != nil || got.Code != kvfsm.CodeOK || string(got.Value) != v.value || got.Version != v.version {
			t.Fatalf("get %q: %+v, %v, want %+v", key, got, err, v)
		}
	}
}
