package shardkv

import (
	"sync"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A parking guards the lot where requests wait for shards.
type parking struct {
	mu struct {
		sync.Mutex
		lot *placement.Lot[wakeup]
	}
}

// A wakeup receives when a shard of its ticket changed; buffered, one.
type wakeup chan struct{}

// A ticket is one parked request.
type ticket = placement.Ticket[wakeup]

func newParking(ticketsMax int, bytesMax int64) *parking {
	p := &parking{}
	p.mu.lot = placement.NewLot[wakeup](ticketsMax, bytesMax)
	return p
}

// enter parks a request of n bytes on shards, or reports false if the parking is
// full.
func (p *parking) enter(shards []shardcfg.ShardID, n int64) (*ticket, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.lot.Enter(make(wakeup, 1), shards, n)
}

// leave takes a ticket out.
func (p *parking) leave(t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.lot.Leave(t)
}

// wake wakes the requests that wait for one of the shards.
func (p *parking) wake(shards []shardcfg.ShardID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.lot.Wake(shards, wakeup.poke)
}

// wakeAll wakes every request: the role or the config changed.
func (p *parking) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.lot.WakeAll(wakeup.poke)
}

// count returns the number of parked requests.
func (p *parking) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.lot.Count()
}

func (w wakeup) poke() { poke(w) }

// poke sends a wake-up that carries no data to a channel of one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
