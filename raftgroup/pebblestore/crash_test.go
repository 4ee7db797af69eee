package pebblestore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// The crash tests number the batches of a store. Batch n writes n under "n",
// and under one of a few keys, and now and then deletes a range or carries a
// value that is too big for the write buffer: whatever state comes back after a
// crash, "n" says which batches it must consist of, to the byte.

const crashKeys = 8

// batchOf applies batch n to b.
func batchOf(n int, b store.Batch) error {
	v := []byte(strconv.Itoa(n))
	if n%11 == 0 {
		if err := b.DeleteRange([]byte("k2"), []byte("k5")); err != nil {
			return err
		}
	}
	if n%17 == 0 {
		v = append(v, bytes.Repeat([]byte{byte(n)}, 40<<10)...)
	}
	key := fmt.Appendf(nil, "k%d", n%crashKeys)
	if err := b.Set(key, v); err != nil {
		return err
	}
	if n%5 == 0 {
		if err := b.Delete(fmt.Appendf(nil, "k%d", (n+3)%crashKeys)); err != nil {
			return err
		}
	}
	return b.Set([]byte("n"), binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// expected returns the digest of the state after each of the first n batches.
func expected(t testing.TB, n int) []store.Sum {
	t.Helper()
	m := store.NewMem()
	sums := []store.Sum{m.Hash()}
	for i := 1; i <= n; i++ {
		commit(t, m, func(b store.Batch) error { return batchOf(i, b) })
		sums = append(sums, m.Hash())
	}
	return sums
}

func commit(t testing.TB, s store.Store, fill func(store.Batch) error) {
	t.Helper()
	b, err := s.NewBatch()
	must(t, err)
	must(t, fill(b))
	must(t, b.Commit())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stateOf returns which batch r is at, and its digest.
func stateOf(t testing.TB, r store.Reader) (int, store.Sum) {
	t.Helper()
	m := store.NewMem()
	commit(t, m, func(b store.Batch) error {
		it, err := r.Iterate(nil, nil)
		must(t, err)
		for it.Next() {
			must(t, b.Set(it.Key(), it.Value()))
		}
		return it.Close()
	})
	v, ok, err := r.Get([]byte("n"))
	must(t, err)
	if !ok {
		return 0, m.Hash()
	}
	return int(binary.BigEndian.Uint64(v)), m.Hash()
}

// crashOptions make Pebble flush, rotate its log and compact all the time.
func crashOptions(fs vfs.FS) Options {
	return Options{Dir: "data/store", FS: fs, MemTableBytes: 64 << 10, CacheBytes: 64 << 10}
}

// crashClone is the file system after a loss of power now.
func crashClone(fs *vfs.MemFS, r *rand.Rand) *vfs.MemFS {
	percent := []int{0, 0, 20, 50, 90, 100}[r.IntN(6)]
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r})
}

// After a crash at any moment the store holds everything that was synced, and
// of the rest a prefix of the batches: none is torn, none without its
// forerunners. Crashes hit while opening, writing, syncing and flushing.
func TestCrashKeepsSyncedPrefix(t *testing.T) {
	const batches, rounds = 120, 40
	sums := expected(t, batches)
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		committed, synced := 0, 0
		for lives := 0; committed < batches && lives < 6; lives++ {
			s, err := Open(crashOptions(fs))
			must(t, err)
			at, sum := stateOf(t, s)
			if at < synced || at > committed || sum != sums[at] {
				t.Fatalf("seed %d, life %d: at batch %d (digest right: %v), want one of %d to %d",
					seed, lives, at, sum == sums[at], synced, committed)
			}
			// What a crash spared is durable only after the next sync.
			committed = at
			for steps := 1 + r.IntN(50); steps > 0 && committed < batches; steps-- {
				committed++
				commit(t, s, func(b store.Batch) error { return batchOf(committed, b) })
				if r.IntN(8) == 0 {
					must(t, s.Sync())
					synced = committed
				}
			}
			next := crashClone(fs, r)
			must(t, s.Close())
			fs = next
		}
	}
}

// A store opens after several crashes in a row, each at the same moment of its
// opening or closing, and has what it had synced. What else a crash leaves is drawn
// several times for each moment.
func TestCrashesInARow(t *testing.T) {
	const draws = 8
	for step, crashes := 0, 1; crashes > 0; step++ {
		for draw := range uint64(draws) {
			crashes = crashInARow(t, step, rand.New(rand.NewPCG(uint64(step), draw)))
		}
	}
}

// crashInARow crashes a store at one step of its opening or closing, several times,
// and returns how often it came so far.
func crashInARow(t *testing.T, step int, r *rand.Rand) (crashes int) {
	const batches, lives = 20, 3
	disk := vfs.NewCrashableMem()
	s, err := Open(crashOptions(disk))
	must(t, err)
	for n := 1; n <= batches; n++ {
		commit(t, s, func(b store.Batch) error { return batchOf(n, b) })
	}
	must(t, s.Sync())
	must(t, s.Close())
	for crashes = 0; crashes < lives; crashes++ {
		fs := &crashingFS{MemFS: disk, countdown: step, r: r}
		s, err := Open(crashOptions(fs))
		if err != nil {
			t.Fatalf("after %d crashes at step %d: %v", crashes, step, err)
		}
		must(t, s.Close())
		next := fs.crashed()
		if next == nil {
			break
		}
		disk = next
	}
	if at := reopen(t, disk, expected(t, batches+1)); at != batches {
		t.Fatalf("after %d crashes at step %d: at batch %d, want %d", crashes, step, at, batches)
	}
	return crashes
}

// A crash while other goroutines sync and flush, at a moment that they choose:
// what a Sync had confirmed before the crash is there.
func TestCrashDuringSync(t *testing.T) {
	const batches = 150
	sums := expected(t, batches)
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 2))
		fs := vfs.NewCrashableMem()
		s, err := Open(crashOptions(fs))
		must(t, err)
		crashAt := 1 + r.IntN(batches)
		type crash struct {
			fs     *vfs.MemFS
			synced int // confirmed before the crash
		}
		crashed := make(chan crash, 1)
		confirmed := make(chan int, batches)
		for n := 1; n <= batches; n++ {
			commit(t, s, func(b store.Batch) error { return batchOf(n, b) })
			if n%7 == 0 {
				must(t, s.Sync())
				confirmed <- n
			}
			if n == crashAt {
				go func() {
					synced := 0
					for len(confirmed) > 0 {
						synced = <-confirmed
					}
					crashed <- crash{crashClone(fs, r), synced}
				}()
			}
		}
		c := <-crashed
		must(t, s.Close())
		after, err := Open(crashOptions(c.fs))
		must(t, err)
		at, sum := stateOf(t, after)
		if at < c.synced || sum != sums[at] {
			t.Fatalf("seed %d: at batch %d (digest right: %v), batch %d was synced",
				seed, at, sum == sums[at], c.synced)
		}
		must(t, after.Close())
	}
}

// After a crash at any moment of receiving and adopting a state, the store
// holds the old state or the received one, whole; the received one for sure
// once Adopt returned. What it does not hold is deleted.
func TestCrashAdoptAtomic(t *testing.T) {
	const old = 70
	sums := expected(t, old+1)
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 3))
		received := 15 + 2*int(seed) // with and without tables
		stream := streamAt(t, received)
		// The file system is cloned at a random one of the steps that change it.
		fs := &crashingFS{MemFS: vfs.NewCrashableMem(), countdown: -1, r: r}
		s, err := Open(crashOptions(fs))
		must(t, err)
		for n := 1; n <= old; n++ {
			commit(t, s, func(b store.Batch) error { return batchOf(n, b) })
		}
		must(t, s.Sync())
		fs.arm(r.IntN(60))
		in, err := s.Receive(bytes.NewReader(stream))
		must(t, err)
		at, sum := stateOf(t, in.Reader())
		if at != received || sum != sums[received] {
			t.Fatalf("seed %d: received batch %d, want %d", seed, at, received)
		}
		must(t, in.Adopt())
		during, adopted := fs.crashed(), crashClone(fs.MemFS, r)
		must(t, s.Close())
		if during != nil {
			if at := reopen(t, during, sums); at != old && at != received {
				t.Fatalf("seed %d: crash on the way: at batch %d, want %d or %d", seed, at, old, received)
			}
		}
		if at := reopen(t, adopted, sums); at != received {
			t.Fatalf("seed %d: crash after Adopt: at batch %d, want %d", seed, at, received)
		}
	}
}

// What Receive returned is durable, file by file: were it not, Adopt would put
// a state in force that a crash can still take apart.
func TestReceiveDurable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s, err := Open(crashOptions(fs))
	must(t, err)
	in, err := s.Receive(bytes.NewReader(streamAt(t, 55)))
	must(t, err)
	dir := in.(*incoming).dir
	files, err := listFiles(fs, dir)
	must(t, err)
	tables := 0
	crashed := fs.CrashClone(vfs.CrashCloneCfg{}) // without anything unsynced
	for _, f := range files {
		path := fs.PathJoin(dir, f.name)
		want, got := readFile(t, fs, path), readFile(t, crashed, path)
		if !bytes.Equal(want, got) {
			t.Fatalf("%s: %d bytes, of which %d are durable", f.name, len(want), len(got))
		}
		if strings.HasSuffix(f.name, ".sst") {
			tables++
		}
	}
	if tables == 0 {
		t.Fatalf("no table among %v: the test shows nothing", files)
	}
	must(t, in.Discard())
	must(t, s.Close())
}

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	must(t, err)
	defer f.Close()
	data, err := io.ReadAll(f)
	must(t, err)
	return data
}

// streamAt returns a checkpoint's stream of another store at batch n.
func streamAt(t testing.TB, n int) []byte {
	t.Helper()
	s := openTest(t, crashOptions(vfs.NewMem()))
	for i := 1; i <= n; i++ {
		commit(t, s, func(b store.Batch) error { return batchOf(i, b) })
	}
	c, err := s.Checkpoint()
	must(t, err)
	var stream bytes.Buffer
	_, err = c.WriteTo(&stream)
	must(t, err)
	must(t, c.Close())
	must(t, s.Close())
	return stream.Bytes()
}

// reopen opens a crashed store, checks its state and that nothing else is left
// in its directory, writes to it, and returns the batch that it was at.
func reopen(t testing.TB, fs *vfs.MemFS, sums []store.Sum) int {
	t.Helper()
	s, err := Open(crashOptions(fs))
	must(t, err)
	at, sum := stateOf(t, s)
	if sum != sums[at] {
		t.Fatalf("state of batch %d is not what it was", at)
	}
	wantTidy(t, s)
	commit(t, s, func(b store.Batch) error { return batchOf(at+1, b) })
	must(t, s.Close())
	return at
}

// wantTidy wants nothing in the store's directory but what is in force.
func wantTidy(t testing.TB, s *Store) {
	t.Helper()
	names, err := s.fs.List(s.opts.Dir)
	must(t, err)
	p, err := s.readPointer()
	must(t, err)
	for _, name := range names {
		switch name {
		case lockName, pointerName, stateName(p.number):
		case pointerTempName: // overwritten by the next one
		default:
			t.Fatalf("%s is left over; in force is %s", name, stateName(p.number))
		}
	}
}
