package shardkv

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

const (
	// outcomeBytesMax is what an outcome takes in a response at most beside its
	// value and its redirect; textBytesMax of it is for people.
	outcomeBytesMax = 384
	textBytesMax    = 320
)

// execute answers every operation of m. part, if not nil, is called with the
// operations that are answered while others have to wait.
func (s *Server) execute(ctx context.Context, m *message, part func(indexes []uint32)) {
	start := time.Now()
	if n := s.node.Load(); n == nil {
		m.failOpen(starting)
	} else if f := checkCluster(m.request.GetCluster(), n.identity.Cluster); f.bad() {
		m.failOpen(f)
	} else {
		m.check(n.identity.ShardCount)
		bounded, cancel := context.WithTimeout(ctx, s.timeout(m.request.GetTimeoutMs()))
		n.run(bounded, m, part)
		cancel()
	}
	s.metrics.count(m.request.GetOperations(), m.outcomes)
	s.metrics.observe(m.writing, time.Since(start))
}

// timeout is how long a request may be held.
func (s *Server) timeout(ms uint32) time.Duration {
	if ms == 0 {
		return s.limits.Timeout
	}
	return min(time.Duration(ms)*time.Millisecond, s.limits.TimeoutMax)
}

// run executes m in rounds: what can be executed is, the rest waits for its
// shards and is looked at again.
func (n *node) run(ctx context.Context, m *message, part func(indexes []uint32)) {
	var t *ticket
	defer func() {
		if t != nil {
			n.parking.leave(t)
		}
	}()
	for {
		slow := n.round(ctx, m)
		if len(m.open) == 0 {
			return
		}
		if ctx.Err() != nil {
			n.expire(m)
			return
		}
		if part != nil {
			if indexes := m.unsent(); len(indexes) > 0 {
				part(indexes)
			}
		}
		if slow > 0 {
			n.metrics.throttled.Inc()
			m.slowed = true
			if !n.pause(ctx, slow) {
				n.expire(m)
				return
			}
			continue
		}
		if m.again {
			continue
		}
		if t == nil {
			var ok bool
			if t, ok = n.parking.enter(m.openShards(), m.size); !ok {
				m.failOpen(busyParked)
				return
			}
			continue // the shards may have changed before the ticket was in
		}
		select {
		case <-t.Value:
		case <-ctx.Done():
			n.expire(m)
			return
		case <-n.closed:
			m.failOpen(starting)
			return
		}
	}
}

// pause waits for d; false: ctx ended first.
func (n *node) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-n.closed:
	}
	return false
}

// expire answers what waited in vain, for its shard or for its turn.
func (n *node) expire(m *message) {
	for _, i := range m.open {
		if n.places.of(m.steps[i].shard).Here {
			m.fail(i, busyTurn)
		} else {
			m.fail(i, busyShard(m.steps[i].shard))
		}
	}
	m.compact()
}

// round executes the open operations whose shards are served here, and answers
// those whose shards are elsewhere. The others stay open. slow is how long the
// writes that stayed open for being too fast should be held back.
func (n *node) round(ctx context.Context, m *message) (slow time.Duration) {
	if !n.leading() {
		m.failOpen(n.notLeader())
		return 0
	}
	m.again = false
	var reads, writes []int
	for _, i := range m.open {
		st := &m.steps[i]
		at := n.places.of(st.shard)
		switch {
		case !at.Here:
			n.misplaced(m, i, at)
		case !st.write:
			reads = append(reads, i)
		case !m.slowed && n.throttle(st.shard) > 0:
			slow = max(slow, n.throttle(st.shard))
		default:
			writes = append(writes, i)
		}
	}
	if len(reads) > 0 && len(writes) > 0 {
		var both sync.WaitGroup
		both.Go(func() { n.read(ctx, m, reads) })
		n.writeSome(ctx, m, writes)
		both.Wait()
	} else if len(reads) > 0 {
		n.read(ctx, m, reads)
	} else if len(writes) > 0 {
		n.writeSome(ctx, m, writes)
	}
	m.compact()
	return slow
}

// writeSome writes as many at once as one entry had room for, where it had no room
// for all: writes with large effects would only be refused together again, and
// others with them.
func (n *node) writeSome(ctx context.Context, m *message, writes []int) {
	if m.burst > 0 && m.burst < len(writes) {
		writes, m.again = writes[:m.burst], true
	}
	m.crowded = 0
	n.write(ctx, m, writes)
	if m.crowded > 0 {
		m.burst, m.again = max(1, len(writes)-m.crowded), true
	} else {
		m.burst *= 2
	}
}

// misplaced redirects an operation, or leaves it open where its shard is about
// to be served here, or to be known elsewhere.
func (n *node) misplaced(m *message, i int, p placement.Placing) {
	if p.Wait {
		return
	}
	r := n.places.redirect(p)
	if !m.fits(redirectBytes(r)) {
		m.fail(i, busyFull)
		return
	}
	redirect(m.answer(i), r)
}

// read serves reads: one barrier, one snapshot for all of them.
func (n *node) read(ctx context.Context, m *message, reads []int) {
	if err := n.replica.ReadBarrier(ctx); err != nil {
		f := n.faultOf(err)
		for _, i := range reads {
			m.fail(i, asRead(f))
		}
		return
	}
	if err := n.readSnapshot(ctx, m, reads); err != nil {
		f := n.faultOf(err)
		for _, i := range reads {
			if !m.steps[i].answered {
				m.fail(i, asRead(f))
			}
		}
	}
}

// asRead makes a read's failure definite: a read that was not answered had no
// effect.
func asRead(f fault) fault {
	if f.code == kvpb.Code_OUTCOME_UNKNOWN {
		f.code = kvpb.Code_UNAVAILABLE
	}
	return f
}

// readSnapshot reads what the response has room for. What does not fit is
// refused, and nothing behind it is read: it would only be thrown away.
func (n *node) readSnapshot(ctx context.Context, m *message, reads []int) (err error) {
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	records := make(map[shardcfg.ShardID]*kvfsm.Record, min(len(reads), n.identity.ShardCount))
	for _, i := range reads {
		if m.full.Load() || ctx.Err() != nil {
			m.fail(i, busyFull)
			continue
		}
		record := records[m.steps[i].shard]
		if record == nil {
			r, err := kvfsm.ReadRecord(snapshot, m.steps[i].shard)
			if err != nil {
				return err
			}
			record = &r
			records[r.Shard] = record
		}
		found, err := kvfsm.GetIn(snapshot, record, m.request.Operations[i].GetKey())
		if err != nil {
			return err
		}
		if found.Code == kvfsm.CodeWrongGroup {
			if p := n.places.from(found.Where); !p.Here {
				n.misplaced(m, i, p)
			}
			continue
		}
		if !m.fits(len(found.Value)) {
			m.fail(i, busyFull)
			continue
		}
		if !m.hold(int64(len(found.Value))) {
			m.fail(i, busyValues)
			continue
		}
		o := m.answer(i)
		o.Code, o.Value, o.Version = kvpb.Code(found.Code), found.Value, uint64(found.Version)
	}
	return nil
}
