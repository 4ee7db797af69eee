package shardkv

import (
	"sync"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A parking is where requests wait for shards that are frozen, or not installed
// yet. A wake-up carries nothing: the request looks at the shards again.
//
// The order that loses no wake-up: enter, look at the shards, wait.
type parking struct {
	mu struct {
		sync.Mutex
		shards  map[shardcfg.ShardID]map[*ticket]struct{}
		tickets int
		bytes   int64
	}
	ticketsMax int
	bytesMax   int64
}

// A ticket is one parked request.
type ticket struct {
	// wake receives when a shard of the ticket changed; buffered, one.
	wake   chan struct{}
	shards []shardcfg.ShardID
	bytes  int64
}

func newParking(ticketsMax int, bytesMax int64) *parking {
	p := &parking{ticketsMax: ticketsMax, bytesMax: bytesMax}
	p.mu.shards = map[shardcfg.ShardID]map[*ticket]struct{}{}
	return p
}

// enter parks a request of n bytes on shards (kept, duplicates allowed), or
// reports false if the parking is full.
func (p *parking) enter(shards []shardcfg.ShardID, n int64) (*ticket, bool) {
	t := &ticket{wake: make(chan struct{}, 1), shards: shards, bytes: n}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.tickets >= p.ticketsMax || p.mu.tickets > 0 && p.mu.bytes+n > p.bytesMax {
		return nil, false
	}
	p.mu.tickets++
	p.mu.bytes += n
	for _, s := range shards {
		bay := p.mu.shards[s]
		if bay == nil {
			bay = map[*ticket]struct{}{}
			p.mu.shards[s] = bay
		}
		bay[t] = struct{}{}
	}
	return t, true
}

// leave takes a ticket out.
func (p *parking) leave(t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.tickets--
	p.mu.bytes -= t.bytes
	for _, s := range t.shards {
		bay := p.mu.shards[s]
		delete(bay, t)
		if len(bay) == 0 {
			delete(p.mu.shards, s)
		}
	}
}

// wake wakes the requests that wait for one of the shards.
func (p *parking) wake(shards []shardcfg.ShardID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range shards {
		for t := range p.mu.shards[s] {
			poke(t.wake)
		}
	}
}

// wakeAll wakes every request: the role or the config changed.
func (p *parking) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, bay := range p.mu.shards {
		for t := range bay {
			poke(t.wake)
		}
	}
}

// count returns the number of parked requests.
func (p *parking) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.tickets
}

// poke sends a wake-up that carries no data to a channel of one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
