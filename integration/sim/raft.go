package sim

import (
	"slices"
	"time"
)

// role is a replica's standing in its term.
type role uint8

const (
	follower role = iota
	candidate
	leader
)

// A record is one entry of a replica's log. Two replicas that have the same
// entry have the same packet.
type record struct {
	term uint64
	p    *packet
}

// A replica is one voter of a modelled Raft group (Ongaro's thesis): term, vote
// and log on a disk that loses what was not synced, elections, replication,
// commitment by majority in the leader's own term, and snapshots. Nothing is
// said to others about an entry before it is synced.
//
// A leader that hears of no newer term goes on believing that it leads, for
// ever or for the lease that the profile draws.
type replica struct {
	g    *raftGroup
	slot int
	n    *node
	top  resident

	// On disk. The log begins behind base; synced is the last entry that a crash
	// can't take.
	term           uint64
	vote           int // -1: none
	base, baseTerm uint64
	log            []record
	synced         uint64
	cuts           int // how often the log was cut, so that a late sync says nothing

	role     role
	lead     int // slot of the leader; -1: not known
	commit   uint64
	deadline time.Duration // of the election timer
	armed    bool
	votes    int
	voted    uint64 // bits of who voted for us

	// Of a leader.
	next, match []uint64
	busy        []bool
	sent        []uint64 // number of the last request
	heardAt     []time.Duration
	ackedRound  []uint64
	round       uint64
	noop        uint64 // index of this leadership's no-op
	ready       bool   // it is applied here
	pack        packer
	reads       reader

	machine replicaState
	disk    *disk // nil: it works
	// stopping: a failure of the disk was met, and the process is about to end.
	stopping bool
}

// A resident is what lives on a replica: a group's server or a controller. Its
// methods run at the replica.
type resident interface {
	led()              // it leads and has applied its no-op
	lost()             // it leads no longer
	applied(st *state) // a state became visible
	received()         // a snapshot replaced the state
	died()             // the process ended: forget everything
}

func (r *replica) last() uint64 { return r.base + uint64(len(r.log)) }

func (r *replica) termAt(i uint64) uint64 {
	if i == r.base {
		return r.baseTerm
	}
	return r.log[i-r.base-1].term
}

// leaderAddr is the address of the other replica that is known to lead; empty: of
// none.
func (r *replica) leaderAddr() string {
	if r.lead < 0 || r.lead == r.slot {
		return ""
	}
	return r.g.replicas[r.lead].n.addr
}

func (r *replica) majority() int { return len(r.g.replicas)/2 + 1 }

// tell sends to another voter.
func (r *replica) tell(slot int, f func(to *replica)) {
	to := r.g.replicas[slot]
	r.g.w.post(r.n, to.n, func() {
		if to.n.host == to {
			f(to)
		}
	})
}

// start begins the process, after a boot.
func (r *replica) start() {
	r.role, r.lead, r.armed = follower, -1, false
	r.commit = r.machine.index()
	r.touch()
}

// touch puts the election off.
func (r *replica) touch() {
	t := r.g.w.p.Election
	r.deadline = r.g.w.now + between(r.g.w.rng.raft, t, 2*t)
	r.arm()
}

func (r *replica) arm() {
	if r.armed {
		return
	}
	r.armed = true
	r.n.after(r.deadline-r.g.w.now, func() {
		r.armed = false
		switch {
		case r.role == leader:
		case r.g.w.now < r.deadline:
			r.arm()
		default:
			r.campaign()
		}
	})
}

func (r *replica) campaign() {
	r.term++
	r.role, r.vote, r.lead = candidate, r.slot, -1
	r.votes, r.voted = 1, 1<<r.slot
	r.touch()
	if r.votes >= r.majority() {
		r.win()
		return
	}
	term, last := r.term, r.last()
	lastTerm := r.termAt(last)
	for slot := range r.g.replicas {
		if slot != r.slot {
			r.tell(slot, func(to *replica) { to.asked(r.slot, term, last, lastTerm) })
		}
	}
}

// asked answers a request for a vote.
func (r *replica) asked(by int, term, last, lastTerm uint64) {
	// As hashicorp/raft: who hears a leader votes for nobody else.
	sticky := r.g.w.p.Sticky && r.lead >= 0 && r.lead != by && (r.role == leader || r.deadline-r.g.w.now > r.g.w.p.Election)
	if term > r.term && !sticky {
		r.retire(term)
	}
	mine := r.last()
	newer := lastTerm > r.termAt(mine) || lastTerm == r.termAt(mine) && last >= mine
	grant := term == r.term && !sticky && newer && (r.vote == -1 || r.vote == by || r.g.w.bugs.VoteTwice)
	if grant {
		r.vote = by
		r.touch()
	}
	now := r.term
	r.tell(by, func(to *replica) { to.counted(r.slot, term, now, grant) })
}

func (r *replica) counted(by int, term, now uint64, grant bool) {
	if now > r.term {
		r.retire(now)
	}
	if !grant || r.role != candidate || r.term != term || r.voted>>by&1 == 1 {
		return
	}
	r.voted |= 1 << by
	if r.votes++; r.votes >= r.majority() {
		r.win()
	}
}

func (r *replica) win() {
	w := r.g.w
	w.trace.note(traceElected, r.n.id, r.term, r.last())
	w.stats.Elections++
	n := len(r.g.replicas)
	r.role, r.lead, r.ready = leader, r.slot, false
	r.next, r.match = make([]uint64, n), make([]uint64, n)
	r.sent = make([]uint64, n)
	r.busy, r.heardAt, r.ackedRound = make([]bool, n), make([]time.Duration, n), make([]uint64, n)
	for i := range r.next {
		r.next[i], r.heardAt[i] = r.last()+1, w.now
	}
	r.noop = r.append(noopPacket(r))
	r.pulse(r.term)
}

// pulse sends heartbeats, for as long as the term lasts.
func (r *replica) pulse(term uint64) {
	if r.role != leader || r.term != term {
		return
	}
	w := r.g.w
	if w.p.Lease > 0 {
		heard := 1
		for i, at := range r.heardAt {
			if i != r.slot && w.now-at < w.p.Lease {
				heard++
			}
		}
		if heard < r.majority() {
			r.retire(r.term)
			return
		}
	}
	r.broadcast(true)
	r.n.after(w.p.Heartbeat, func() { r.pulse(term) })
}

func (r *replica) broadcast(always bool) {
	for slot := range r.g.replicas {
		if slot != r.slot && (always || !r.busy[slot]) {
			r.replicate(slot)
		}
	}
}

// retire makes r a follower of a term, which may be its own.
func (r *replica) retire(term uint64) {
	was := r.role
	if term > r.term {
		r.term, r.vote = term, -1
	}
	r.role, r.lead = follower, -1
	r.touch()
	if was != leader {
		return
	}
	r.g.w.trace.note(traceDeposed, r.n.id, r.term, 0)
	wasReady := r.ready
	r.ready = false
	if wasReady {
		r.top.lost()
	}
	r.pack.fail()
	r.reads.fail()
}

// An appending is an AppendEntries request.
type appending struct {
	term           uint64
	from           int
	prev, prevTerm uint64
	records        []record
	commit, round  uint64
	number         uint64 // tells requests apart, so that an answer that comes twice is no two
}

// entriesMax bounds the entries of one message.
const entriesMax = 16

func (r *replica) replicate(slot int) {
	prev := r.next[slot] - 1
	if prev < r.base {
		r.sendSnapshot(slot)
		return
	}
	// What the leader has not synced is not sent, as in hashicorp/raft.
	end := min(r.synced, prev+entriesMax)
	r.sent[slot]++
	m := appending{term: r.term, from: r.slot, prev: prev, prevTerm: r.termAt(prev), commit: r.commit, round: r.round, number: r.sent[slot]}
	if end > prev {
		m.records = r.log[prev-r.base : end-r.base : end-r.base]
		r.busy[slot] = true
	}
	r.tell(slot, func(to *replica) { to.onAppend(m) })
}

func (r *replica) onAppend(m appending) {
	if m.term < r.term {
		term := r.term
		r.tell(m.from, func(to *replica) { to.onAppended(r.slot, m, term, 0, false) })
		return
	}
	if m.term > r.term || r.role != follower {
		r.retire(m.term)
	}
	r.lead = m.from
	r.touch()
	if m.prev > r.last() || m.prev >= r.base && r.termAt(m.prev) != m.prevTerm {
		hint := min(r.last(), m.prev-1)
		r.tell(m.from, func(to *replica) { to.onAppended(r.slot, m, m.term, hint, false) })
		return
	}
	grown := false
	for i, rec := range m.records {
		at := m.prev + uint64(i) + 1
		switch {
		case at <= r.base:
			continue
		case at <= r.last() && r.termAt(at) == rec.term:
			continue
		case at <= r.last():
			if at <= r.commit {
				r.g.w.fail("raft", "%s cuts its log at %d, below its commit index %d", r.n.addr, at, r.commit)
			}
			keep := at - r.base - 1
			r.log = r.log[:keep:keep] // others share the array
			r.synced = min(r.synced, at-1)
			r.cuts++
		}
		r.log = append(r.log, rec)
		grown = true
	}
	upTo := m.prev + uint64(len(m.records))
	if c := min(m.commit, upTo); c > r.commit {
		r.commit = c
		r.machine.soon()
	}
	answer := func() {
		matched := min(upTo, r.synced)
		if r.g.w.bugs.AckUnsynced {
			matched = upTo
		}
		r.tell(m.from, func(to *replica) { to.onAppended(r.slot, m, m.term, matched, true) })
	}
	if !grown || r.g.w.bugs.AckUnsynced {
		answer()
	}
	if grown {
		r.sync(func() {
			if r.term == m.term {
				answer()
			}
		})
	}
}

// onAppended is the leader's: matched is the last entry that the follower has
// synced, or, refused, from where it lacks entries.
func (r *replica) onAppended(by int, m appending, term, matched uint64, ok bool) {
	if term > r.term {
		r.retire(term)
		return
	}
	if r.role != leader || r.term != m.term {
		return
	}
	r.heardAt[by] = r.g.w.now
	r.ackedRound[by] = max(r.ackedRound[by], m.round)
	current := m.number == r.sent[by]
	if !ok {
		r.next[by] = max(min(r.next[by], matched+1), r.match[by]+1)
	} else if matched > r.match[by] {
		r.match[by], r.next[by] = matched, max(r.next[by], matched+1)
		r.advance()
	}
	if current {
		r.busy[by] = false
		r.sent[by]++
		if r.next[by] <= r.synced {
			r.replicate(by)
		}
	}
	r.reads.acknowledged()
}

// advance moves the commit index to what a majority has synced, in this term.
func (r *replica) advance() {
	have := slices.Clone(r.match)
	have[r.slot] = r.synced
	slices.Sort(have)
	n := have[len(have)-r.majority()]
	if r.g.w.bugs.CommitAlone {
		n = r.synced
	}
	if n > r.commit && r.termAt(n) == r.term {
		r.commit = n
		r.machine.soon()
	}
}

// append adds an entry to a leader's log.
func (r *replica) append(p *packet) uint64 {
	r.log = append(r.log, record{r.term, p})
	r.g.w.trace.note(traceAppended, r.n.id, r.last(), r.term)
	term := r.term
	r.sync(func() {
		if r.role == leader && r.term == term {
			r.advance()
			r.broadcast(false)
		}
	})
	return r.last()
}

// limpFactor is by how much a disk that limps is slower.
const limpFactor = 50

// sync makes what the log has now durable, after a while, then runs f.
func (r *replica) sync(f func()) {
	last, cuts := r.last(), r.cuts
	took := between(r.g.w.rng.raft, r.g.w.p.Fsync/2, 2*r.g.w.p.Fsync)
	if r.n.limping > 0 {
		took *= limpFactor
	}
	r.n.after(took, func() {
		if r.cuts == cuts {
			r.synced = max(r.synced, last)
		}
		f()
	})
}

// crash ends the process and loses what was not durable. keep draws how much
// of it happened to reach the disk.
func (r *replica) crash() {
	rng := r.g.w.rng.fault
	if lost := r.last() - max(r.synced, r.base); lost > 0 {
		keep := max(r.synced, r.base) + uint64(rng.Int64N(int64(lost)+1))
		r.log = slices.Clone(r.log[:keep-r.base])
	}
	r.synced = r.last()
	r.cuts++
	r.role, r.ready = follower, false
	r.disk, r.stopping = nil, false
	r.pack, r.reads = packer{r: r}, reader{r: r}
	r.machine.crash(rng)
	r.top.died()
}
