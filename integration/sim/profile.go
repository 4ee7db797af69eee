package sim

import (
	"fmt"
	"strings"
	"time"
)

// Kind is a kind of fault, or of trouble that a run may contain.
type Kind uint8

// The kinds. Each can be switched off.
const (
	KindLoss       Kind = iota // messages get lost
	KindDup                    // messages come twice
	KindSlow                   // messages come late, and after later ones
	KindLostResult             // a proposer is told "unknown" though it is committed
	KindCrash                  // a replica loses power
	KindGroupCrash             // all replicas of a group do
	KindPartition              // links are cut, one way or both
	KindPause                  // a machine stands still, and goes on
	KindClock                  // a clock jumps, or stands off
	KindSnapshot               // logs are cut short, so that snapshots are sent
	KindExpiry                 // sessions expire after seconds
	KindSleep                  // clients fall silent with unresolved writes
	KindGhost                  // groups join that never come to life
	KindRejoin                 // emptied groups come back as new incarnations
	KindLeave                  // groups leave
	KindMove                   // shards are pinned and unpinned
	KindDisk                   // a disk fails, so that a replica stops and gets another
	KindStray                  // an old command is proposed again, by any leader
	KindGarble                 // pages of a handoff are damaged on their way
	kindCount
)

var kindNames = [kindCount]string{"loss", "dup", "slow", "lostresult", "crash", "groupcrash", "partition", "pause",
	"clock", "snapshot", "expiry", "sleep", "ghost", "rejoin", "leave", "move", "disk", "stray", "garble"}

// String is the kind's name on the command line.
func (k Kind) String() string { return kindNames[k] }

// Kinds is a set of kinds.
type Kinds uint32

// Has reports whether k is in the set.
func (s Kinds) Has(k Kind) bool { return s>>k&1 == 1 }

// With returns the set with k.
func (s Kinds) With(k Kind) Kinds { return s | 1<<k }

// String lists the kinds, with commas between them.
func (s Kinds) String() string {
	var names []string
	for k := range kindCount {
		if s.Has(k) {
			names = append(names, k.String())
		}
	}
	return strings.Join(names, ",")
}

// ParseKinds reads what String wrote.
func ParseKinds(text string) (s Kinds, err error) {
	for name := range strings.SplitSeq(text, ",") {
		found := name == ""
		for k := range kindCount {
			if kindNames[k] == name {
				s, found = s.With(k), true
			}
		}
		if !found {
			return 0, fmt.Errorf("no kind of fault is %q; there are %v", name, Kinds(1<<kindCount-1))
		}
	}
	return s, nil
}

// A Size says how much happens in a run.
type Size struct {
	// Operations of all clients together, and changes of the configuration, at
	// least. A run that ends with fewer operations, or fewer handoffs than
	// HandoffsMin, has failed.
	Operations, Changes int
	// HandoffsMin: the operator goes on changing the configuration until so many
	// handoffs were completed.
	HandoffsMin int
}

// Sizes of runs.
var (
	SizeSmall = Size{Operations: 60, Changes: 3, HandoffsMin: 0}
	SizeSoak  = Size{Operations: 500, Changes: 6, HandoffsMin: 5}
)

// Options choose a run. The zero Options with a seed are a small run with all
// that the seed draws.
type Options struct {
	Size Size
	// Without switches kinds of faults off.
	Without Kinds
	// Clients and Keys, if not 0, replace what the seed draws.
	Clients, Keys int
	Bugs          Bugs
}

// A Profile is what a seed drew: sizes, rates, times. Swarm testing (Groce et
// al., ISSTA 2012): a seed leaves some kinds of faults out altogether, so that
// others are met in states that they would never let arise.
type Profile struct {
	Shards, Keys, Groups, Spare   int
	Clients, Lanes                int
	Operations, Changes, Handoffs int
	Replicas                      int // of each group

	Loss, Dup, DupRequest, Slow, LostResult, ApplySlow float64
	Garble                                             float64

	Latency, SlowMax, Fsync, ApplyDelay time.Duration
	Election, Heartbeat, Lease          time.Duration
	Sticky                              bool
	CompactAt                           uint64
	UnsyncedMax                         int

	// FaultEvery is the mean time between faults, FaultLast how long one lasts.
	FaultEvery, FaultLast time.Duration
	Faults                []Kind // that a fault is drawn from
	ChangeEvery           time.Duration

	Deadline, Hold, Think, SleepFor time.Duration
	Sleep, Retry                    float64
	Conditional, Reads, Scans       float64
	SessionAge                      time.Duration // 0: an hour
	SessionAhead                    uint64        // ms; 0: the preset
	SessionResults                  int
	ClockJump                       time.Duration

	PauseBudget, InviteEvery, TailPoll time.Duration
	PageBytes                          int
	ValueBytes                         int
	Leave, Move, Ghost, Rejoin         bool
	Parked                             int // requests that a replica may park
}

func draw(seed uint64, o Options) Profile {
	r := stream(seed, 1)
	ms := time.Millisecond
	pick := func(values ...int) int { return values[r.IntN(len(values))] }
	some := func(k Kind, p float64) bool { return (r.Float64() < p) && !o.Without.Has(k) }
	rate := func(k Kind, p, most float64) float64 {
		v := r.Float64() * most
		if !some(k, p) {
			return 0
		}
		return v
	}
	p := Profile{
		Shards: pick(4, 4, 8, 8, 16), Keys: 8 + r.IntN(17), Groups: 2 + r.IntN(3), Spare: r.IntN(2),
		Clients: 2 + r.IntN(4), Lanes: 1 + r.IntN(3), Replicas: pick(3, 3, 3, 3, 1),
		Operations: o.Size.Operations, Changes: o.Size.Changes + r.IntN(o.Size.Changes+1), Handoffs: o.Size.HandoffsMin,

		Loss: rate(KindLoss, 0.5, float64(pick(1, 1, 3))/10), Dup: rate(KindDup, 0.5, 0.2), DupRequest: rate(KindDup, 0.3, 0.2),
		Slow: rate(KindSlow, 0.5, 0.1), LostResult: rate(KindLostResult, 0.4, float64(pick(1, 1, 5))/10), ApplySlow: rate(KindSlow, 0.4, 0.2),

		Latency: between(r, 100*time.Microsecond, 3*ms), SlowMax: between(r, 10*ms, 800*ms),
		Fsync: between(r, 50*time.Microsecond, 4*ms), ApplyDelay: between(r, 0, 2*ms),
		Election: between(r, 100*ms, 400*ms), Sticky: r.IntN(2) == 0, UnsyncedMax: pick(1, 8, 64),

		FaultEvery: between(r, 150*ms, 1500*ms), FaultLast: between(r, 30*ms, time.Duration(pick(200, 1000, 2000, 5000))*ms),
		ChangeEvery: between(r, 10*ms, time.Duration(pick(100, 400, 1200))*ms),

		Deadline: between(r, 300*ms, 2500*ms), Hold: between(r, 100*ms, 800*ms), Think: between(r, 0, 40*ms),
		SleepFor: between(r, 1000*ms, 6000*ms), Sleep: rate(KindSleep, 0.4, 0.02), Retry: r.Float64(),
		Conditional: r.Float64() * 0.3, Reads: 0.2 + r.Float64()*0.3,
		SessionResults: pick(4, 64, 1024), ClockJump: between(r, 0, 3*time.Hour),

		PauseBudget: between(r, 5*ms, 100*ms), InviteEvery: between(r, 20*ms, 100*ms), TailPoll: between(r, 2*ms, 20*ms),
		PageBytes: pick(64, 200, 1000, 1<<20), ValueBytes: pick(0, 20, 300),
		Ghost: some(KindGhost, 0.25), Rejoin: some(KindRejoin, 0.7), Leave: some(KindLeave, 0.8), Move: some(KindMove, 0.7),
	}
	p.Heartbeat = p.Election / 4
	if r.IntN(2) == 0 {
		p.Lease = p.Election
	}
	if some(KindSnapshot, 0.5) {
		p.CompactAt = uint64(4 + r.IntN(40))
	}
	if some(KindExpiry, 0.3) {
		p.SessionAge = between(r, 500*ms, 8000*ms)
	}
	if ahead := uint64(200 + r.IntN(4000)); some(KindClock, 0.3) {
		p.SessionAhead = ahead
	}
	for _, k := range []Kind{KindCrash, KindGroupCrash, KindPartition, KindPause, KindClock} {
		if some(k, 0.55) {
			p.Faults = append(p.Faults, k)
		}
	}
	p.Scans = r.Float64() * 0.05
	for _, k := range []Kind{KindDisk, KindStray} {
		if some(k, 0.4) {
			p.Faults = append(p.Faults, k)
		}
	}
	p.Garble = rate(KindGarble, 0.2, 0.1)
	p.Parked = pick(1, 1000, 1000, 1000)
	if o.Clients > 0 {
		p.Clients, p.Lanes = o.Clients, 1
	}
	if o.Keys > 0 {
		p.Keys = o.Keys
	}
	if o.Without.Has(KindMove) {
		p.Handoffs = 0 // pins are the only changes that are sure to move a shard
	}
	return p
}

// AllKinds lists every kind.
func AllKinds() (list []Kind) {
	for k := range kindCount {
		list = append(list, k)
	}
	return list
}
