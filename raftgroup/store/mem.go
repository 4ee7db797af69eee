package store

import (
	"fmt"
	"io"
	"sync"
)

// Mem is a Store in memory that knows which of its batches would survive a loss
// of power. It is the store of simulators, explorers and unit tests.
//
// A committed batch is visible at once and durable after the next Sync,
// Checkpoint or Adopt. Crash returns the store as it would be after a loss of
// power, with a prefix of the batches in between. Clone is O(1); a write costs
// O(log n); Hash costs what changed since it was last asked of an ancestor.
//
// Mem is stricter than it need be where that finds mistakes: a second open
// batch, a batch iterator used after a write, and any call after an injected
// error are refused.
type Mem struct {
	mu struct {
		sync.Mutex
		visible tree
		durable tree
		// unsynced holds the state after each batch that is not durable yet,
		// oldest first. At most unsyncedMax: the older ones count as flushed.
		// A clone shares the array, so elements are never overwritten.
		unsynced []tree
		use      *usage
		writer   writer
		hook     Hook
		failed   error // the first injected error; every later call returns it
		closed   bool
	}
	changed sync.Cond // a user left, or the writer did
}

// unsyncedMax bounds the old states that a Mem that is never synced keeps.
const unsyncedMax = 256

// usage counts what holds on to one generation of the contents; Adopt starts
// the next generation. Guarded by Mem.mu.
type usage struct {
	open int
}

// writer says who may write.
type writer uint8

const (
	writerNone writer = iota
	writerBatch
	writerAdopt
)

// Op names the step that a Hook may let fail.
type Op string

// The steps. OpNext covers every step of an iterator, OpAdopt is asked before
// anything is replaced.
const (
	OpGet        Op = "get"
	OpIterate    Op = "iterate"
	OpNext       Op = "next"
	OpSnapshot   Op = "snapshot"
	OpBatch      Op = "batch"
	OpCommit     Op = "commit"
	OpSync       Op = "sync"
	OpCheckpoint Op = "checkpoint"
	OpReceive    Op = "receive"
	OpAdopt      Op = "adopt"
)

// A Hook is asked before each step; if it returns an error, the step does
// nothing and returns it, and so does every later call: a store that met an
// error is not to be trusted again. It runs under the store's lock and must not
// call the store.
type Hook func(op Op) error

// NewMem returns an empty store.
func NewMem() *Mem { return newMem(tree{}) }

func newMem(t tree) *Mem {
	m := new(Mem)
	m.changed.L = &m.mu
	m.mu.visible, m.mu.durable = t, t
	m.mu.use = new(usage)
	return m
}

// SetHook sets the hook that injects errors; nil removes it.
func (m *Mem) SetHook(hook Hook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.hook = hook
}

// Clone returns an independent store with the same contents, of which the same
// batches are durable. It is open and has no hook. O(1).
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := newMem(m.mu.visible)
	out.mu.durable = m.mu.durable
	// Without spare capacity, whoever appends first moves to an array of its own.
	m.mu.unsynced = m.mu.unsynced[:len(m.mu.unsynced):len(m.mu.unsynced)]
	out.mu.unsynced = m.mu.unsynced
	return out
}

// Unsynced returns how many committed batches a loss of power might take.
func (m *Mem) Unsynced() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mu.unsynced)
}

// Crash returns the store as it would be after a loss of power that only the
// first keep of the Unsynced batches survived; a negative keep stands for all.
// m itself, open, closed or failed, is not changed.
func (m *Mem) Crash(keep int) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch n := len(m.mu.unsynced); {
	case keep == 0 || n == 0:
		return newMem(m.mu.durable)
	case keep < 0 || keep >= n:
		return newMem(m.mu.visible)
	default:
		return newMem(m.mu.unsynced[keep-1])
	}
}

// Hash is the digest of the present contents.
func (m *Mem) Hash() Sum {
	m.mu.Lock()
	visible := m.mu.visible
	m.mu.Unlock()
	return visible.sum()
}

// CrashHash is the digest of the present contents and of every state that Crash
// could return. An explorer that lets stores crash tells states apart by this.
func (m *Mem) CrashHash() Sum {
	m.mu.Lock()
	visible, durable, unsynced := m.mu.visible, m.mu.durable, m.mu.unsynced
	m.mu.Unlock()
	h := hasher{seed1, seed3}
	for _, t := range append([]tree{visible, durable}, unsynced...) {
		s := t.sum()
		h.word(s.High)
		h.word(s.Low)
	}
	return h.finish()
}

// Len returns the number of keys.
func (m *Mem) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.mu.visible.count)
}

// OpenReaders returns the number of snapshots, iterators and batches that were
// opened since the last Adopt and are not closed yet, for tests of leaks.
func (m *Mem) OpenReaders() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.use.open
}

// Get implements Reader.
func (m *Mem) Get(key []byte) ([]byte, bool, error) {
	t, err := m.present(OpGet)
	if err != nil {
		return nil, false, err
	}
	return t.copyOf(key)
}

// Iterate implements Reader.
func (m *Mem) Iterate(lower, upper []byte) (Iterator, error) {
	t, use, err := m.enter(OpIterate)
	if err != nil {
		return nil, err
	}
	return newMemIterator(m, use, t, lower, upper), nil
}

// NewSnapshot implements Store.
func (m *Mem) NewSnapshot() (Snapshot, error) {
	t, use, err := m.enter(OpSnapshot)
	if err != nil {
		return nil, err
	}
	return &memView{m: m, use: use, tree: t}, nil
}

// NewBatch implements Store. A second open batch is refused with ErrBatchOpen.
func (m *Mem) NewBatch() (Batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.mu.writer == writerAdopt {
		m.changed.Wait()
	}
	if err := m.checkLocked(OpBatch); err != nil {
		return nil, err
	}
	if m.mu.writer == writerBatch {
		return nil, ErrBatchOpen
	}
	m.mu.writer = writerBatch
	m.mu.use.open++
	return &memBatch{m: m, use: m.mu.use, tree: m.mu.visible, owner: new(owner)}, nil
}

// Sync implements Store.
func (m *Mem) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(OpSync); err != nil {
		return err
	}
	m.syncLocked()
	return nil
}

// Checkpoint implements Store. What it freezes is durable from then on.
func (m *Mem) Checkpoint() (Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(OpCheckpoint); err != nil {
		return nil, err
	}
	m.syncLocked()
	return &memCheckpoint{view: memView{m: m, tree: m.mu.visible}}, nil
}

// Receive implements Store. It reads the stream exactly to its end.
func (m *Mem) Receive(r io.Reader) (Incoming, error) {
	if _, err := m.present(OpReceive); err != nil {
		return nil, err
	}
	t, err := readStream(r)
	if err != nil {
		return nil, err
	}
	return &memIncoming{view: memView{m: m, tree: t}}, nil
}

// DiskUsage implements Store: the size of a checkpoint.
func (m *Mem) DiskUsage() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.visible.streamSize()
}

// Close implements Store. Clone, Crash and the hashes still work afterwards.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return ErrClosed
	}
	m.mu.closed = true
	return nil
}

// present returns the contents for a call that holds on to nothing.
func (m *Mem) present(op Op) (tree, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.visible, m.checkLocked(op)
}

// enter returns the contents for something that holds on to them until leave.
func (m *Mem) enter(op Op) (tree, *usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(op); err != nil {
		return tree{}, nil, err
	}
	m.mu.use.open++
	return m.mu.visible, m.mu.use, nil
}

func (m *Mem) leave(use *usage) {
	if use == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	use.open--
	m.changed.Broadcast()
}

// check is asked by everything that was opened earlier.
func (m *Mem) check(op Op) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkLocked(op)
}

func (m *Mem) checkLocked(op Op) error {
	switch {
	case m.mu.closed:
		return ErrClosed
	case m.mu.failed != nil:
		return m.mu.failed
	case m.mu.hook == nil:
		return nil
	}
	if err := m.mu.hook(op); err != nil {
		m.mu.failed = fmt.Errorf("store: %s: %w", op, err)
	}
	return m.mu.failed
}

func (m *Mem) syncLocked() {
	m.mu.durable = m.mu.visible
	m.mu.unsynced = nil
}

// commitLocked makes t the visible state.
func (m *Mem) commitLocked(t tree) {
	m.mu.visible = t
	m.mu.unsynced = append(m.mu.unsynced, t)
	if len(m.mu.unsynced) > unsyncedMax {
		m.mu.durable = m.mu.unsynced[0]
		m.mu.unsynced = m.mu.unsynced[1:]
	}
}

// adopt replaces everything by t, and waits for the users of what was there.
func (m *Mem) adopt(t tree) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.mu.writer != writerNone {
		m.changed.Wait()
	}
	if err := m.checkLocked(OpAdopt); err != nil {
		return err
	}
	m.mu.writer = writerAdopt
	m.mu.visible = t
	m.syncLocked()
	old := m.mu.use
	m.mu.use = new(usage)
	for old.open > 0 {
		m.changed.Wait()
	}
	m.mu.writer = writerNone
	m.changed.Broadcast()
	return nil
}
