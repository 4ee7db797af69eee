package sim

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// errDisk is what a store returns whose disk fails.
var errDisk = errors.New("the disk fails")

// A disk fails at an operation that the fault drew, and from then on. What the
// machines read or write through it must return the error, wherever it strikes;
// then the replica stops, as in the product, and comes back with another disk.
//
// Or it does not fail, but has something that a newer version wrote, as if the
// replica's version had been put back: the replica must stop as well, by an error
// and not by a panic, whatever it makes of that.
type disk struct {
	left  int // operations until it fails
	newer *rand.Rand
	met   bool // what is newer was met
}

func (d *disk) use() error {
	if d.left <= 0 && d.newer == nil {
		return errDisk
	}
	d.left--
	return nil
}

// read returns what is read of a value.
func (d *disk) read(value []byte) []byte {
	if d.newer == nil || d.left > 0 || d.met || len(value) == 0 {
		return value
	}
	d.met = true
	value = bytes.Clone(value)
	switch d.newer.IntN(3) {
	case 0:
		value[0]++ // a format
	case 1:
		value = append(value, 0) // a field
	case 2:
		value = value[:d.newer.IntN(len(value))]
	}
	return value
}

// command returns what a newer version's command in its place would be, and
// whether it can be told from a known one.
func (d *disk) command(c entry.Command) (entry.Command, bool) {
	d.met = true
	c.Body = bytes.Clone(c.Body)
	switch d.newer.IntN(4) {
	case 0:
		c.Kind += 100
		return c, true
	case 1:
		c.Body[0]++
		return c, true
	case 2:
		c.Body = append(c.Body, 0)
	case 3:
		c.Body = c.Body[:d.newer.IntN(len(c.Body))]
	}
	return c, false
}

// failDisk lets a replica's disk fail soon, or have what is newer; if the replica
// is down, when it starts.
func (w *World) failDisk(n *node, newer bool) bool {
	if n.host == nil || n.host.disk != nil {
		return false
	}
	n.host.disk = &disk{left: w.rng.fault.IntN(diskOperationsMax)}
	if newer {
		n.host.disk.newer = w.rng.fault
	}
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
	met := r.disk != nil && r.disk.met
	if err == nil && !met {
		return false
	}
	w := r.g.w
	if !met && !errors.Is(err, errDisk) {
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
	met := r.disk.met
	r.disk = nil
	if err != nil && !met && !errors.Is(err, errDisk) {
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
	value, ok, err := r.Reader.Get(key)
	return r.d.read(value), ok, err
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

// Value reads through the disk.
func (it *diskIterator) Value() []byte { return it.d.read(it.Iterator.Value()) }

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
