// Package storetest is the contract of store.Store as tests: Run holds every
// implementation to what the comments of package store promise, and Compare
// runs one program of operations on several stores and a naive model at once.
//
// Row 0 of the layers: it imports package store and the standard library.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// Run runs the contract. open returns an empty store; Run closes it.
func Run(t *testing.T, open func(t testing.TB) store.Store) {
	t.Helper()
	cases := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"GetOwnership", testOwnership},
		{"BoundsOwnership", testBoundsOwnership},
		{"EmptyValue", testEmpty},
		{"BatchVisibility", testBatchVisibility},
		{"BatchAbandoned", testBatchAbandoned},
		{"BatchLife", testBatchLife},
		{"BatchIterator", testBatchIterator},
		{"DeleteRange", testDeleteRange},
		{"DeleteRangeInBatch", testDeleteRangeInBatch},
		{"IteratorBounds", testIteratorBounds},
		{"IteratorSeek", testIteratorSeek},
		{"IteratorState", testIteratorState},
		{"SnapshotIsolation", testSnapshotIsolation},
		{"SnapshotShared", testSnapshotShared},
		{"BigRecords", testBigRecords},
		{"ManyKeys", testManyKeys},
		{"CheckpointFrozen", testCheckpointFrozen},
		{"CheckpointSize", testCheckpointSize},
		{"ReceiveAside", testReceiveAside},
		{"AdoptReplaces", testAdoptReplaces},
		{"AdoptWaits", testAdoptWaits},
		{"IncomingUsedUp", testIncomingUsedUp},
		{"StreamDamaged", testStreamDamaged},
		{"StreamTruncated", testStreamTruncated},
		{"StreamForeign", testStreamForeign},
		{"StreamReaderFails", testStreamReaderFails},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer func() { check(t, s.Close()) }()
			c.run(t, s)
		})
	}
	t.Run("Closed", func(t *testing.T) { testClosed(t, open(t)) })
}

// testOwnership: the store copies what it keeps, and what Get returns belongs
// to the caller.
func testOwnership(t *testing.T, s store.Store) {
	key, value := []byte("key"), []byte("value")
	b := begin(t, s)
	check(t, b.Set(key, value))
	mangle(key)
	mangle(value)
	doomed := []byte("doomed")
	check(t, b.Set(doomed, nil))
	check(t, b.Delete(doomed))
	mangle(doomed)
	check(t, b.Commit())
	wantAll(t, s, "key=value")

	key = []byte("key")
	got, ok, err := s.Get(key)
	mangle(key)
	if check(t, err); !ok {
		t.Fatal("key is absent")
	}
	mangle(got)
	wantAll(t, s, "key=value")

	it, err := s.Iterate(nil, nil)
	check(t, err)
	if !it.Next() {
		t.Fatal("no first key")
	}
	copied := string(it.Key()) + "=" + string(it.Value())
	check(t, it.Close())
	if copied != "key=value" {
		t.Fatalf("iterator: got %s", copied)
	}
}

// testBoundsOwnership: bounds and seek keys may be reused once the call returned.
func testBoundsOwnership(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2", "c=3", "d=4")
	lower, upper := []byte("b"), []byte("d")
	it, err := s.Iterate(lower, upper)
	check(t, err)
	mangle(lower)
	mangle(upper)
	want(t, "walk", rest(it), "b=2 c=3")
	seek := []byte("c")
	if !it.SeekGE(seek) {
		t.Fatal("c not found")
	}
	mangle(seek)
	want(t, "after seek", pair(it)+" "+rest(it), "c=3 ")
	check(t, it.Close())

	b := begin(t, s)
	lower, upper = []byte("a"), []byte("c")
	check(t, b.DeleteRange(lower, upper))
	mangle(lower)
	mangle(upper)
	check(t, b.Commit())
	wantAll(t, s, "c=3 d=4")
}

// testEmpty: an empty value is present and not nil; the empty key is refused,
// and absent.
func testEmpty(t *testing.T, s store.Store) {
	b := begin(t, s)
	check(t, b.Set([]byte("k"), nil))
	wantErr(t, "empty key", b.Set([]byte{}, []byte("v")), store.ErrEmptyKey)
	check(t, b.Delete([]byte{}))
	check(t, b.Delete(nil))
	for _, r := range []store.Reader{b, s} {
		if r == store.Reader(s) {
			check(t, b.Commit())
		}
		value, ok, err := r.Get([]byte("k"))
		if check(t, err); !ok || value == nil || len(value) != 0 {
			t.Fatalf("empty value: got %v, %v; want [], true", value, ok)
		}
		value, ok, err = r.Get([]byte("absent"))
		if check(t, err); ok || value != nil {
			t.Fatalf("absent key: got %v, %v; want nil, false", value, ok)
		}
		value, ok, err = r.Get([]byte{})
		if check(t, err); ok || value != nil {
			t.Fatalf("empty key: got %v, %v; want nil, false", value, ok)
		}
		wantAll(t, r, "k=")
	}
}

// testBatchVisibility: a batch sees its own writes; others see all of them
// after Commit, and none before.
func testBatchVisibility(t *testing.T, s store.Store) {
	put(t, s, "a=old", "b=old", "c=old")
	b := begin(t, s)
	check(t, b.Set([]byte("a"), []byte("new")))
	check(t, b.Delete([]byte("b")))
	check(t, b.Delete([]byte("never there")))
	check(t, b.Set([]byte("d"), []byte("1")))
	check(t, b.Set([]byte("d"), []byte("2")))
	check(t, b.Set([]byte("e"), []byte("1")))
	check(t, b.Delete([]byte("e")))
	wantAll(t, b, "a=new c=old d=2")
	wantAll(t, s, "a=old b=old c=old")
	before := b.Size()
	check(t, b.Set([]byte("d"), []byte("2")))
	if b.Size() < before+2 || before < len("anewbnever thered1d2e1e") {
		t.Errorf("the batch counts %d bytes, and %d before its last two", b.Size(), before)
	}
	for key, value := range map[string]string{"a": "new", "b": "", "c": "old", "d": "2", "e": ""} {
		wantGet(t, b, key, value)
	}
	check(t, b.Commit())
	wantAll(t, s, "a=new c=old d=2")
}

// testBatchAbandoned: a batch that is closed leaves nothing.
func testBatchAbandoned(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	b := begin(t, s)
	check(t, b.Set([]byte("a"), []byte("2")))
	check(t, b.DeleteRange([]byte("a"), []byte("z")))
	check(t, b.Set([]byte("b"), []byte("2")))
	check(t, b.Close())
	check(t, b.Close())
	wantAll(t, s, "a=1")
	check(t, begin(t, s).Commit()) // an empty one is fine too
	wantAll(t, s, "a=1")
}

// testBatchLife: one batch at a time; after Commit or Close it can't be used.
func testBatchLife(t *testing.T, s store.Store) {
	for _, end := range []func(store.Batch) error{store.Batch.Commit, store.Batch.Close} {
		b := begin(t, s)
		_, err := s.NewBatch()
		wantErr(t, "second NewBatch", err, store.ErrBatchOpen)
		check(t, end(b))
		wantErr(t, "Set", b.Set([]byte("k"), nil), store.ErrClosed)
		wantErr(t, "Delete", b.Delete([]byte("k")), store.ErrClosed)
		wantErr(t, "DeleteRange", b.DeleteRange([]byte("k"), []byte("l")), store.ErrClosed)
		wantErr(t, "Commit", b.Commit(), store.ErrClosed)
		_, _, err = b.Get([]byte("k"))
		wantErr(t, "Get", err, store.ErrClosed)
		_, err = b.Iterate(nil, nil)
		wantErr(t, "Iterate", err, store.ErrClosed)
		check(t, b.Close())
	}
	wantAll(t, s, "")
}

// testBatchIterator: an iterator of a batch sees the writes before it, merged
// with the store, also after they are committed.
func testBatchIterator(t *testing.T, s store.Store) {
	put(t, s, "a=1", "c=3", "e=5")
	b := begin(t, s)
	check(t, b.Set([]byte("b"), []byte("2")))
	check(t, b.Set([]byte("c"), []byte("new")))
	check(t, b.Delete([]byte("e")))
	check(t, b.Set([]byte("f"), []byte("6")))
	it, err := b.Iterate([]byte("b"), []byte("f"))
	check(t, err)
	want(t, "within the bounds", rest(it), "b=2 c=new")
	if it.SeekGE([]byte("d")) {
		t.Fatalf("seek past what was deleted: got %s", pair(it))
	}
	check(t, it.Close())
	check(t, b.Commit())
	wantAll(t, s, "a=1 b=2 c=new f=6")
}

// testDeleteRange: lower is included, upper is not; both are needed.
func testDeleteRange(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2", "b\x00=2", "c=3", "d=4")
	b := begin(t, s)
	wantErr(t, "no upper", b.DeleteRange([]byte("a"), nil), store.ErrNeedBounds)
	wantErr(t, "no lower", b.DeleteRange(nil, []byte("b")), store.ErrNeedBounds)
	check(t, b.DeleteRange([]byte("b"), []byte("b")))
	check(t, b.DeleteRange([]byte("c"), []byte("b")))
	check(t, b.DeleteRange([]byte("b"), []byte{}))
	wantAll(t, b, "a=1 b=2 b\x00=2 c=3 d=4")
	check(t, b.DeleteRange([]byte("b"), []byte("c")))
	check(t, b.Commit())
	wantAll(t, s, "a=1 c=3 d=4")
	b = begin(t, s)
	check(t, b.DeleteRange([]byte{}, []byte("d")))
	check(t, b.Commit())
	wantAll(t, s, "d=4")
}

// testDeleteRangeInBatch: a range delete covers what the same batch wrote
// before it, not what it writes after it.
func testDeleteRangeInBatch(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2", "c=3", "d=4")
	b := begin(t, s)
	check(t, b.Set([]byte("bb"), []byte("before")))
	check(t, b.DeleteRange([]byte("b"), []byte("d")))
	wantGet(t, b, "bb", "")
	wantAll(t, b, "a=1 d=4")
	check(t, b.Set([]byte("c"), []byte("after")))
	wantGet(t, b, "c", "after")
	wantAll(t, b, "a=1 c=after d=4")
	check(t, b.DeleteRange([]byte("cc"), []byte("z")))
	wantAll(t, b, "a=1 c=after")
	check(t, b.Commit())
	wantAll(t, s, "a=1 c=after")
}

// testClosed: every call on a closed store returns ErrClosed.
func testClosed(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	stream := checkpointOf(t, s)
	check(t, s.Close())
	wantErr(t, "Close", s.Close(), store.ErrClosed)
	_, _, err := s.Get([]byte("a"))
	wantErr(t, "Get", err, store.ErrClosed)
	_, err = s.Iterate(nil, nil)
	wantErr(t, "Iterate", err, store.ErrClosed)
	_, err = s.NewSnapshot()
	wantErr(t, "NewSnapshot", err, store.ErrClosed)
	_, err = s.NewBatch()
	wantErr(t, "NewBatch", err, store.ErrClosed)
	wantErr(t, "Sync", s.Sync(), store.ErrClosed)
	_, err = s.Checkpoint()
	wantErr(t, "Checkpoint", err, store.ErrClosed)
	_, err = s.Receive(bytes.NewReader(stream))
	wantErr(t, "Receive", err, store.ErrClosed)
	_ = s.DiskUsage() // must not panic
}

// Helpers. A pair is written key=value, a state as its pairs in order.

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want %v", what, got, want)
	}
}

func begin(t testing.TB, s store.Store) store.Batch {
	t.Helper()
	b, err := s.NewBatch()
	check(t, err)
	return b
}

// put commits pairs in one batch.
func put(t testing.TB, s store.Store, pairs ...string) {
	t.Helper()
	b := begin(t, s)
	for _, p := range pairs {
		key, value, _ := bytes.Cut([]byte(p), []byte("="))
		check(t, b.Set(key, value))
	}
	check(t, b.Commit())
}

func pair(it store.Iterator) string { return fmt.Sprintf("%s=%s", it.Key(), it.Value()) }

// rest returns what Next still yields.
func rest(it store.Iterator) string {
	var pairs [][]byte
	for it.Next() {
		pairs = append(pairs, []byte(pair(it)))
	}
	return string(bytes.Join(pairs, []byte(" ")))
}

func all(t testing.TB, r store.Reader) string {
	t.Helper()
	it, err := r.Iterate(nil, nil)
	check(t, err)
	got := rest(it)
	check(t, it.Close())
	return got
}

func wantAll(t testing.TB, r store.Reader, state string) {
	t.Helper()
	want(t, "state", all(t, r), state)
}

// wantGet wants the value of key, or its absence if that is empty.
func wantGet(t testing.TB, r store.Reader, key, value string) {
	t.Helper()
	got, ok, err := r.Get([]byte(key))
	check(t, err)
	if ok != (value != "") || string(got) != value {
		t.Fatalf("get %q: got %q, %v; want %q", key, got, ok, value)
	}
}

// checkpointOf returns the stream of the present state.
func checkpointOf(t testing.TB, s store.Store) []byte {
	t.Helper()
	c, err := s.Checkpoint()
	check(t, err)
	var buf bytes.Buffer
	_, err = c.WriteTo(&buf)
	check(t, err)
	check(t, c.Close())
	return slices.Clip(buf.Bytes())
}

func mangle(p []byte) {
	for i := range p {
		p[i] ^= 0xA5
	}
}
