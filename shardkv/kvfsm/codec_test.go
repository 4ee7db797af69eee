package kvfsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

func inc(b byte) shardcfg.Incarnation { return shardcfg.Incarnation{b} }

var goldenCursor = Cursor{Key: []byte{kindRecord, 'k'}}

// goldens has every kind of command with its bytes in the log. They never
// change: a new field is a new format.
var goldens = []struct {
	cmd  Command
	want string
}{
	{&Write{Op: OpPut, Key: []byte("k"), Value: []byte("v")}, "010100016b76"},
	{&Write{Op: OpDelete, Key: []byte("k"), Condition: Condition{Set: true, Version: 300}}, "010301ac02016b"},
	{&Write{Op: OpAppend, Key: []byte("k"), Value: []byte("v"), Stamp: session.Stamp{
		Key: session.Key{ID: shardcfg.SessionID{0xAB}, Birth: 1000}, AckedBelow: 3, Sequence: 5}},
		"010202ab000000000000000000000000000000e8070305016b76"},
	{&RaiseFloor{Shard: 300, Floor: 7}, "01ac0207"},
	{&Prune{Shard: 1, Max: 128}, "01018001"},
	{&Adopt{Cluster: shardcfg.ClusterID{1}, Config: &shardcfg.Config{Num: 1, Shards: []shardcfg.GroupID{2},
		Groups: map[shardcfg.GroupID]shardcfg.Group{}, Pins: map[shardcfg.ShardID]shardcfg.Pin{}}},
		"0101000000000000000000000000000000" + "010101" + "0102" + "000000"},
	{&Create{Shard: 2, Claimer: inc(3), Gen: 1}, "010203000000000000000000000000000000" + "01"},
	{&Start{Shard: 2, Handoff: 9}, "010209"},
	{&Stage{Shard: 2, Epoch: shardcfg.Epoch{Gen: 1, Num: 4}, Handoff: 9, From: Peer{inc(3), 5}, To: inc(4), Frozen: true},
		"0102010409" + "0300000000000000000000000000000005" + "04000000000000000000000000000000" + "01"},
	{&Chunk{Shard: 2, Epoch: shardcfg.Epoch{Num: 4}, Handoff: 9, From: goldenCursor, Next: Cursor{Tail: true, Revision: 6},
		Items: []Item{{Key: []byte{kindRecord, 'x'}, Value: []byte("v")}, {Key: []byte{kindRecord, 'y'}, Deleted: true}}},
		"0102000409" + "0002046b00" + "010006" + "02" + "0204780001" + "76" + "02047901"},
	{&Install{Shard: 2, Epoch: shardcfg.Epoch{Num: 4}, Handoff: 9, From: Cursor{Tail: true, Revision: 6},
		Summary: Summary{Revision: 8, RemovalRevision: 7, Content: Content{Keys: 1, Bytes: 2, Digest: Digest{3, 4}}}},
		"0102000409" + "010006" + "00" + "0807" + "0102" + "00000000000000030000000000000004"},
	{&Freeze{Shard: 2, Epoch: shardcfg.Epoch{Num: 4}, Handoff: 9}, "0102000409"},
	{&Drop{Shard: 2, Epoch: shardcfg.Epoch{Num: 4}}, "01020004"},
	{&Discard{Shard: 2, Epoch: shardcfg.Epoch{Num: 4}, Handoff: 9}, "0102000409"},
	{&Thaw{Shard: 2, Epoch: shardcfg.Epoch{Num: 4}, Gen: 3}, "0102000403"},
}

// Every command has the bytes and the kind that it always had, and comes back
// from them.
func TestGoldenCommands(t *testing.T) {
	for i, g := range goldens {
		c := Encode(g.cmd)
		if got := hex.EncodeToString(c.Body); got != g.want {
			t.Errorf("%T: got  %s\nwant %s", g.cmd, got, g.want)
		}
		back, err := Decode(c)
		if err != nil || !reflect.DeepEqual(back, g.cmd) {
			t.Errorf("%T: came back as %+v (%v)\nwant %+v", g.cmd, back, err, g.cmd)
		}
		if kind := entry.Kind(16 + max(0, i-2)); c.Kind != kind {
			t.Errorf("%T: kind %d, want %d", g.cmd, c.Kind, kind)
		}
	}
}

// A shard's record has the bytes that it always had, and comes back from them.
func TestGoldenRecord(t *testing.T) {
	rec := Record{
		Shard: 300, Phase: PhaseFrozen, Epoch: shardcfg.Epoch{Gen: 1, Num: 2}, Handoff: 3, To: Peer{inc(4), 5}, Start: 6,
		Copy: 7, CopyLast: 8, Revision: 9, RemovalRevision: 10, Content: Content{11, 12, Digest{13, 14}},
		Staging: &Staging{Epoch: shardcfg.Epoch{Num: 15}, Handoff: 16, From: Peer{inc(17), 18}, Cursor: goldenCursor,
			Copy: 19, Content: Content{20, 21, Digest{22, 23}}},
	}
	const want = "010301020304000000000000000000000000000000050607080" + "90a0b0c000000000000000d000000000000000e" +
		"01000f1011000000000000000000000000000000120002046b00131415" + "00000000000000160000000000000017"
	b := appendRecord(nil, &rec)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, err := parseRecord(300, b)
	if err != nil || !reflect.DeepEqual(back, rec) {
		t.Errorf("came back as %+v: %v", back, err)
	}
}

// Stored keys sort by shard, copy, kind: a copy's items are one range, its
// change log another, and copies do not mix.
func TestKeyOrder(t *testing.T) {
	one, two := copyID{1, 255}, copyID{1, 256}
	lower, upper := one.itemBounds()
	logLower, logUpper := one.logBounds()
	ordered := [][]byte{
		lower, one.key(nil, metaFloor), one.at(kindSession), one.at(kindRecord, 'a'), one.at(kindRecord, 0xFF), upper,
		one.logByRevision(nil, 1, metaFloor), one.logByRevision(nil, 256, nil), one.logByKey(nil, metaFloor), logUpper,
		two.key(nil, metaFloor), copyID{2, 1}.at(kindRecord), recordKey(0), recordKey(1), machineKey(machineAdopted),
	}
	for i := range ordered[1:] {
		if bytes.Compare(ordered[i], ordered[i+1]) >= 0 {
			t.Errorf("key %d % x is not below % x", i, ordered[i], ordered[i+1])
		}
	}
	if _, end := one.bounds(); !bytes.Equal(logLower, upper) || bytes.Compare(end, logUpper) < 0 {
		t.Errorf("bounds do not cover the copy: % x, % x", logLower, end)
	}
}

// Decoders never panic, accept only what encoders write, and say what kind of
// error it is.
func FuzzDecode(f *testing.F) {
	for _, g := range goldens {
		c := Encode(g.cmd)
		f.Add(byte(c.Kind), c.Body)
	}
	f.Add(byte(200), []byte{1})
	f.Add(byte(KindWrite), []byte{2})
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		cmd, err := Decode(entry.Command{Kind: entry.Kind(kind), Body: body})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnknownKind) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if got := cmd.Append(nil); !bytes.Equal(got, body) {
			t.Fatalf("%T: % x came back as % x", cmd, body, got)
		}
	})
}

// A damaged record is an error, never a panic or another record.
func FuzzParseRecord(f *testing.F) {
	f.Add(appendRecord(nil, &Record{Phase: PhaseLeaving, Staging: &Staging{Cursor: goldenCursor}}))
	f.Add([]byte{1, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := parseRecord(1, b)
		if err != nil {
			if !errors.Is(err, ErrState) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if got := appendRecord(nil, &rec); !bytes.Equal(got, b) {
			t.Fatalf("% x came back as % x", b, got)
		}
	})
}

// The value of a key, the key that it is stored under, and the keys of its change,
// never change their bytes.
func TestGoldenValue(t *testing.T) {
	c := copyID{shard: 0x0102, n: 3}
	item := itemRecord(nil, []byte("k"))
	for _, g := range []struct {
		what string
		got  []byte
		want string
	}{
		{"value", append(appendValueHeader(nil, 7), "v"...), "0101000000000000000007000000000000000076"},
		{"stored key", c.key(nil, item), "01020000000000000003046b"},
		{"change by revision", c.logByRevision(nil, 7, item), "01020000000000000003800000000000000007046b"},
		{"change by key", c.logByKey(nil, item), "0102000000000000000381046b"},
		{"key of a shard's record", recordKey(0x0102), "fffe010102"},
	} {
		if got := hex.EncodeToString(g.got); got != g.want {
			t.Errorf("%s is %s, want %s", g.what, got, g.want)
		}
	}
}
