package raftgroup

import (
	"sync"
	"sync/atomic"
	"time"
)

// An entryClock is the newest entry clock that the replica has seen or written,
// in ms since 1970. It never runs backwards, and it never stands still for long:
// where the machine's clock is behind it, because it was set back or because
// another leader's was ahead, it goes on as fast as time does. Standing still, it
// would let nothing expire until the machine's clock has caught up, which may take
// years after one jump.
type entryClock struct {
	ms atomic.Uint64

	mu sync.Mutex
	// At anchor, by the machine's clock, the entry clock stood at anchorMS; the zero
	// anchor is none. Time since then is measured, not read.
	anchor   time.Time
	anchorMS uint64
}

func (c *entryClock) raise(ms uint64) {
	for {
		old := c.ms.Load()
		if ms <= old || c.ms.CompareAndSwap(old, ms) {
			return
		}
	}
}

// next returns the clock of a new entry.
func (c *entryClock) next(now time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raise(c.atLocked(now))
	ms := c.ms.Load()
	if since := now.Sub(c.anchor); c.anchor.IsZero() || since < 0 || ms > c.anchorMS+uint64(since.Milliseconds()) {
		c.anchor, c.anchorMS = now, ms
	}
	return ms
}

// at returns the clock that an entry would have now.
func (c *entryClock) at(now time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.atLocked(now)
}

func (c *entryClock) atLocked(now time.Time) uint64 {
	ms := max(c.ms.Load(), uint64(max(now.UnixMilli(), 0)))
	if since := now.Sub(c.anchor); !c.anchor.IsZero() && since > 0 {
		ms = max(ms, c.anchorMS+uint64(since.Milliseconds()))
	}
	return ms
}
