package shardkv

import (
	"sync"
	"sync/atomic"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// places publishes what placement decides by: the applied records and config,
// and what other groups and the controllers said.
//
// Records and config are written by one goroutine, the one that applies; what
// was heard by any. Safe for concurrent use.
type places struct {
	self kvfsm.Peer
	// records has the applied record of each shard; nil: never met.
	records []atomic.Pointer[kvfsm.Record]
	config  atomic.Pointer[shardcfg.Config]

	heard struct {
		sync.Mutex
		memory *placement.Memory
	}
}

func newPlaces(self kvfsm.Peer, shardCount int) *places {
	p := &places{self: self, records: make([]atomic.Pointer[kvfsm.Record], shardCount)}
	p.config.Store(&shardcfg.Config{})
	p.heard.memory = placement.NewMemory()
	return p
}

// of places a shard of the cluster.
func (p *places) of(s shardcfg.ShardID) placement.Placing {
	r := p.records[s].Load()
	if r == nil {
		r = &kvfsm.Record{Shard: s}
	}
	if r.Phase.Serves() {
		return placement.Placing{Here: true, Shard: s}
	}
	return p.ofRecord(r)
}

// from places a shard that a command met elsewhere.
func (p *places) from(w kvfsm.Where) placement.Placing {
	r := placement.Newer(p.record(w.Shard), w)
	return p.ofRecord(&r)
}

// ofRecord places a shard by its record.
func (p *places) ofRecord(r *kvfsm.Record) placement.Placing {
	p.heard.Lock()
	heard := p.heard.memory.Of(r.Shard)
	p.heard.Unlock()
	return placement.Place(p.self, p.config.Load(), r, heard)
}

// redirect describes a placing to a client.
func (p *places) redirect(at placement.Placing) *kvpb.Redirect {
	r := &kvpb.Redirect{Shard: uint32(at.Shard), Gid: uint64(at.Next.Group), Epoch: epochMessage(at.Epoch)}
	if !at.Next.IsZero() {
		r.Incarnation = at.Next.Incarnation[:]
	}
	r.Replicas = p.addressesOf(at.Next)
	return r
}

// addressesOf returns the addresses of a group, as far as known.
func (p *places) addressesOf(g kvfsm.Peer) []string {
	p.heard.Lock()
	defer p.heard.Unlock()
	return p.heard.memory.Addresses(p.config.Load(), g)
}

// hear remembers the addresses of a group.
func (p *places) hear(g shardcfg.Incarnation, addresses []string) {
	p.heard.Lock()
	defer p.heard.Unlock()
	p.heard.memory.Hear(g, addresses)
}

// invite remembers an invitation, and reports whether it says something new.
func (p *places) invite(s shardcfg.ShardID, inv placement.Invitation) bool {
	p.heard.Lock()
	defer p.heard.Unlock()
	return p.heard.memory.Invited(s, inv)
}

// takeHints replaces what the controllers said of holders.
func (p *places) takeHints(hints []placement.Hint) {
	p.heard.Lock()
	defer p.heard.Unlock()
	p.heard.memory.Hinted(hints)
}

// record returns the applied record of a shard; the zero one if it was never
// met.
func (p *places) record(s shardcfg.ShardID) kvfsm.Record {
	if r := p.records[s].Load(); r != nil {
		return *r
	}
	return kvfsm.Record{Shard: s}
}

// known returns the applied records of the shards that were ever met, in
// ascending order of shard. Of a shard that serves, what writes change is as of
// its last change of placement.
func (p *places) known() []kvfsm.Record {
	return p.appendKnown(make([]kvfsm.Record, 0, len(p.records)))
}

// appendKnown appends what known returns.
func (p *places) appendKnown(records []kvfsm.Record) []kvfsm.Record {
	for s := range p.records {
		if r := p.records[s].Load(); r != nil {
			records = append(records, *r)
		}
	}
	return records
}

// moving reports whether a shard is on its way from or to this group, or should
// be.
func (p *places) moving() bool {
	config := p.config.Load()
	for s := range p.records {
		if placement.Moves(p.self.Group, config, shardcfg.ShardID(s), p.records[s].Load()) {
			return true
		}
	}
	return false
}
