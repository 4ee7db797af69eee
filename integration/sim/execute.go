package sim

import (
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A request is one operation at a server.
type request struct {
	read  bool
	key   []byte
	write kvfsm.Write // if not read
	scan  *kvfsm.Scan // nil: it is no scan
	reply func(response)

	over   bool // answered, or given up
	slowed bool
	ticket *placement.Ticket[*request] // nil: never parked
	// waiting: it is parked and nothing has happened to its shard since it looked;
	// poked: something has, and it did not look yet.
	waiting, poked bool
	expired        bool // what must wait gets no more time
}

// A response is a server's answer.
type response struct {
	reply   route.Reply
	value   []byte
	version shardcfg.Revision
	length  uint64
	clock   uint64
	page    kvfsm.ScanPage
}

func (q *request) shard(shards int) shardcfg.ShardID {
	if q.scan != nil {
		return q.scan.Shard
	}
	return shardcfg.ShardOf(q.key, shards)
}

// execute serves a request, for at most hold.
func (s *server) execute(q *request, hold time.Duration) {
	reply := q.reply
	lot := s.lot
	q.reply = func(a response) {
		if q.over {
			return
		}
		q.over = true
		if q.ticket != nil {
			lot.Leave(q.ticket)
		}
		a.clock = max(a.clock, s.r.machine.at.clock, s.r.n.clock())
		a.reply.Config = s.config().Num
		reply(a)
	}
	s.round(q)
	if !q.over {
		s.r.n.after(hold, func() {
			// What is proposed will be answered, whatever it takes; what waits for
			// its shard was not done.
			if q.expired = true; q.waiting {
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
	rec := s.record(q.shard(s.w.p.Shards))
	p := s.place(&rec)
	switch {
	case !p.Here && s.readsFrozen(q, &rec):
	case !p.Here:
		s.misplaced(q, p)
	case q.scan != nil:
		s.scan(q)
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
	addr := s.r.leaderAddr()
	code := route.NotLeader
	if addr == "" {
		code = route.Unavailable
	}
	q.reply(response{reply: route.Reply{Code: code, Leader: addr}})
}

// place places a shard by its record.
func (s *server) place(r *kvfsm.Record) placement.Placing {
	return placement.Place(s.l.self, s.config(), r, s.heard.Of(r.Shard))
}

// placeFrom places a shard that a command met elsewhere.
func (s *server) placeFrom(met kvfsm.Where) placement.Placing {
	r := placement.Newer(s.record(met.Shard), met)
	return s.place(&r)
}

// misplaced redirects an operation, or parks it.
func (s *server) misplaced(q *request, p placement.Placing) {
	if p.Wait {
		s.park(q, p.Shard)
		return
	}
	h := &route.Hint{Shard: p.Shard, Epoch: p.Epoch, GID: p.Next.Group, Incarnation: p.Next.Incarnation,
		Replicas: s.heard.Addresses(s.config(), p.Next)}
	q.reply(response{reply: route.Reply{Code: route.WrongGroup, Redirect: h}})
}

// parkedBytesMax bounds what is parked, as shardkv's limit does.
const parkedBytesMax = 64 << 20

// park follows what node.run does with an operation that stays open.
func (s *server) park(q *request, shard shardcfg.ShardID) {
	switch {
	case q.ticket == nil:
		var ok bool
		if q.ticket, ok = s.lot.Enter(q, []shardcfg.ShardID{shard}, int64(len(q.key)+len(q.write.Value))); !ok || q.expired {
			q.reply(response{reply: route.Reply{Code: route.Busy}})
			return
		}
		s.round(q) // the shard may have changed before the ticket was in
	case q.expired:
		q.reply(response{reply: route.Reply{Code: route.Busy}})
	case q.poked:
		s.look(q)
	default:
		q.waiting = true
	}
}

// wake makes a parked operation look again.
func (s *server) wake(q *request) {
	if q.poked = true; q.waiting {
		s.look(q)
	}
}

func (s *server) look(q *request) {
	q.waiting, q.poked = false, false
	s.r.n.after(0, func() {
		if !q.over {
			s.round(q)
		}
	})
}

func (s *server) write(q *request) {
	w := q.write
	if s.w.bugs.DedupStays && s.movedHere(&w) {
		w.Stamp.Sequence = 0
	}
	cmd := kvfsm.Encode(&w)
	s.r.propose([]entry.Command{cmd}, foreground, func(results []any, how fate) {
		switch how {
		case fateNotDone:
			s.notLeader(q)
		case fateBusy:
			q.reply(response{reply: route.Reply{Code: route.Busy}})
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
		if p := s.placeFrom(out.Where); p.Here {
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
		if s.r.failed(err, "get") {
			return
		}
		if found.Code == kvfsm.CodeWrongGroup {
			if p := s.placeFrom(found.Where); p.Here {
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

// scan follows shardkv's scanOnce.
func (s *server) scan(q *request) {
	s.r.barrier(func(ok bool) {
		if !ok {
			s.notLeader(q)
			return
		}
		page, err := kvfsm.ReadScan(s.r.reader(), *q.scan)
		if s.r.failed(err, "scan") {
			return
		}
		if page.Code == kvfsm.CodeWrongGroup {
			if p := s.placeFrom(page.Where); p.Here {
				s.round(q)
			} else {
				s.misplaced(q, p)
			}
			return
		}
		s.w.trace.note(traceRead, s.r.n.id, s.r.machine.index(), uint64(len(page.Entries)))
		q.reply(response{page: page})
	})
}
