package virtual

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/logstore"
)

var (
	errPowerLoss = errors.New("virtual: the replica crashed")
	errDisk      = errors.New("virtual: input/output error")
)

// A disk is one life's use of a log store, which outlives it: the product's own,
// on its in-memory backend, with its rules about terms and votes. Every write is
// durable when it returns. It can be slow, hang, fail, and lose its power in the
// middle of a write, which is then stored or not.
type disk struct {
	inner logstore.LogStore

	mu struct {
		sync.Mutex
		takes  time.Duration // one write
		stall  chan struct{} // closed when the disk goes on; nil: it does not hang
		fail   bool          // the next write fails
		dead   bool
		random *rand.Rand
	}
}

func newDisk(inner logstore.LogStore, takes time.Duration, seed uint64) *disk {
	d := &disk{inner: inner}
	d.mu.takes, d.mu.random = takes, rand.New(rand.NewPCG(seed, 3))
	return d
}

// kill lets no further write begin.
func (d *disk) kill() {
	d.mu.Lock()
	d.mu.dead = true
	d.mu.Unlock()
	d.goOn()
}

// hang makes every operation wait.
func (d *disk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.stall == nil {
		d.mu.stall = make(chan struct{})
	}
}

func (d *disk) goOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.stall != nil {
		close(d.mu.stall)
		d.mu.stall = nil
	}
}

func (d *disk) failNext() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.fail = true
}

// write does one write.
func (d *disk) write(do func() error) error {
	d.mu.Lock()
	takes, dead := d.mu.takes, d.mu.dead
	d.mu.Unlock()
	if dead {
		return errPowerLoss
	}
	time.Sleep(takes) // virtual
	d.wait()
	d.mu.Lock()
	dead, fail, stored := d.mu.dead, d.mu.fail, d.mu.random.IntN(2) == 0
	d.mu.fail = false
	d.mu.Unlock()
	if !dead && !fail {
		return do()
	}
	if stored {
		do()
	}
	if dead {
		return errPowerLoss
	}
	return errDisk
}

// wait waits while the disk hangs.
func (d *disk) wait() {
	for {
		d.mu.Lock()
		stall := d.mu.stall
		d.mu.Unlock()
		if stall == nil {
			return
		}
		<-stall
	}
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) { return d.inner.FirstIndex() }

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) { return d.inner.LastIndex() }

// GetLog implements raft.LogStore.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	d.wait()
	return d.inner.GetLog(index, l)
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	return d.write(func() error { return d.inner.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(low, high uint64) error {
	return d.write(func() error { return d.inner.DeleteRange(low, high) })
}

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.write(func() error { return d.inner.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, value uint64) error {
	return d.write(func() error { return d.inner.SetUint64(key, value) })
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) ([]byte, error) { return d.inner.Get(key) }

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) { return d.inner.GetUint64(key) }
