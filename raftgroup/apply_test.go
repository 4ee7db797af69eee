package raftgroup

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// A sizingStore notes the sizes of the batches that are committed.
type sizingStore struct {
	store.Store
	mu    sync.Mutex
	sizes []int
}

func (s *sizingStore) NewBatch() (store.Batch, error) {
	b, err := s.Store.NewBatch()
	return sizingBatch{b, s}, err
}

type sizingBatch struct {
	store.Batch
	s *sizingStore
}

func (b sizingBatch) Commit() error {
	b.s.mu.Lock()
	b.s.sizes = append(b.s.sizes, b.Size())
	b.s.mu.Unlock()
	return b.Batch.Commit()
}

// Claim: many large entries that are applied at once, as after a restart, go into
// several batches of the store, each of whole entries and with its position.
func TestBatchesEndBetweenEntries(t *testing.T) {
	const entries, valueBytes = 40, 4 << 20
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		counted := &sizingStore{}
		c.tune = func(n *node, o *Options) {
			counted.Store, o.Store = o.Store, counted
			o.SnapshotLogBytes = 1 << 30
		}
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		value := strings.Repeat("v", valueBytes)
		for i := range entries {
			leader.put("k%d=%s", i, value)
		}
		leader.crash(0)
		counted = &sizingStore{}
		leader.start()
		leader = c.leader()
		leader.put("last=1")
		sum, full := 0, 0
		for _, size := range counted.sizes {
			if sum += size; size > batchBytesMax+valueBytes+1<<20 {
				t.Errorf("a batch of %d bytes", size)
			}
			if size >= batchBytesMax {
				full++
			}
		}
		if sum < entries*valueBytes || full < entries*valueBytes/batchBytesMax/2 {
			t.Errorf("%d batches of %d bytes together, %d full ones, for %d entries of %d bytes", len(counted.sizes), sum, full, entries, valueBytes)
		}
		for i := range entries {
			if got := valueOf(leader.store, fmt.Sprint("k", i)); len(got) != valueBytes {
				t.Fatalf("k%d has %d bytes", i, len(got))
			}
		}
		if _, perEntry := leader.machine.seen(); len(perEntry) != entries+1 {
			t.Errorf("%d entries were applied, want %d", len(perEntry), entries+1)
		}
	})
}
