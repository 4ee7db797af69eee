package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// testIteratorBounds: lower is included, upper is not, nil is open, and bounds
// that let nothing through are fine.
func testIteratorBounds(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2", "c=3", "\xff=4", "\xff\xff=5")
	cases := []struct{ lower, upper, want string }{
		{"-", "-", "a=1 b=2 c=3 \xff=4 \xff\xff=5"},
		{"b", "-", "b=2 c=3 \xff=4 \xff\xff=5"},
		{"-", "c", "a=1 b=2"},
		{"b", "c", "b=2"},
		{"a\x00", "\xff\xff", "b=2 c=3 \xff=4"},
		{"b", "b", ""},
		{"c", "b", ""},
		{"", "", ""},
		{"", "b", "a=1"},
		{"-", "", ""},
		{"", "-", "a=1 b=2 c=3 \xff=4 \xff\xff=5"},
		{"\xff\xff\xff", "-", ""},
	}
	for _, c := range cases {
		lower, upper := []byte(c.lower), []byte(c.upper)
		if c.lower == "-" {
			lower = nil
		}
		if c.upper == "-" {
			upper = nil
		}
		it, err := s.Iterate(lower, upper)
		check(t, err)
		want(t, fmt.Sprintf("from %q to %q", c.lower, c.upper), rest(it), c.want)
		for range 2 { // the end is where it stays
			if it.Next() {
				t.Fatalf("from %q to %q: Next after the end", c.lower, c.upper)
			}
		}
		check(t, it.Close())
	}
}

// testIteratorSeek: SeekGE goes anywhere within the bounds, also back, also
// after the end; Next moves past what it found.
func testIteratorSeek(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2", "d=4", "e=5", "f=6")
	it, err := s.Iterate([]byte("b"), []byte("f"))
	check(t, err)
	steps := []struct{ seek, found, rest string }{
		{"c", "d=4", "e=5"},
		{"b", "b=2", "d=4 e=5"},
		{"", "b=2", "d=4 e=5"},
		{"a", "b=2", "d=4 e=5"},
		{"f", "", ""},
		{"z", "", ""},
		{"e\x00", "", ""},
		{"e", "e=5", ""},
		{"d", "d=4", "e=5"},
	}
	for _, step := range steps {
		found := ""
		if it.SeekGE([]byte(step.seek)) {
			found = pair(it)
		}
		want(t, "seek "+step.seek, found, step.found)
		want(t, "after seek "+step.seek, rest(it), step.rest)
	}
	// Between a seek and its Next another seek may come.
	it.SeekGE([]byte("e"))
	it.SeekGE([]byte("b"))
	if !it.Next() || pair(it) != "d=4" {
		t.Fatalf("Next after two seeks: at %s, want d=4", pair(it))
	}
	check(t, it.Close())
	wantErr(t, "second Close", it.Close(), store.ErrClosed)
	if it.Next() || it.SeekGE([]byte("b")) {
		t.Fatal("a closed iterator moves")
	}
}

// testIteratorState: an iterator stays at the state of when it was made.
func testIteratorState(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2", "c=3")
	it, err := s.Iterate(nil, nil)
	check(t, err)
	if !it.Next() {
		t.Fatal("no first key")
	}
	b := begin(t, s)
	check(t, b.DeleteRange([]byte("a"), []byte("z")))
	check(t, b.Set([]byte("b"), []byte("new")))
	check(t, b.Commit())
	want(t, "old state", pair(it)+" "+rest(it), "a=1 b=2 c=3")
	check(t, it.Close())
	wantAll(t, s, "b=new")
}

// testSnapshotIsolation: no later batch changes a snapshot.
func testSnapshotIsolation(t *testing.T, s store.Store) {
	var snaps []store.Snapshot
	states := []string{"", "a=0", "a=1 b=1", "c=2"}
	for _, state := range states {
		b := begin(t, s)
		check(t, b.DeleteRange([]byte(""), []byte("z")))
		for _, p := range bytes.Fields([]byte(state)) {
			key, value, _ := bytes.Cut(p, []byte("="))
			check(t, b.Set(key, value))
		}
		check(t, b.Commit())
		snap, err := s.NewSnapshot()
		check(t, err)
		snaps = append(snaps, snap)
	}
	for i, snap := range snaps {
		wantAll(t, snap, states[i])
	}
	wantGet(t, snaps[1], "a", "0")
	wantGet(t, snaps[2], "a", "1")
	wantGet(t, snaps[3], "a", "")
	it, err := snaps[2].Iterate(nil, nil)
	check(t, err)
	for _, snap := range snaps {
		check(t, snap.Close())
		wantErr(t, "second Close", snap.Close(), store.ErrClosed)
		_, _, err := snap.Get([]byte("a"))
		wantErr(t, "Get", err, store.ErrClosed)
		_, err = snap.Iterate(nil, nil)
		wantErr(t, "Iterate", err, store.ErrClosed)
	}
	want(t, "iterator outlives its snapshot", rest(it), "a=1 b=1")
	check(t, it.Close())
}

// testSnapshotShared: goroutines read one snapshot, and the store, while
// batches are committed. Each batch keeps all keys equal, so that a torn read
// shows.
func testSnapshotShared(t *testing.T, s store.Store) {
	put(t, s, "a=0", "b=0", "c=0")
	snap, err := s.NewSnapshot()
	check(t, err)
	errs := make(chan error, 4)
	var readers sync.WaitGroup
	for range cap(errs) {
		readers.Add(1)
		go func() {
			defer readers.Done()
			errs <- readConsistent(s, snap)
		}()
	}
	for i := range 200 {
		v := fmt.Sprint(i + 1)
		put(t, s, "a="+v, "b="+v, "c="+v)
	}
	readers.Wait()
	for range cap(errs) {
		check(t, <-errs)
	}
	check(t, snap.Close())
}

func readConsistent(s store.Store, snap store.Snapshot) error {
	for range 100 {
		if v, ok, err := snap.Get([]byte("b")); err != nil || !ok || string(v) != "0" {
			return fmt.Errorf("snapshot: got %q, %v, %v; want 0", v, ok, err)
		}
		it, err := s.Iterate(nil, nil)
		if err != nil {
			return err
		}
		values := map[string]bool{}
		for it.Next() {
			values[string(it.Value())] = true
		}
		if err := it.Close(); err != nil {
			return err
		}
		if len(values) != 1 {
			return fmt.Errorf("torn batch: values %v", values)
		}
	}
	return nil
}

// testBigRecords: keys of 4 KiB and values of 4 MiB work, several in one batch.
func testBigRecords(t *testing.T, s store.Store) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return p
	}
	var keys, values [][]byte
	for i := range 3 {
		keys = append(keys, append([]byte{byte(i)}, noise(4<<10)...))
		values = append(values, noise(4<<20))
	}
	b := begin(t, s)
	for i := range keys {
		check(t, b.Set(keys[i], values[i]))
	}
	check(t, b.Commit())
	check(t, s.Sync())
	stream := checkpointOf(t, s)
	in, err := s.Receive(bytes.NewReader(stream))
	check(t, err)
	for _, r := range []store.Reader{s, in.Reader()} {
		for i := range keys {
			got, ok, err := r.Get(keys[i])
			if check(t, err); !ok || !bytes.Equal(got, values[i]) {
				t.Fatalf("big record %d: present %v, %d bytes", i, ok, len(got))
			}
		}
	}
	check(t, in.Discard())
}

// testManyKeys: the store behaves when it is large: keys written in random
// order come out sorted, and deleting most of them leaves the others.
func testManyKeys(t *testing.T, s store.Store) {
	const n = 20_000
	r := rand.New(rand.NewPCG(3, 4))
	order := r.Perm(n)
	for len(order) > 0 {
		b := begin(t, s)
		for _, i := range order[:n/10] {
			check(t, b.Set(fmt.Appendf(nil, "%06d", i), fmt.Appendf(nil, "v%d", i)))
		}
		check(t, b.Commit())
		order = order[n/10:]
	}
	walk := func(from, to, step int) {
		t.Helper()
		it, err := s.Iterate(nil, nil)
		check(t, err)
		i := from
		for ; it.Next(); i += step {
			want(t, "walk", pair(it), fmt.Sprintf("%06d=v%d", i, i))
		}
		check(t, it.Close())
		if i != to {
			t.Fatalf("walk ended before %d, want %d", i, to)
		}
	}
	walk(0, n, 1)
	b := begin(t, s)
	for i := range n {
		if i%2 == 1 {
			check(t, b.Delete(fmt.Appendf(nil, "%06d", i)))
		}
	}
	check(t, b.Commit())
	walk(0, n, 2)
	b = begin(t, s)
	check(t, b.DeleteRange([]byte("000100"), fmt.Appendf(nil, "%06d", n-100)))
	check(t, b.DeleteRange(fmt.Appendf(nil, "%06d", n-100), []byte("1")))
	check(t, b.Commit())
	walk(0, 100, 2)
}
