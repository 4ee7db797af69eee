package pebblestore

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/store/storetest"
)

// openMem opens a store on a fresh memory file system, unless opts names one.
func openTest(t testing.TB, opts Options) *Store {
	t.Helper()
	if opts.FS == nil {
		opts.FS = vfs.NewMem()
	}
	if opts.Dir == "" {
		opts.Dir = "store"
	}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The store keeps the contract, on memory and on a disk.
func TestContract(t *testing.T) {
	t.Run("mem", func(t *testing.T) {
		storetest.Run(t, func(t testing.TB) store.Store { return openTest(t, Options{}) })
	})
	t.Run("disk", func(t *testing.T) {
		storetest.Run(t, func(t testing.TB) store.Store {
			return openTest(t, Options{FS: vfs.Default, Dir: t.TempDir()})
		})
	})
}
