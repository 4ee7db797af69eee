package pebblestore

import (
	"cmp"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// formatVersion is Pebble's newest on-disk format, written out so that an
// upgrade of the library does not raise it unnoticed: older binaries could not
// open the store any more.
const formatVersion = pebble.FormatValueSeparation

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = privateFS{vfs.Default}
	}
	o.CacheBytes = cmp.Or(o.CacheBytes, 8<<20)
	o.MemTableBytes = cmp.Or(o.MemTableBytes, 4<<20)
	o.OpenFilesMax = cmp.Or(o.OpenFilesMax, 500)
	o.StallLimit = cmp.Or(o.StallLimit, 10*time.Second)
	o.BatchBytesMax = cmp.Or(o.BatchBytesMax, store.BatchBytesMax)
	if o.Logger == nil {
		o.Logger = silence{}
	}
	return o
}

// pebbleOptions returns fresh options, whose failures go to stop.
func (s *Store) pebbleOptions(stop *failStop) *pebble.Options {
	opts := &pebble.Options{
		FS:                 &sealedFS{FS: s.fs, stop: stop},
		Cache:              s.cache,
		Logger:             stop,
		EventListener:      stop.listener(),
		FormatMajorVersion: formatVersion,
		MaxOpenFiles:       s.opts.OpenFilesMax,

		MemTableSize:                uint64(s.opts.MemTableBytes),
		MemTableStopWritesThreshold: 3,
		// Keys are rewritten often and values are small: few files in level 0 keep
		// reads short, and a burst must not stop writes because of their number.
		L0CompactionThreshold: 2,
		L0StopWritesThreshold: 1000,
		CompactionConcurrencyRange: func() (lower, upper int) {
			return 1, min(3, runtime.GOMAXPROCS(0))
		},
		// A checkpoint copies the manifest.
		MaxManifestFileSize: 16 << 20,
		// Nobody waits for most of what is logged; without this the kernel would
		// collect it until a Sync has to wait for all of it.
		WALBytesPerSync: 512 << 10,
	}
	// Most reads are of one key, and many of absent ones.
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	// One file cache shard per CPU is meant for one database per machine; a host
	// runs many.
	opts.Experimental.FileCacheShards = min(2, runtime.GOMAXPROCS(0))
	return opts
}
