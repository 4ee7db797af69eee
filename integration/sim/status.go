package sim

import (
	"encoding/binary"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// What servers and clerks tell people, in a status or in an error, is checked
// like any other answer, as far as it can be.

// inspect asks some replica of some group for its status.
func (o *operator) inspect() {
	w := o.w
	l := w.lives[o.rng.IntN(len(w.lives))]
	n := l.g.replicas[o.rng.IntN(len(l.g.replicas))].n
	call(o.n, n, pollTimeout, w.p.Dup, func(reply func(bool)) {
		if s := serverOf(n, &l.self.Incarnation, false); s != nil {
			s.checkStatus()
			reply(true)
		}
	}, func(bool, ending, bool) {})
}

// checkStatus follows shardkv's Status: the records, and what the driver says of
// the handoffs away from here.
func (s *server) checkStatus() {
	for _, r := range s.l.view(s.r.machine.at).Records {
		s.w.trace.note(traceReport, int(r.Shard), binary.BigEndian.Uint64(r.Digest.Bytes()), uint64(r.Revision))
	}
	if s.driver == nil {
		return
	}
	next := shardcfg.ShardID(0)
	for _, p := range s.driver.Progress(s.w.now) {
		if p.Shard < next || int(p.Shard) >= s.w.p.Shards || p.Pause < 0 || p.Pause > s.w.now {
			s.w.fail("status", "%s says of its handoffs: %+v, after shard %d", s.l.g.name, p, next)
		}
		next = p.Shard + 1
	}
}

// explain checks what a call that ends without an answer can say of the reason,
// as clerk's failure does: where the operation belonged, and who said what.
func (o *op) explain() {
	c := o.l.c
	t := &c.table
	for _, met := range o.route.Obstacles() {
		if c.w.address[met.Addr] == nil {
			c.w.fail("status", "%v met an obstacle at %q", &o.h, met.Addr)
		}
	}
	if t.ShardCount() == 0 {
		if gid, _, _, _, ok := t.Target(0); ok {
			c.w.fail("status", "a clerk that knows nothing would call group %d", gid)
		}
		return
	}
	if config := t.Config(); config != nil {
		c.w.checkConfig(config, "of a clerk")
	}
	shard, home := t.Home(&o.route)
	gid, inc, leader, _, ok := t.Target(shard)
	if ok == (len(home.Replicas) == 0) || gid != home.GID || inc != home.Incarnation || leader != home.Leader {
		c.w.fail("status", "shard %d is at home at %+v, and the next call goes to group %d, %v", shard, home, gid, inc)
	}
}
