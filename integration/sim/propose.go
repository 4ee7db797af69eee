package sim

import (
	"slices"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// A packet is an encoded log entry: what a leader proposed at once. Its address
// is its identity.
type packet struct {
	raw []byte
}

// fate is how a proposal ended without results.
type fate uint8

const (
	fateDone    fate = iota // there are results
	fateNotDone             // it never went into a log
	fateBusy                // nor this: the queue has no room
	fateUnknown             // it may be committed, or may yet be
)

// class is for whom a proposal is, as in raftgroup.
type class uint8

const (
	foreground class = iota
	urgent
	background
	classCount
)

// A proposal is a list of commands with the one who waits for their results.
type proposal struct {
	commands []entry.Command
	class    class
	bytes    int
	end      func(results []any, how fate)
}

// A flight is an entry that is not applied yet.
type flight struct {
	index     uint64
	p         *packet
	proposals []*proposal
}

// A packer makes entries of proposals as raftgroup does: what arrives while two
// entries are in flight becomes one, and background proposals take the room that the
// others leave. Each class has a budget.
type packer struct {
	r        *replica
	queue    []*proposal
	back     []*proposal     // those of the background
	passed   int             // entries since back last had its turn
	bytes    [classCount]int // queued and in flight
	inflight []flight
	clock    uint64 // of the last entry
}

const (
	flightsMax  = 2
	commandsMax = 64
	backTurn    = 4 // entries that may go by without the background
	ownShare    = 4 // of the clients' budget
)

func noopPacket(r *replica) *packet {
	return r.pack.encode([]entry.Command{{Kind: entry.KindNoop}})
}

// propose takes commands in; end is called once, unless the process ends, or the
// proposal that it returns is withdrawn.
func (r *replica) propose(commands []entry.Command, class class, end func(results []any, how fate)) *proposal {
	if r.role != leader {
		end(nil, fateNotDone)
		return nil
	}
	p := &proposal{commands: commands, class: class, end: end}
	for _, c := range commands {
		p.bytes += len(c.Body)
	}
	k := &r.pack
	if k.full(p) {
		end(nil, fateBusy)
		return nil
	}
	k.bytes[class] += p.bytes
	if class == background {
		k.back = append(k.back, p)
	} else {
		k.queue = append(k.queue, p)
	}
	k.pump()
	return p
}

// full reports whether the queue has no room for a proposal. What is larger than
// the budget is admitted when it is alone.
func (k *packer) full(p *proposal) bool {
	w := k.r.g.w
	limit, used := w.p.QueueBytes, k.bytes[p.class]
	if w.bugs.SharedQueue {
		used = k.bytes[foreground] + k.bytes[urgent] + k.bytes[background]
	} else if p.class != foreground {
		limit /= ownShare
	}
	if used == 0 || used+p.bytes <= limit {
		return false
	}
	if own := k.bytes[foreground]; p.class == foreground && (own == 0 || own+p.bytes <= limit) {
		w.fail("busy", "%s refuses %d bytes of clients for what is not theirs: %v are queued", k.r.n.addr, p.bytes, k.bytes)
	}
	w.stats.happened(KindBusy)
	return true
}

func (k *packer) pump() {
	for len(k.inflight) < flightsMax {
		list := k.cut()
		if len(list) == 0 {
			return
		}
		var commands []entry.Command
		for _, p := range list {
			commands = append(commands, p.commands...)
		}
		f := flight{proposals: list, p: k.encode(commands)}
		f.index = k.r.append(f.p)
		k.inflight = append(k.inflight, f)
	}
}

// cut takes the proposals of the next entry, as raftgroup's queue does.
func (k *packer) cut() (list []*proposal) {
	waiting := len(k.back) > 0 && !slices.ContainsFunc(k.inflight, func(f flight) bool {
		return slices.ContainsFunc(f.proposals, func(p *proposal) bool { return p.class == background })
	})
	n := 0
	take := func(queue *[]*proposal) {
		for len(*queue) > 0 && (len(list) == 0 || n+len((*queue)[0].commands) <= commandsMax) {
			n += len((*queue)[0].commands)
			list, *queue = append(list, (*queue)[0]), (*queue)[1:]
		}
	}
	if !waiting || len(k.queue) > 0 && k.passed < backTurn {
		take(&k.queue)
	}
	if waiting {
		beside := len(list)
		take(&k.back)
		if k.passed++; len(list) > beside {
			k.passed = 0
		}
	}
	return list
}

// withdraw takes a proposal back out of the queue; false: it is not there any more.
func (k *packer) withdraw(p *proposal) bool {
	for _, queue := range []*[]*proposal{&k.queue, &k.back} {
		if i := slices.Index(*queue, p); i >= 0 {
			*queue = slices.Delete(slices.Clone(*queue), i, i+1)
			k.bytes[p.class] -= p.bytes
			return true
		}
	}
	return false
}

func (k *packer) encode(list []entry.Command) *packet {
	k.clock = max(k.clock, k.r.n.clock(), k.r.machine.at.clock)
	e := entry.Entry{Clock: k.clock, Feature: entry.FeatureLevel, Commands: list}
	return &packet{raw: e.Append(nil)}
}

// applied hands the results of an entry to those who wait for them.
func (k *packer) applied(st *state) {
	for len(k.inflight) > 0 && k.inflight[0].index <= st.index {
		f := k.inflight[0]
		k.inflight = k.inflight[1:]
		if f.index != st.index || f.p != st.p {
			k.r.g.w.fail("raft", "leader %s applied another entry at %d than it proposed", k.r.n.addr, f.index)
		}
		results := st.results
		for _, p := range f.proposals {
			k.bytes[p.class] -= p.bytes
			mine := results[:len(p.commands):len(p.commands)]
			results = results[len(p.commands):]
			if w := k.r.g.w; !w.quiet() && chance(w.rng.raft, w.p.LostResult) {
				w.stats.happened(KindLostResult)
				p.end(nil, fateUnknown)
				continue
			}
			p.end(mine, fateDone)
		}
	}
	k.pump()
}

// fail answers everyone: what is in a log may yet be committed.
func (k *packer) fail() {
	queue, inflight := slices.Concat(k.queue, k.back), k.inflight
	k.queue, k.back, k.inflight, k.bytes = nil, nil, nil, [classCount]int{}
	for _, f := range inflight {
		for _, p := range f.proposals {
			p.end(nil, fateUnknown)
		}
	}
	for _, p := range queue {
		p.end(nil, fateNotDone)
	}
}

// A reader runs read rounds as raftgroup does: the commit index is noted, and a
// majority must answer, in this term, messages that were sent after that; then
// the machine must have applied that index. One round serves all who wait when
// it begins.
type reader struct {
	r       *replica
	waiting []func(ok bool)
	running bool
	number  uint64
	index   uint64
	served  []func(ok bool)
	// applying are rounds that a majority confirmed.
	applying []confirmed
}

type confirmed struct {
	index  uint64
	served []func(ok bool)
}

// barrier calls end(true) once a read of the applied state is linearizable, or
// end(false) when this replica leads no longer.
func (r *replica) barrier(end func(ok bool)) {
	switch {
	case r.role != leader:
		end(false)
	case r.g.w.bugs.NoBarrier:
		end(true)
	default:
		r.reads.waiting = append(r.reads.waiting, end)
		r.reads.begin()
	}
}

func (q *reader) begin() {
	r := q.r
	if q.running || len(q.waiting) == 0 || r.role != leader || !r.ready && !r.g.w.bugs.NoNoop {
		return
	}
	r.round++
	q.running, q.number, q.index = true, r.round, r.commit
	q.served, q.waiting = q.waiting, nil
	r.broadcast(true)
	q.acknowledged()
}

// acknowledged looks whether the round that runs is confirmed.
func (q *reader) acknowledged() {
	if !q.running {
		return
	}
	n := 1
	for slot, round := range q.r.ackedRound {
		if slot != q.r.slot && round >= q.number {
			n++
		}
	}
	if n < q.r.majority() {
		return
	}
	q.running = false
	q.applying = append(q.applying, confirmed{q.index, q.served})
	q.served = nil
	q.applied()
	q.begin()
}

// applied serves those whose index is applied.
func (q *reader) applied() {
	for len(q.applying) > 0 && q.applying[0].index <= q.r.machine.index() {
		c := q.applying[0]
		q.applying = q.applying[1:]
		for _, end := range c.served {
			end(true)
		}
	}
}

func (q *reader) fail() {
	all := append(q.waiting, q.served...)
	for _, c := range q.applying {
		all = append(all, c.served...)
	}
	*q = reader{r: q.r}
	for _, end := range all {
		end(false)
	}
}
