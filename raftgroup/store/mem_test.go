package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/store/storetest"
)

// Mem keeps the contract.
func TestMemContract(t *testing.T) {
	storetest.Run(t, func(testing.TB) store.Store { return store.NewMem() })
}

// Any program of operations gives the same results on a Mem and on the model:
// programs that rapid finds interesting, and evenly random ones.
func TestMemAgreesWithModel(t *testing.T) {
	compare := func(t storetest.T, program []byte) {
		m := store.NewMem()
		storetest.Compare(t, program, m)
		if n := m.OpenReaders(); n != 0 {
			t.Fatalf("%d readers left open", n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		compare(t, rapid.SliceOfN(rapid.Byte(), 300, 2000).Draw(t, "program"))
	})
	for seed := range uint64(100) {
		compare(t, storetest.Program(seed, 2000))
	}
}

// write commits one batch of pairs: a key of one byte, then its value.
func write(t testing.TB, s store.Store, pairs ...string) {
	t.Helper()
	b, err := s.NewBatch()
	must(t, err)
	for _, p := range pairs {
		must(t, b.Set([]byte(p[:1]), []byte(p[1:])))
	}
	must(t, b.Commit())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pipe returns the stream of c.
func pipe(t testing.TB, c store.Checkpoint) *bytes.Reader {
	t.Helper()
	var stream bytes.Buffer
	_, err := c.WriteTo(&stream)
	must(t, err)
	return bytes.NewReader(stream.Bytes())
}

func contents(t testing.TB, r store.Reader) string {
	t.Helper()
	it, err := r.Iterate(nil, nil)
	must(t, err)
	var out string
	for it.Next() {
		out += fmt.Sprintf("%s%s ", it.Key(), it.Value())
	}
	must(t, it.Close())
	return out
}

func want(t testing.TB, r store.Reader, state string) {
	t.Helper()
	if got := contents(t, r); got != state {
		t.Fatalf("got %q, want %q", got, state)
	}
}

// A crash leaves what was synced and the chosen prefix of the batches after it.
func TestMemCrash(t *testing.T) {
	m := store.NewMem()
	write(t, m, "a1")
	must(t, m.Sync())
	write(t, m, "b2")
	write(t, m, "a3", "c3")
	if n := m.Unsynced(); n != 2 {
		t.Fatalf("%d unsynced batches, want 2", n)
	}
	for keep, state := range map[int]string{
		0: "a1 ", 1: "a1 b2 ", 2: "a3 b2 c3 ", 3: "a3 b2 c3 ", -1: "a3 b2 c3 ",
	} {
		crashed := m.Crash(keep)
		want(t, crashed, state)
		if n := crashed.Unsynced(); n != 0 {
			t.Fatalf("after a crash %d batches are unsynced", n)
		}
		write(t, crashed, "z9")
		want(t, crashed.Crash(0), state) // what a crash spared is durable
	}
	want(t, m, "a3 b2 c3 ")
	must(t, m.Close())
	want(t, m.Crash(1), "a1 b2 ") // a closed store crashes too
}

// A checkpoint makes the present state durable, and so does adopting one.
func TestMemCheckpointIsDurable(t *testing.T) {
	m := store.NewMem()
	write(t, m, "a1")
	c, err := m.Checkpoint()
	must(t, err)
	want(t, m.Crash(0), "a1 ")
	write(t, m, "b2")
	r := pipe(t, c)
	in, err := m.Receive(r)
	must(t, err)
	want(t, m.Crash(0), "a1 ")
	want(t, m.Crash(-1), "a1 b2 ")
	write(t, m, "c3")
	must(t, in.Adopt())
	want(t, m.Crash(0), "a1 ")
	want(t, m.Crash(-1), "a1 ")
}

// A store that is never synced keeps a bounded number of old states; what it
// gives up counts as flushed.
func TestMemUnsyncedIsBounded(t *testing.T) {
	m := store.NewMem()
	for i := range 1000 {
		write(t, m, fmt.Sprintf("n%d", i))
	}
	n := m.Unsynced()
	if n == 0 || n > 256 {
		t.Fatalf("%d unsynced batches, want 1 to 256", n)
	}
	for keep := range n {
		want(t, m.Crash(keep), fmt.Sprintf("n%d ", 999-n+keep))
	}
}

// A clone and its origin do not see each other, neither what is visible nor
// what is durable.
func TestMemClone(t *testing.T) {
	m := store.NewMem()
	write(t, m, "a1")
	must(t, m.Sync())
	write(t, m, "b1")
	clones := []*store.Mem{m, m.Clone(), m.Clone(), m.Clone()}
	for i, c := range clones {
		write(t, c, fmt.Sprintf("c%d", i))
	}
	must(t, clones[1].Sync())
	write(t, clones[2], "d2")
	want(t, clones[0], "a1 b1 c0 ")
	want(t, clones[0].Crash(0), "a1 ")
	want(t, clones[0].Crash(1), "a1 b1 ")
	want(t, clones[0].Crash(2), "a1 b1 c0 ")
	want(t, clones[1].Crash(0), "a1 b1 c1 ")
	want(t, clones[2].Crash(2), "a1 b1 c2 ")
	want(t, clones[2].Crash(3), "a1 b1 c2 d2 ")
	want(t, clones[3].Crash(2), "a1 b1 c3 ")
}

// The hash tells the contents and nothing else: not how they came about, nor
// what is durable. CrashHash tells that too.
func TestMemHash(t *testing.T) {
	a, b := store.NewMem(), store.NewMem()
	if a.Hash() != b.Hash() || a.CrashHash() != b.CrashHash() {
		t.Fatal("empty stores differ")
	}
	for i := range 500 {
		write(t, a, fmt.Sprintf("%c%d", 'A'+i%60, i))
		a.Hash() // must not go stale
	}
	for i := 499; i >= 440; i-- { // what was not overwritten, backwards
		write(t, b, fmt.Sprintf("%c%d", 'A'+i%60, i))
	}
	if contents(t, a) != contents(t, b) || a.Hash() != b.Hash() {
		t.Fatal("same contents, different hashes")
	}
	before, crashBefore := a.Hash(), a.CrashHash()
	must(t, a.Sync())
	if a.Hash() != before || a.CrashHash() == crashBefore {
		t.Fatal("Sync must change CrashHash only")
	}
	seen := map[store.Sum]string{}
	for _, pairs := range [][]string{{}, {"a"}, {"b"}, {"ab"}, {"a", "b"}, {"ab", "b"}, {"a", "bb"}, {"aa"}, {"a\x00"}} {
		m := store.NewMem()
		write(t, m, pairs...)
		if other, ok := seen[m.Hash()]; ok {
			t.Fatalf("%q and %s have the same hash", pairs, other)
		}
		seen[m.Hash()] = fmt.Sprintf("%q", pairs)
	}
}

// An injected error comes back from the call that met it and from every later
// one; a failed commit did nothing.
func TestMemHook(t *testing.T) {
	broken := errors.New("disk gone")
	for _, op := range []store.Op{
		store.OpGet, store.OpIterate, store.OpNext, store.OpSnapshot, store.OpBatch,
		store.OpCommit, store.OpSync, store.OpCheckpoint, store.OpReceive, store.OpAdopt,
	} {
		m := store.NewMem()
		write(t, m, "a1")
		c, err := m.Checkpoint()
		must(t, err)
		stream := pipe(t, c)
		m.SetHook(func(o store.Op) error {
			if o == op {
				return broken
			}
			return nil
		})
		if err := everyOp(t, m, stream); !errors.Is(err, broken) {
			t.Fatalf("%s: got error %v", op, err)
		}
		m.SetHook(nil)
		if _, _, err := m.Get([]byte("a")); !errors.Is(err, broken) {
			t.Fatalf("%s: the store goes on after its failure: %v", op, err)
		}
		if state := contents(t, m.Crash(-1)); op == store.OpCommit && state != "a1 " {
			t.Fatalf("a failed commit left %q", state)
		}
	}
}

// everyOp does each step once and returns the first error.
func everyOp(t testing.TB, m *store.Mem, stream io.Reader) error {
	_, _, err := m.Get([]byte("a"))
	it, err2 := m.Iterate(nil, nil)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	it.Next()
	snap, err := m.NewSnapshot()
	if err = errors.Join(err, it.Close()); err != nil {
		return err
	}
	must(t, snap.Close())
	b, err := m.NewBatch()
	if err != nil {
		return err
	}
	must(t, b.Set([]byte("b"), []byte("2")))
	if err := b.Commit(); err != nil {
		return err
	}
	want(t, m.Crash(-1), "a1 b2 ")
	in, err := m.Receive(stream)
	if err != nil {
		return err
	}
	_, err = m.Checkpoint()
	return errors.Join(err, m.Sync(), in.Adopt())
}

// An iterator of a batch is refused after the batch's next write.
func TestMemStaleBatchIterator(t *testing.T) {
	m := store.NewMem()
	b, err := m.NewBatch()
	must(t, err)
	must(t, b.Set([]byte("a"), nil))
	it, err := b.Iterate(nil, nil)
	must(t, err)
	must(t, b.Set([]byte("b"), nil))
	if it.Next() {
		t.Fatal("the iterator moved")
	}
	if err := it.Close(); !errors.Is(err, store.ErrStaleIterator) {
		t.Fatalf("got error %v, want ErrStaleIterator", err)
	}
	must(t, b.Close())
}
