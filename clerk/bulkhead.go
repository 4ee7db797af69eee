package clerk

import (
	"context"
	"fmt"
	"sync"

	"github.com/shoalkv/shoal/clerk/route"
)

// bulkheads bound the operations under way, for each group apart, so that those
// that wait for a group which is gone take nothing from the others.
type bulkheads struct {
	max int
	mu  struct {
		sync.Mutex
		slots map[route.Ward]slots
	}
}

// slots holds an element for each operation under way that began at one group.
type slots chan struct{}

func (b *bulkheads) init(max int) {
	b.max = max
	b.mu.slots = map[route.Ward]slots{}
}

func (b *bulkheads) of(w route.Ward) slots {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.mu.slots[w]
	if s == nil {
		s = make(slots, b.max)
		b.mu.slots[w] = s
	}
	return s
}

// sweep forgets the groups that no operation is under way at.
func (b *bulkheads) sweep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w, s := range b.mu.slots {
		if len(s) == 0 {
			delete(b.mu.slots, w)
		}
	}
}

// acquire takes a slot for an operation, of the group that should serve it by the
// time that the slot is free. The caller gives it back, by release.
func (c *Clerk) acquire(ctx context.Context, w *call) error {
	for {
		if why := c.over(ctx); why != nil {
			return c.failure(w, why)
		}
		ward, changed := c.table.ward(&w.route)
		w.slots = c.bulkheads.of(ward)
		select {
		case w.slots <- struct{}{}:
			return nil
		default:
		}
		select {
		case w.slots <- struct{}{}:
			return nil
		case <-changed:
		case <-ctx.Done():
			return c.failure(w, fmt.Errorf("%w, waiting for other operations of its group", ended(ctx)))
		case <-c.life.Done():
			return c.failure(w, ErrClosed)
		}
	}
}

func (w *call) release() { <-w.slots }
