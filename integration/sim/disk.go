package sim

import (
	"errors"
	"time"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// errDisk is what a store returns whose disk fails.
var errDisk = errors.New("the disk fails")

// A disk fails at an operation that the fault drew, and from then on. What the
// machines read or write through it must return the error, wherever it strikes;
// then the replica stops, as in the product, and comes back with another disk.
type disk struct {
	left int // operations until it fails
}

func (d *disk) use() error {
	if d.left <= 0 {
		return errDisk
	}
	d.left--
	return nil
}

// failDisk lets a replica's disk fail soon, or, if the replica is down, when it
// starts.
func (w *World) failDisk(n *node) bool {
	if n.host == nil || n.host.disk != nil {
		return false
	}
	n.host.disk = &disk{left: w.rng.fault.IntN(diskOperationsMax)}
	return true
}

const diskOperationsMax = 60

// reader is how the replica reads its applied state.
func (r *replica) reader() store.Reader { return r.through(r.machine.at.mem) }

func (r *replica) through(mem store.Reader) store.Reader {
	if r.disk == nil {
		return mem
	}
	return diskReader{mem, r.disk}
}

// failed reports whether an operation of the replica's machine failed. Unless its
// disk did that, the run ends; if it did, the replica stops.
func (r *replica) failed(err error, doing string) bool {
	if err == nil {
		return false
	}
	w := r.g.w
	if !errors.Is(err, errDisk) {
		w.fail("machine", "%s: %s: %v", r.n.addr, doing, err)
	}
	if !r.stopping {
		r.stopping = true
		w.stats.DiskStops++
		w.trace.text("%s: %s: %v", r.n.addr, doing, err)
		boot := r.n.boot
		w.later(0, func() {
			if r.n.boot == boot {
				w.crash(r.n, between(w.rng.fault, 10*time.Millisecond, 500*time.Millisecond))
			}
		})
	}
	return true
}

// opens tries to open the replica's machine, after a crash, on a disk that may
// fail; then it has another one for the next try.
func (r *replica) opens() bool {
	err := r.g.fresh().Reset(r.reader())
	r.disk = nil
	if err != nil && !errors.Is(err, errDisk) {
		r.g.w.fail("machine", "%s: reset: %v", r.n.addr, err)
	}
	if err != nil {
		r.g.w.stats.DiskStops++
	}
	return err == nil
}

type diskReader struct {
	store.Reader
	d *disk
}

// Get reads through the disk.
func (r diskReader) Get(key []byte) ([]byte, bool, error) {
	if err := r.d.use(); err != nil {
		return nil, false, err
	}
	return r.Reader.Get(key)
}

// Iterate reads through the disk.
func (r diskReader) Iterate(lower, upper []byte) (store.Iterator, error) {
	if err := r.d.use(); err != nil {
		return nil, err
	}
	it, err := r.Reader.Iterate(lower, upper)
	return &diskIterator{Iterator: it, d: r.d}, err
}

// A diskIterator ends early where the disk fails; only Close tells.
type diskIterator struct {
	store.Iterator
	d   *disk
	err error
}

func (it *diskIterator) use() bool {
	if it.err == nil {
		it.err = it.d.use()
	}
	return it.err == nil
}

// Next reads through the disk.
func (it *diskIterator) Next() bool { return it.use() && it.Iterator.Next() }

// SeekGE reads through the disk.
func (it *diskIterator) SeekGE(key []byte) bool { return it.use() && it.Iterator.SeekGE(key) }

// Close says whether the disk failed.
func (it *diskIterator) Close() error { return errors.Join(it.err, it.Iterator.Close()) }

type diskBatch struct {
	store.Batch
	diskReader
}

func newDiskBatch(b store.Batch, d *disk) diskBatch { return diskBatch{b, diskReader{b, d}} }

// Get reads through the disk.
func (b diskBatch) Get(key []byte) ([]byte, bool, error) { return b.diskReader.Get(key) }

// Iterate reads through the disk.
func (b diskBatch) Iterate(lower, upper []byte) (store.Iterator, error) {
	return b.diskReader.Iterate(lower, upper)
}

// Set writes through the disk.
func (b diskBatch) Set(key, value []byte) error {
	return errors.Join(b.d.use(), b.Batch.Set(key, value))
}

// Delete writes through the disk.
func (b diskBatch) Delete(key []byte) error { return errors.Join(b.d.use(), b.Batch.Delete(key)) }

// DeleteRange writes through the disk.
func (b diskBatch) DeleteRange(lower, upper []byte) error {
	return errors.Join(b.d.use(), b.Batch.DeleteRange(lower, upper))
}

// Commit writes through the disk.
func (b diskBatch) Commit() error {
	if err := b.d.use(); err != nil {
		return err
	}
	return b.Batch.Commit()
}
