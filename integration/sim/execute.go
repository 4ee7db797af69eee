package sim

import (
	"slices"
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A request is one operation at a server.
type request struct {
	read  bool
	key   []byte
	write kvfsm.Write // if not read
	reply func(response)

	over   bool // answered, or given up
	slowed bool
	until  time.Duration // for how long it may be parked
}

// A response is a server's answer.
type response struct {
	reply   route.Reply
	value   []byte
	version shardcfg.Revision
	length  uint64
	clock   uint64
}

// execute serves a request, for at most hold.
func (s *server) execute(q *request, hold time.Duration) {
	reply := q.reply
	q.until = s.w.now + hold
	q.reply = func(a response) {
		if q.over {
			return
		}
		q.over = true
		a.clock = max(a.clock, s.r.machine.at.clock, s.r.n.clock())
		a.reply.Config = s.adopted()
		reply(a)
	}
	s.round(q)
	if !q.over {
		s.r.n.after(hold, func() {
			// What is proposed will be answered, whatever it takes; what waits for
			// its shard was not done.
			if i := slices.Index(s.parked, q); i >= 0 {
				s.parked = slices.Delete(s.parked, i, i+1)
				q.reply(response{reply: route.Reply{Code: route.Busy}})
			}
		})
	}
}

// round follows shardkv's node.round for one operation.
func (s *server) round(q *request) {
	if s.r.role != leader {
		s.notLeader(q)
		return
	}
	rec := s.record(shardcfg.ShardOf(q.key, s.w.p.Shards))
	p := s.place(&rec)
	switch {
	case !p.here && s.readsFrozen(q, &rec):
	case !p.here:
		s.misplaced(q, p)
	case q.read:
		s.read(q)
	case !q.slowed && s.slowed[rec.Shard] > 0:
		q.slowed = true
		s.r.n.after(s.slowed[rec.Shard], func() { s.round(q) })
	default:
		s.write(q)
	}
}

func (s *server) notLeader(q *request) {
	addr := ""
	if s.r.lead >= 0 && s.r.lead != s.r.slot {
		addr = s.r.g.replicas[s.r.lead].n.addr
	}
	code := route.NotLeader
	if addr == "" {
		code = route.Unavailable
	}
	q.reply(response{reply: route.Reply{Code: code, Leader: addr}})
}

// misplaced redirects an operation, or parks it.
func (s *server) misplaced(q *request, p placing) {
	switch {
	case p.wait && s.w.now >= q.until:
		q.reply(response{reply: route.Reply{Code: route.Busy}})
		return
	case p.wait:
		s.parked = append(s.parked, q)
		return
	}
	q.reply(response{reply: route.Reply{Code: route.WrongGroup, Redirect: s.redirect(p)}})
}

// wake lets everything that is parked look again.
func (s *server) wake() {
	if len(s.parked) == 0 {
		return
	}
	list := s.parked
	s.parked = nil
	s.r.n.after(0, func() {
		for _, q := range list {
			if !q.over {
				s.round(q)
			}
		}
	})
}

func (s *server) write(q *request) {
	w := q.write
	if s.w.bugs.DedupStays && s.movedHere(&w) {
		w.Stamp.Sequence = 0
	}
	cmd := kvfsm.Encode(&w)
	s.r.propose([]entry.Command{cmd}, func(results []any, how fate) {
		switch how {
		case fateNotDone:
			s.notLeader(q)
		case fateUnknown:
			q.reply(response{reply: route.Reply{Code: route.OutcomeUnknown}})
		default:
			s.wrote(q, results[0].(kvfsm.Outcome))
		}
	})
}

// wrote follows shardkv's writeOutcome.
func (s *server) wrote(q *request, out kvfsm.Outcome) {
	if out.Code == kvfsm.CodeWrongGroup {
		if p := s.placeFrom(out.Where); p.here {
			s.round(q)
		} else {
			s.misplaced(q, p)
		}
		return
	}
	if out.Repeat {
		s.w.stats.Repeats++
	}
	q.reply(response{reply: route.Reply{Code: route.Code(out.Code)}, version: out.Version, length: out.Length, clock: out.Floor})
}

// read follows shardkv's node.read: one barrier, then phase and value from one
// snapshot.
func (s *server) read(q *request) {
	s.r.barrier(func(ok bool) {
		if !ok {
			s.notLeader(q)
			return
		}
		found, err := kvfsm.Get(s.snapshot(q.key), s.w.p.Shards, q.key)
		s.w.check(err, "get")
		if found.Code == kvfsm.CodeWrongGroup {
			if p := s.placeFrom(found.Where); p.here {
				s.round(q)
			} else {
				s.misplaced(q, p)
			}
			return
		}
		s.w.trace.note(traceRead, s.r.n.id, s.r.machine.index(), uint64(found.Version))
		q.reply(response{reply: route.Reply{Code: route.Code(found.Code)}, value: found.Value, version: found.Version})
	})
}
