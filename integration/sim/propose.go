package sim

import (
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
	fateUnknown             // it may be committed, or may yet be
)

// A proposal is a list of commands with the one who waits for their results.
type proposal struct {
	commands []entry.Command
	end      func(results []any, how fate)
}

// A flight is an entry that is not applied yet.
type flight struct {
	index     uint64
	p         *packet
	proposals []*proposal
}

// A packer makes entries of proposals as raftgroup does: what arrives while two
// entries are in flight becomes one.
type packer struct {
	r        *replica
	queue    []*proposal
	inflight []flight
	clock    uint64 // of the last entry
}

const (
	flightsMax  = 2
	commandsMax = 64
)

func noopPacket(r *replica) *packet {
	return r.pack.encode([]entry.Command{{Kind: entry.KindNoop}})
}

// propose takes commands in; end is called once, unless the process ends.
func (r *replica) propose(commands []entry.Command, end func(results []any, how fate)) {
	if r.role != leader {
		end(nil, fateNotDone)
		return
	}
	r.pack.queue = append(r.pack.queue, &proposal{commands, end})
	r.pack.pump()
}

func (k *packer) pump() {
	for len(k.queue) > 0 && len(k.inflight) < flightsMax {
		var list []entry.Command
		n := 0
		for n < len(k.queue) && (n == 0 || len(list)+len(k.queue[n].commands) <= commandsMax) {
			list = append(list, k.queue[n].commands...)
			n++
		}
		f := flight{proposals: k.queue[:n:n], p: k.encode(list)}
		k.queue = k.queue[n:]
		f.index = k.r.append(f.p)
		k.inflight = append(k.inflight, f)
	}
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
	queue, inflight := k.queue, k.inflight
	k.queue, k.inflight = nil, nil
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
