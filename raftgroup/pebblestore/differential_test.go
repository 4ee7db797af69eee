package pebblestore

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/store/storetest"
)

// compareStores runs one program on the in-memory store, on this one and on the
// model. The tiny buffer makes Pebble flush and compact within a program.
func compareStores(t storetest.T, program []byte) {
	t.Helper()
	mem := store.NewMem()
	disk, err := Open(Options{Dir: "store", FS: vfs.NewMem(), MemTableBytes: 32 << 10, CacheBytes: 64 << 10})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	storetest.Compare(t, program, mem, disk)
	if err := disk.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if n := mem.OpenReaders(); n != 0 {
		t.Fatalf("%d readers left open", n)
	}
}

// Any program gives the same results on both stores and the model. The seeds
// are in testdata; go test -fuzz=FuzzStores looks for more.
func FuzzStores(f *testing.F) {
	f.Fuzz(func(t *testing.T, program []byte) { compareStores(t, program) })
}

// The same for long programs, which a fuzzer rarely makes: of rapid, and evenly
// random ones.
func TestStoresAgree(t *testing.T) {
	for seed := range uint64(25) {
		compareStores(t, storetest.Program(seed, 1500))
	}
	rapid.Check(t, func(t *rapid.T) {
		compareStores(t, rapid.SliceOfN(rapid.Byte(), 200, 1500).Draw(t, "program"))
	})
}
