// Package pebblestore is the durable store.Store, on Pebble.
//
// # On disk
//
// A store owns one directory. CURRENT names the sub-directory, state-N, that
// holds the live Pebble database; it is replaced by rename, with the directory
// synced, so that Adopt swaps whole databases in one step. Other state-N
// directories (received and not adopted, or replaced and not yet deleted) and
// checkpoint-N directories (hard links to what is being streamed) mean nothing
// after a crash, and Open deletes them. LOCK keeps other processes out.
//
// # Durability
//
// Batches go to Pebble's write-ahead log without waiting. Sync waits for the
// log to be synced; because the log is one sequence, batches become durable in
// the order of their commits. The caller (a replicated machine) syncs when the
// Raft log is about to drop entries, not on every batch.
//
// # Fail-stop
//
// A read or a write that fails, a checksum that does not fit, or an operation that
// stalls beyond Options.StallLimit ends the store, also while a checkpoint is sent
// or a state received: OnFatal is told once, and every
// later call returns an error that wraps ErrFatal, as does every write under way.
// Nothing is retried and nothing more is written, because after a failed sync
// the kernel may have dropped the data and kept no sign of it. Goroutines of
// Pebble may be left standing; OnFatal is the signal to end the process. The
// package itself never exits.
//
// Row 3 of the layers: it imports Pebble, raftgroup/store and the standard
// library. A write runs in a goroutine of its own, which its caller leaves behind
// only if the store failed; so do OnFatal and the closing of the database. Pebble
// owns the rest, until Close.
package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// Options says where a store lives and what it may use. Only Dir is needed. It
// is read once, by Open.
type Options struct {
	// Dir is the store's own directory. It is created if need be.
	Dir string
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Cache holds uncompressed blocks, for all stores of a host; the caller keeps
	// its own reference. nil makes a cache of CacheBytes for this store.
	Cache *Cache
	// CacheBytes is used only without Cache; 0 is 8 MiB.
	CacheBytes int64
	// MemTableBytes is how much is written before a flush; 0 is 4 MiB. Up to
	// three times this may be in memory. Small buffers suit many replicas in one
	// process; 16 to 64 MiB suit one busy replica.
	MemTableBytes int
	// OpenFilesMax bounds the open table files; 0 is 500.
	OpenFilesMax int
	// StallLimit is how long one operation of the file system, a read as well as a
	// write, may take before the store counts as failed, not counting pauses of the
	// process; 0 is 10 s, negative is no limit.
	StallLimit time.Duration
	// BatchBytesMax bounds one batch; 0 is store.BatchBytesMax.
	BatchBytesMax int
	// Logger hears of errors, and in debug level of what Pebble does; nil is
	// silence.
	Logger Logger
	// OnFatal is called at most once, in its own goroutine, with an error that
	// wraps ErrFatal, when the store can't be trusted any more. The process
	// should end. nil does nothing.
	OnFatal func(error)
}

// A Cache holds uncompressed blocks of any number of stores. Who made it calls
// Unref when the last store that uses it is open, or later.
type Cache = pebble.Cache

// NewCache returns a cache of a size in bytes, which is allocated as it fills.
func NewCache(bytes int64) *Cache { return pebble.NewCache(bytes) }

// Logger is the part of hclog.Logger that is used: a message, then keys and
// values in turn.
type Logger interface {
	Debug(msg string, args ...any)
	Error(msg string, args ...any)
}

// ErrFatal is wrapped by every error after the store failed.
var ErrFatal = errors.New("pebblestore: store failed")

// ErrDamaged is wrapped by the error of Open if the directory holds something
// that no crash can leave behind. Nothing is deleted then.
var ErrDamaged = errors.New("pebblestore: directory damaged")

// closeLimit is how long Close waits for users.
const closeLimit = 10 * time.Second

// Store implements store.Store. Any number of goroutines may use it; one at a
// time may hold a batch.
type Store struct {
	opts  Options // with defaults filled in
	fs    vfs.FS  // opts.FS, watched for stalls and errors
	cache *pebble.Cache
	lock  io.Closer
	stop  failStop

	// current is the live database; nil once closed.
	current atomic.Pointer[generation]
	// writer is a semaphore of one, held by an open batch, Adopt or Close.
	writer chan struct{}
	// batchOpen says that it is a batch that holds writer.
	batchOpen atomic.Bool

	mu struct {
		sync.Mutex
		closing bool
		number  uint64              // of the newest state or checkpoint directory
		asides  map[*aside]struct{} // open checkpoints and received states
	}
}

var _ store.Store = (*Store)(nil)

// Open opens the store in opts.Dir, and creates it if the directory has none.
// What a crash left behind is deleted first.
func Open(opts Options) (*Store, error) {
	opts = opts.withDefaults()
	if opts.Dir == "" {
		return nil, errors.New("pebblestore: open: no directory")
	}
	s := &Store{opts: opts, writer: make(chan struct{}, 1)}
	s.mu.asides = make(map[*aside]struct{})
	s.stop.init(ErrFatal, opts.Logger, opts.OnFatal)
	s.fs = &watchedFS{FS: opts.FS, stop: &s.stop, limit: opts.StallLimit}
	s.cache = opts.Cache
	if s.cache == nil {
		s.cache = pebble.NewCache(opts.CacheBytes)
	} else {
		s.cache.Ref()
	}
	if err := s.open(); err != nil {
		s.free()
		return nil, fmt.Errorf("pebblestore: open %s: %w", opts.Dir, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if err := makeDir(s.fs, s.opts.Dir); err != nil {
		return err
	}
	if s.lock, err = s.fs.Lock(s.path(lockName)); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	p, err := s.readPointer()
	if err != nil {
		return err
	}
	if p.number == 0 {
		p = pointer{number: 1, status: statusCreating}
		if err := s.writePointer(p); err != nil {
			return err
		}
	}
	if err := s.deleteLeftovers(p); err != nil {
		return err
	}
	g, err := s.openState(stateName(p.number), p.status == statusCreating)
	if err != nil {
		return err
	}
	if p.status == statusCreating {
		if err := s.writePointer(pointer{number: p.number, status: statusActive}); err != nil {
			return errors.Join(err, g.close())
		}
	}
	s.current.Store(g)
	return nil
}

// openState opens the database in one sub-directory for reading and writing. If
// the store fails meanwhile, because a table turns out to be damaged, Pebble is
// stopped where it is, and left behind.
func (s *Store) openState(name string, create bool) (*generation, error) {
	opts := s.pebbleOptions(&s.stop)
	opts.ErrorIfNotExists = !create
	opts.ErrorIfExists = create
	opened := make(chan *generation, 1)
	if err := s.stop.attempt("open", func() error {
		g, err := openGeneration(s.path(name), opts)
		opened <- g
		return err
	}); err != nil {
		return nil, err
	}
	return <-opened, nil
}

// Get implements store.Reader.
func (s *Store) Get(key []byte) ([]byte, bool, error) {
	g, err := s.enter()
	if err != nil {
		return nil, false, err
	}
	defer g.leave()
	return s.stop.get(g.db, key)
}

// Iterate implements store.Reader.
func (s *Store) Iterate(lower, upper []byte) (store.Iterator, error) {
	g, err := s.enter()
	if err != nil {
		return nil, err
	}
	return newIterator(&s.stop, g, g.db, lower, upper)
}

// NewSnapshot implements store.Store.
func (s *Store) NewSnapshot() (store.Snapshot, error) {
	g, err := s.enter()
	if err != nil {
		return nil, err
	}
	return &snapshot{stop: &s.stop, g: g, snap: g.db.NewSnapshot()}, nil
}

// NewBatch implements store.Store. A second open batch is refused with
// store.ErrBatchOpen.
func (s *Store) NewBatch() (store.Batch, error) {
	select {
	case s.writer <- struct{}{}:
	default:
		if s.batchOpen.Load() {
			return nil, store.ErrBatchOpen
		}
		s.writer <- struct{}{} // Adopt or Close is at work
	}
	g, err := s.enter()
	if err != nil {
		<-s.writer
		return nil, err
	}
	s.batchOpen.Store(true)
	return &batch{s: s, g: g, b: g.db.NewIndexedBatch()}, nil
}

// Sync implements store.Store.
func (s *Store) Sync() error {
	g, err := s.enter()
	if err != nil {
		return err
	}
	defer g.leave()
	return s.stop.write("sync", func() error { return g.db.LogData(nil, pebble.Sync) })
}

// DiskUsage implements store.Store; 0 when closed or failed.
func (s *Store) DiskUsage() int64 {
	g, err := s.enter()
	if err != nil {
		return 0
	}
	defer g.leave()
	return int64(g.db.Metrics().DiskSpaceUsage())
}

// Close implements store.Store. It waits, up to 10 s, for calls that are under
// way and for open snapshots, iterators and batches; whatever is open after
// that makes it return an error, and keeps the directory locked. So does a
// failed store, at once: only the end of the process frees what it holds.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		return store.ErrClosed
	}
	s.mu.closing = true
	asides := make([]*aside, 0, len(s.mu.asides))
	for a := range s.mu.asides {
		asides = append(asides, a)
	}
	s.mu.Unlock()

	if err := s.stop.err(); err != nil {
		return err
	}
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case s.writer <- struct{}{}:
		defer func() { <-s.writer }()
	case <-limit.C:
		limit.Reset(0) // nothing else is worth waiting for
	}
	g := s.current.Swap(nil)
	if err := s.closeWithin(limit.C, g, asides); err != nil {
		return fmt.Errorf("pebblestore: close %s: %w", s.opts.Dir, err)
	}
	s.free()
	return nil
}

// closeWithin closes a database and what was made from it, and gives up at the
// limit.
func (s *Store) closeWithin(limit <-chan time.Time, g *generation, asides []*aside) error {
	done := make(chan error, 1)
	go func() {
		var errs []error
		for _, a := range asides {
			errs = append(errs, a.release())
		}
		if g != nil {
			g.retire()
			<-g.idle
			errs = append(errs, g.close())
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		return err
	case <-s.stop.failed:
		return s.stop.err()
	case <-limit:
		return errors.New("still in use")
	}
}

// free gives back what Open took besides the database.
func (s *Store) free() {
	if s.lock != nil {
		_ = s.lock.Close()
	}
	s.cache.Unref()
}

// enter returns the live database, held until leave.
func (s *Store) enter() (*generation, error) {
	if err := s.stop.err(); err != nil {
		return nil, err
	}
	for {
		g := s.current.Load()
		if g == nil {
			return nil, store.ErrClosed
		}
		if g.enter() {
			return g, nil
		}
		// Replaced between the two steps: the next one is there already.
	}
}
