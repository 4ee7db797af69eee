package shardkv

import (
	"sync"
	"sync/atomic"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A placed is the applied state that placement decides by: the config and the
// records of one moment. It is never changed: whoever takes a record and the
// config from one placed can not meet a shard as it was before that config.
type placed struct {
	config *shardcfg.Config // number 0: none is adopted yet
	// records has the record of each shard; nil: never met. Of a shard that serves,
	// what writes change is as of its last change of placement.
	records []*kvfsm.Record
}

// record returns the record of a shard; the zero one if it was never met.
func (p *placed) record(s shardcfg.ShardID) kvfsm.Record {
	if r := p.records[s]; r != nil {
		return *r
	}
	return kvfsm.Record{Shard: s}
}

// adopted returns the config; nil: none yet.
func (p *placed) adopted() *shardcfg.Config {
	if p.config.Num == 0 {
		return nil
	}
	return p.config
}

// appendKnown appends the records of the shards that were ever met, in ascending
// order of shard.
func (p *placed) appendKnown(records []kvfsm.Record) []kvfsm.Record {
	for _, r := range p.records {
		if r != nil {
			records = append(records, *r)
		}
	}
	return records
}

// places publishes what placement decides by: the applied state, and what other
// groups and the controllers said.
//
// The state is replaced by one goroutine, the one that applies; what was heard is
// written by any. Safe for concurrent use.
type places struct {
	self kvfsm.Peer
	now  atomic.Pointer[placed]

	heard struct {
		sync.Mutex
		memory *placement.Memory
	}
}

func newPlaces(self kvfsm.Peer, shardCount int) *places {
	p := &places{self: self}
	p.now.Store(&placed{config: &shardcfg.Config{}, records: make([]*kvfsm.Record, shardCount)})
	p.heard.memory = placement.NewMemory()
	return p
}

// config returns the adopted config; number 0: none yet.
func (p *places) config() *shardcfg.Config { return p.now.Load().config }

// of places a shard of the cluster.
func (p *places) of(s shardcfg.ShardID) placement.Placing {
	now := p.now.Load()
	if r := now.records[s]; r != nil && r.Phase.Serves() {
		return placement.Placing{Here: true, Shard: s}
	}
	r := now.record(s)
	return p.place(now, &r)
}

// from places a shard that a command met elsewhere.
func (p *places) from(w kvfsm.Where) placement.Placing {
	now := p.now.Load()
	r := placement.Newer(now.record(w.Shard), w)
	return p.place(now, &r)
}

// place places a shard by its record.
func (p *places) place(now *placed, r *kvfsm.Record) placement.Placing {
	p.heard.Lock()
	heard := p.heard.memory.Of(r.Shard)
	p.heard.Unlock()
	return placement.Place(p.self, now.config, r, heard)
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
	return p.heard.memory.Addresses(p.config(), g)
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

// takeHints replaces what the controllers said of holders, and returns the shards of
// which that says something new.
func (p *places) takeHints(hints []placement.Hint) []shardcfg.ShardID {
	p.heard.Lock()
	defer p.heard.Unlock()
	return p.heard.memory.Hinted(hints)
}

// moving reports whether a shard is on its way from or to this group, or should
// be.
func (p *places) moving() bool {
	now := p.now.Load()
	for s, r := range now.records {
		if placement.Moves(p.self.Group, now.config, shardcfg.ShardID(s), r) {
			return true
		}
	}
	return false
}
