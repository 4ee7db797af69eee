package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

var errDisk = errors.New("disk: input/output error")

// faultyFS returns a file system that fails with errDisk for the operations that
// the switched-on condition matches.
func faultyFS(match func(errorfs.Op) bool) (vfs.FS, *atomic.Bool) {
	on := new(atomic.Bool)
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && match(op) {
			return errDisk
		}
		return nil
	})), on
}

// fatals collects what OnFatal is told.
type fatals struct{ told chan error }

func newFatals() fatals { return fatals{told: make(chan error, 16)} }

func (f fatals) on(err error) { f.told <- err }

// wait returns the first failure; a test that never fails the store times out.
func (f fatals) wait() error { return <-f.told }

// wantFailed wants every call of s to be refused with ErrFatal, OnFatal to have
// been told exactly once, and Close to return.
func wantFailed(t *testing.T, s *Store, f fatals) {
	t.Helper()
	if err := f.wait(); !errors.Is(err, ErrFatal) {
		t.Fatalf("OnFatal got %v, want ErrFatal", err)
	}
	_, _, err := s.Get([]byte("k"))
	wantFatal(t, "Get", err)
	_, err = s.Iterate(nil, nil)
	wantFatal(t, "Iterate", err)
	_, err = s.NewSnapshot()
	wantFatal(t, "NewSnapshot", err)
	_, err = s.NewBatch()
	wantFatal(t, "NewBatch", err)
	wantFatal(t, "Sync", s.Sync())
	_, err = s.Checkpoint()
	wantFatal(t, "Checkpoint", err)
	_, err = s.Receive(strings.NewReader(""))
	wantFatal(t, "Receive", err)
	if n := s.DiskUsage(); n != 0 {
		t.Fatalf("DiskUsage: got %d, want 0", n)
	}
	wantFatal(t, "Close", s.Close())
	if n := len(f.told); n != 0 {
		t.Fatalf("OnFatal was called %d times too many: %v", n, <-f.told)
	}
}

func wantFatal(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrFatal) {
		t.Fatalf("%s: got error %v, want ErrFatal", what, err)
	}
}

// write commits batches until one is refused, which must be with ErrFatal, or
// until stop says so.
func write(t *testing.T, s *Store, stop func() bool) {
	t.Helper()
	value := bytes.Repeat([]byte("v"), 4<<10)
	for n := 0; !stop(); n++ {
		b, err := s.NewBatch()
		if err == nil {
			err = errors.Join(b.Set(fmt.Appendf(nil, "key%d", n%100), value), b.Commit())
		}
		if err == nil && n%50 == 49 {
			err = s.Sync()
		}
		if err != nil {
			wantFatal(t, "write", err)
			return
		}
	}
}

// A store stops for good when any step of writing fails: the sync of the log,
// a write to it, opening the next one, writing a table, or the manifest. The
// last two fail in Pebble's own goroutines.
func TestFailStop(t *testing.T) {
	op := func(part string, kinds ...errorfs.OpKind) func(errorfs.Op) bool {
		return func(o errorfs.Op) bool {
			return slices.Contains(kinds, o.Kind) && strings.Contains(o.Path, part)
		}
	}
	cases := map[string]func(errorfs.Op) bool{
		"log sync":       op(".log", errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo),
		"log write":      op(".log", errorfs.OpFileWrite),
		"log create":     op(".log", errorfs.OpCreate, errorfs.OpReuseForWrite),
		"table create":   op(".sst", errorfs.OpCreate),
		"table write":    op(".sst", errorfs.OpFileWrite),
		"table sync":     op(".sst", errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo),
		"manifest write": op("MANIFEST", errorfs.OpFileWrite),
		"manifest sync":  op("MANIFEST", errorfs.OpFileSync, errorfs.OpFileSyncData),
	}
	for name, match := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs, on := faultyFS(match)
			f := newFatals()
			s := openTest(t, Options{FS: fs, OnFatal: f.on, MemTableBytes: 64 << 10})
			commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), []byte("v")) })
			must(t, s.Sync())
			on.Store(true)
			write(t, s, func() bool { return len(f.told) > 0 })
			wantFailed(t, s, f)
		})
	}
}

// A disk that does not return from a sync is a failed disk.
func TestStallIsFatal(t *testing.T) {
	release := make(chan struct{})
	var stalled atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stalled.Load() && strings.Contains(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			<-release
		}
		return nil
	}))
	f := newFatals()
	s := openTest(t, Options{FS: fs, OnFatal: f.on, StallLimit: 20 * time.Millisecond})
	stalled.Store(true)
	done := make(chan error, 1)
	go func() { done <- s.Sync() }()
	err := f.wait()
	if !errors.Is(err, ErrFatal) || !strings.Contains(err.Error(), "stalled") {
		t.Fatalf("OnFatal got %v", err)
	}
	close(release)
	wantFatal(t, "the stalled Sync", <-done)
	f.told <- err
	wantFailed(t, s, f)
}

// So is one that does not return from a read.
func TestReadStallIsFatal(t *testing.T) {
	release := make(chan struct{})
	var stalled atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stalled.Load() && op.Kind == errorfs.OpFileReadAt {
			<-release
		}
		return nil
	}))
	s := openTest(t, Options{FS: fs})
	commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), []byte("v")) })
	must(t, s.Close())
	f := newFatals()
	s = openTest(t, Options{FS: fs, OnFatal: f.on, StallLimit: 100 * time.Millisecond}) // flushes what the log held
	stalled.Store(true)
	done := make(chan error, 1)
	go func() {
		_, _, err := s.Get([]byte("k"))
		done <- err
	}()
	err := f.wait()
	if !errors.Is(err, ErrFatal) || !strings.Contains(err.Error(), "disk stalled: read") {
		t.Fatalf("OnFatal got %v", err)
	}
	close(release)
	<-done // what it had read by then is sound
	f.told <- err
	wantFailed(t, s, f)
}

// A table whose bytes changed is found out when it is read, and stops the
// store; the bytes are not served.
func TestCorruptionIsFatal(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, Options{FS: fs})
	commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), bytes.Repeat([]byte("v"), 100)) })
	must(t, s.Close())
	s = openTest(t, Options{FS: fs}) // flushes what the log held
	must(t, s.Close())
	dir := "store/" + stateName(1)
	files, err := listFiles(fs, dir)
	must(t, err)
	damaged := 0
	for _, file := range files {
		if strings.HasSuffix(file.name, ".sst") {
			damage(t, fs, fs.PathJoin(dir, file.name), 10)
			damaged++
		}
	}
	if damaged == 0 {
		t.Fatalf("no table among %v", files)
	}
	f := newFatals()
	s = openTest(t, Options{FS: fs, OnFatal: f.on})
	v, ok, err := s.Get([]byte("k"))
	wantFatal(t, "Get", err)
	if ok || v != nil {
		t.Fatalf("Get served %q", v)
	}
	wantFailed(t, s, f)
}

// damage flips a bit of a file.
func damage(t *testing.T, fs vfs.FS, path string, at int) {
	t.Helper()
	data := readFile(t, fs, path)
	data[at] ^= 1
	must(t, writeFile(fs, path, data))
}

// An open iterator of a store that failed ends, with the failure.
func TestFailedIteratorEnds(t *testing.T) {
	fs, on := faultyFS(func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, ".log")
	})
	f := newFatals()
	s := openTest(t, Options{FS: fs, OnFatal: f.on})
	commit(t, s, func(b store.Batch) error {
		return errors.Join(b.Set([]byte("a"), nil), b.Set([]byte("b"), nil))
	})
	must(t, s.Sync())
	it, err := s.Iterate(nil, nil)
	must(t, err)
	snap, err := s.NewSnapshot()
	must(t, err)
	if !it.Next() {
		t.Fatal("no first key")
	}
	on.Store(true)
	wantFatal(t, "Sync", s.Sync())
	if it.Next() || it.Key() != nil || it.SeekGE([]byte("a")) {
		t.Fatal("the iterator goes on")
	}
	wantFatal(t, "iterator's Close", it.Close())
	_, _, err = snap.Get([]byte("a"))
	wantFatal(t, "snapshot's Get", err)
	must(t, snap.Close())
	wantFailed(t, s, f)
}

// Claim: a batch that gets too large is refused as an error, where Pebble would
// panic, and the store goes on without it.
func TestFullBatchIsRefused(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir(), BatchBytesMax: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := s.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 100<<10)
	var n int
	for err = nil; err == nil; n++ {
		err = b.Set([]byte("k"), value)
	}
	if !errors.Is(err, store.ErrBatchFull) || n != 11 {
		t.Fatalf("write %d: %v, want ErrBatchFull at the eleventh", n, err)
	}
	for b.Delete([]byte("k")) == nil {
	}
	if err := b.DeleteRange([]byte("a"), []byte("b")); !errors.Is(err, store.ErrBatchFull) {
		t.Errorf("a range delete into a full batch: %v, want ErrBatchFull", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err = s.NewBatch(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Set([]byte("k"), nil), b.Commit()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Get([]byte("k")); !ok || err != nil {
		t.Errorf("after a full batch was closed: %v, %v", ok, err)
	}
}
