// Package route decides where a client's operation goes next: which replica of
// which group, whether to wait first, to learn a newer placement, or to give up,
// and what is then known about its effect. It also numbers writes (Session).
//
// It is a step machine: no goroutine, clock, randomness, network or logging.
// The driver (package clerk, or a simulator) feeds what happened and does what
// the Decision says. Row 3 of the layers: it imports the standard library's pure
// parts and shardcfg only. A Table and its Ops are used under one lock, or from
// one goroutine.
//
// The rules, each with its reason:
//
//   - Redirects carry the epoch of the shard's token, which rises with every
//     change of holder: the newer epoch wins, so that the stale word of a lagging
//     replica never moves an operation back.
//   - In a round every address is tried at most once, and only so many are, then the
//     operation waits: no loop of redirects or leader hints spins, nor an endless chain.
//   - An address that fell silent or refused connections is suspect: it is tried
//     last until it answers again, so that a frozen leader does not hold up every
//     operation in turn.
//   - An attempt that may have been executed taints the operation: whatever is
//     refused later, it ends as done or as outcome unknown.
package route

import (
	"cmp"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Back-off between rounds, and after BUSY, in ms: the first retries are fast, because a failover takes
// about a second and a handoff's pause some ten milliseconds; the caps keep a
// long outage cheap. While some replica answers, an end of the trouble is near.
const (
	backoffMinMS          = 5
	backoffMaxAnsweringMS = 200
	backoffMaxMS          = 1000
	busyMinMS             = 10
	busyMaxMS             = 500
	// busyToldMaxMS bounds what a server may ask for.
	busyToldMaxMS = 10_000
)

// alienRounds is after how many rounds in which all who were asked said that they
// are of another cluster an operation believes it. Addresses are used again: those
// of a group that left may be another cluster's by now, which only a newer
// placement tells.
const alienRounds = 5

// triesMax bounds the addresses of a round: all replicas of the groups that are asked
// in one, and more. Whoever names a new leader in each answer gets no further.
const triesMax = 8 * obstaclesMax

// Kind is what a Decision asks for.
type Kind uint8

// The kinds of decisions.
const (
	// Send the operation to Addr, then report Reply or Lost.
	Send Kind = iota + 1
	// Wait at most WaitMS, then report Tick.
	Wait
	// Done: the last reply's outcome is the operation's.
	Done
	// Restamp: give the write a new session and sequence number, with Table.Start
	// again. Only for a write none of whose attempts can have been executed.
	Restamp
	// Fail: give up, for Reason.
	Fail
)

// Reason is why an operation failed.
type Reason uint8

// The reasons.
const (
	// ReasonInvalid: the servers say that the request breaks a rule.
	ReasonInvalid Reason = iota + 1
	// ReasonSession: its explicit identity is expired, too new, or acknowledged.
	ReasonSession
	// ReasonCluster: all servers that could serve it belong to another cluster.
	ReasonCluster
)

// A Decision is what the driver must do next for one operation.
type Decision struct {
	Kind Kind
	Addr string // of Send
	// WaitMS is the longest wait, in ms; drivers draw from its upper half, to
	// spread clients that were refused together. With Restamp it comes first.
	WaitMS uint32
	// Refresh, with Wait: meanwhile ask for a newer placement.
	Refresh bool
	// Blind, with Wait: nothing is known to send to; try again as soon as
	// anything was learned.
	Blind  bool
	Reason Reason // of Fail
	// Ahead, with Restamp: the session's birth was too far in the future; go by
	// the cluster's clock.
	Ahead bool
}

// An Op is the routing state of one operation. Make it with NewOp.
type Op struct {
	slot  shardcfg.Slot
	write bool
	fixed bool

	unresolved bool
	addr       string // of the last Send
	group      *group // of the last Send
	tried      []string
	// outside are the groups that said in this round that they don't hold the
	// shard. scout is the one that was asked last without a reason to hold it; nil:
	// none in this round.
	outside []*group
	scout   *group
	// answered: some replica answered in this round; cluster: all said that they
	// are of another one.
	answered bool
	aliens   int
	rounds   int
	restamps int
	busy     int // how often a group had it wait
	// obstacles are the last ones of the addresses, at most obstaclesMax, the newest
	// last; for people.
	obstacles []Obstacle
}

// obstaclesMax is how many addresses' obstacles an operation remembers: those of
// the largest group, and one.
const obstaclesMax = shardcfg.ReplicasMax + 1

// An Obstacle is what stood in an operation's way at an address.
type Obstacle struct {
	Addr string
	Code Code   // 0: it could not be reached, or gave no answer
	Text string // the server's words, or why there is none
}

// NewOp returns the state of an operation on a key of a slot. A write may have
// an effect; any other operation may be repeated at will. fixed says that the
// write has an explicit identity, so that it can't be stamped anew; tainted that
// an earlier attempt may have been executed.
func NewOp(slot shardcfg.Slot, write, fixed, tainted bool) Op {
	return Op{slot: slot, write: write, fixed: fixed, unresolved: tainted && write}
}

// Unresolved reports whether some attempt may have been executed, or may yet
// be, so that giving up now leaves the outcome unknown.
func (op *Op) Unresolved() bool { return op.unresolved }

// Sent returns the group that the last Send was for; zero: there was none.
func (op *Op) Sent() Ward { return op.group.ward() }

// Obstacles returns what last stood in the way at the addresses that were tried,
// the newest last; none: nothing was tried. They are not to be changed.
func (op *Op) Obstacles() []Obstacle { return op.obstacles }

func (op *Op) meet(code Code, text string) {
	op.obstacles = slices.DeleteFunc(op.obstacles, func(o Obstacle) bool { return o.Addr == op.addr })
	if len(op.obstacles) == obstaclesMax {
		op.obstacles = slices.Delete(op.obstacles, 0, 1)
	}
	op.obstacles = append(op.obstacles, Obstacle{op.addr, code, text})
}

// Code is the outcome of one operation, as servers number it in the key/value
// service; what a retry may do depends on nothing else.
type Code uint8

// The codes. Those up to VersionMismatch say that the operation was executed,
// those up to Unavailable that this attempt had no effect and never will; what
// is above leaves the outcome unknown, codes of newer servers included.
const (
	OK              Code = 0
	NotFound        Code = 1
	VersionMismatch Code = 2
	WrongGroup      Code = 16
	NotLeader       Code = 17
	Busy            Code = 18
	Invalid         Code = 19
	SessionExpired  Code = 20
	SessionAhead    Code = 21
	StaleSequence   Code = 22
	WrongCluster    Code = 23
	Unavailable     Code = 24
	OutcomeUnknown  Code = 48
)

// A Reply is what a server said about one operation.
type Reply struct {
	Code Code
	// Text is the server's explanation, for people.
	Text string
	// Redirect says where the shard is; nil: the server does not know. With
	// WrongGroup.
	Redirect *Hint
	// Leader is the address of the group's leader, as far as known.
	Leader string
	// Config is the newest config that the group has adopted.
	Config shardcfg.ConfigNum
	// WaitMS, with Busy, is when a retry is worth while, in ms from now; 0: the
	// server can't tell.
	WaitMS uint32
}

// Start begins an operation, or begins it again after Restamp.
func (t *Table) Start(op *Op) Decision {
	op.beginRound()
	return t.next(op)
}

// Tick continues an operation whose wait is over.
func (t *Table) Tick(op *Op) Decision {
	op.beginRound()
	return t.next(op)
}

// Lost continues an operation whose attempt got no answer. sent says that the
// request may have left: a write is tainted then. text is for people.
func (t *Table) Lost(op *Op, sent bool, text string) Decision {
	t.Abandon(op, sent, text)
	t.Suspect(op.addr)
	if op.group != nil && op.group.leader == op.addr {
		op.group.leader = ""
	}
	return t.next(op)
}

// Abandon ends an operation that is given up while an attempt is under way: its
// caller does not wait any longer, which says nothing of the server. sent and text
// are as of Lost.
func (t *Table) Abandon(op *Op, sent bool, text string) {
	op.unresolved = op.unresolved || sent && op.write
	op.meet(0, text)
}

// Reply continues an operation that a server answered.
func (t *Table) Reply(op *Op, r Reply) Decision {
	t.trust(op.addr)
	t.heard(r.Config)
	op.answered = true
	if r.Code > VersionMismatch {
		op.meet(r.Code, r.Text)
	}
	switch r.Code {
	case OK, NotFound, VersionMismatch:
		t.served(op)
		return Decision{Kind: Done}
	case WrongGroup:
		op.outside = append(op.outside, op.group)
		if r.Redirect != nil {
			t.LearnHint(*r.Redirect)
		}
		return t.next(op)
	case NotLeader:
		t.leads(op.group, op.addr, r.Leader)
		return t.next(op)
	case Busy:
		return op.rest(r.WaitMS)
	case Unavailable:
		return t.next(op)
	case Invalid:
		return Decision{Kind: Fail, Reason: ReasonInvalid}
	case SessionExpired, SessionAhead, StaleSequence:
		if op.unresolved || op.fixed || !op.write {
			return Decision{Kind: Fail, Reason: ReasonSession}
		}
		d := Decision{Kind: Restamp, Ahead: r.Code == SessionAhead}
		if op.restamps++; op.restamps > 1 { // a new session should have been enough
			d.WaitMS = op.wait(false).WaitMS
		}
		return d
	case WrongCluster:
		op.aliens++
		return t.next(op)
	default: // OutcomeUnknown, and what a newer server may say
		op.unresolved = op.unresolved || op.write
		t.leads(op.group, op.addr, r.Leader)
		return op.wait(false)
	}
}

func (op *Op) beginRound() {
	op.tried, op.outside, op.scout = op.tried[:0], op.outside[:0], nil
	op.answered, op.aliens = false, 0
}

// wait ends a round.
func (op *Op) wait(refresh bool) Decision {
	limit := uint32(backoffMaxMS)
	if op.answered {
		limit = backoffMaxAnsweringMS
	}
	d := Decision{Kind: Wait, WaitMS: min(limit, backoffMinMS<<min(op.rounds, 10)), Refresh: refresh}
	op.rounds++
	return d
}

// rest ends a round at a server that is busy: it is not asked again before it can be
// of use, as far as it told, and less and less often.
func (op *Op) rest(toldMS uint32) Decision {
	d := op.wait(false)
	d.WaitMS = uint32(min(busyMaxMS, busyMinMS<<min(op.busy, 10)))
	// Drivers draw from the upper half: the told time is the least.
	d.WaitMS = max(d.WaitMS, 2*min(toldMS, busyToldMaxMS))
	op.busy++
	return d
}

// next sends to the best address that was not tried in this round, or ends the
// round.
func (t *Table) next(op *Op) Decision {
	if t.shardCount == 0 {
		d := op.wait(true)
		d.Blind = true
		return d
	}
	shard := op.slot.ShardOf(t.shardCount)
	for _, g := range t.candidates(op, shard) {
		if len(op.tried) >= triesMax {
			break
		}
		if addr := t.pick(g, op.tried); addr != "" {
			op.group, op.addr = g, addr
			op.tried = append(op.tried, addr)
			return Decision{Kind: Send, Addr: addr}
		}
	}
	if op.aliens > 0 && op.aliens == len(op.tried) && op.rounds >= alienRounds {
		return Decision{Kind: Fail, Reason: ReasonCluster}
	}
	d := op.wait(true)
	d.Blind = len(op.tried) == 0
	return d
}

// busyPatience is how often an operation may meet a group that is busy before
// another is asked first.
const busyPatience = 3

// candidates are the groups to try for a shard, best first: the one that the
// newest epoch names, the owner, and, where those don't hold it or are gone for
// long, one of the others in turn.
func (t *Table) candidates(op *Op, shard shardcfg.ShardID) []*group {
	var list [3]*group
	out := list[:0]
	add := func(g *group) {
		if g != nil && !slices.Contains(op.outside, g) && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	first, second := t.places[shard].group, t.places[shard].owner
	// A group that lets an operation wait again and again may wait in vain, for a
	// shard that came to its owner another way: that one is asked now and then.
	if op.busy >= busyPatience && op.busy%2 == 1 {
		first, second = second, first
	}
	add(first)
	add(second)
	// Others are asked when a wait with its refresh brought nothing better, and
	// few in a round.
	const patience, outsideMax = 2, 4
	misled := len(op.outside) > 0 && len(op.outside) < outsideMax && op.rounds > 0
	lost := len(out) == 0 && len(op.outside) == 0
	if misled || lost || op.rounds > patience && len(op.outside) < outsideMax {
		if op.scout == nil || slices.Contains(op.outside, op.scout) {
			op.scout = t.outsider(shard, append(slices.Clone(op.outside), out...))
		}
		add(op.scout)
	}
	return out
}

// outsider returns the next group to ask for a shard without a reason, in turn;
// nil: there is none but those, or enough were asked since the last refresh. All
// operations that miss a group share that allowance: when it dies, thousands wait
// for it, and the others must not be flooded.
func (t *Table) outsider(shard shardcfg.ShardID, but []*group) *group {
	p := &t.places[shard]
	allowance := &t.homeless
	if home := cmp.Or(p.group, p.owner); home != nil {
		allowance = &home.scouts
	}
	if allowance.refresh != t.refreshes {
		*allowance = scouts{refresh: t.refreshes}
	}
	if allowance.sent >= scoutsMax {
		return nil
	}
	for range t.groups {
		g := t.groups[int(p.scouted)%len(t.groups)]
		p.scouted++
		if !slices.Contains(but, g) {
			allowance.sent++
			return g
		}
	}
	return nil
}

// pick returns the best untried address of a group: its leader, then the
// others in turn, the suspects last; empty if there is none.
func (t *Table) pick(g *group, tried []string) string {
	usable := func(addr string) bool { return addr != "" && !slices.Contains(tried, addr) }
	if usable(g.leader) && !t.suspects[g.leader] {
		return g.leader
	}
	n := len(g.replicas)
	for i := range n {
		if addr := g.replicas[(g.turn+i)%n]; usable(addr) && !t.suspects[addr] {
			g.turn = (g.turn + i + 1) % n
			return addr
		}
	}
	if usable(g.leader) {
		return g.leader
	}
	for i := range n {
		if addr := g.replicas[(g.turn+i)%n]; usable(addr) {
			return addr
		}
	}
	return ""
}
