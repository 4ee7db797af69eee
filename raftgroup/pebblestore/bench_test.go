package pebblestore

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// benchStores runs a benchmark on a store on disk and on the in-memory one.
func benchStores(b *testing.B, run func(b *testing.B, s store.Store)) {
	b.Run("pebble", func(b *testing.B) {
		s := openTest(b, Options{FS: vfs.Default, Dir: b.TempDir()})
		run(b, s)
		must(b, s.Close())
	})
	b.Run("mem", func(b *testing.B) { run(b, store.NewMem()) })
}

func benchKey(n int) []byte { return binary.BigEndian.AppendUint64([]byte("key-"), uint64(n)) }

// BenchmarkBatch commits batches as a packed entry makes them: of reads of each
// key before its write. The time is per batch.
func BenchmarkBatch(b *testing.B) {
	const keys = 100_000
	value := make([]byte, 128)
	for _, size := range []int{1, 16, 256} {
		for _, read := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/read=%v", size, read), func(b *testing.B) {
				benchStores(b, func(b *testing.B, s store.Store) {
					r := rand.New(rand.NewPCG(1, 1))
					b.ReportAllocs()
					for b.Loop() {
						commit(b, s, func(batch store.Batch) error {
							for range size {
								key := benchKey(r.IntN(keys))
								if read {
									if _, _, err := batch.Get(key); err != nil {
										return err
									}
								}
								if err := batch.Set(key, value); err != nil {
									return err
								}
							}
							return nil
						})
					}
				})
			})
		}
	}
}

// BenchmarkGet reads single keys.
func BenchmarkGet(b *testing.B) {
	const keys = 100_000
	benchStores(b, func(b *testing.B, s store.Store) {
		commit(b, s, func(batch store.Batch) error {
			for n := range keys {
				if err := batch.Set(benchKey(n), make([]byte, 128)); err != nil {
					return err
				}
			}
			return nil
		})
		r := rand.New(rand.NewPCG(1, 1))
		b.ReportAllocs()
		for b.Loop() {
			if _, ok, err := s.Get(benchKey(r.IntN(keys))); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}
