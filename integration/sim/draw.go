package sim

import (
	"math/rand/v2"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardkv/handoff"
)

// dice draw a Profile.
type dice struct {
	*rand.Rand
	without Kinds
}

func (d dice) pick(values ...int) int { return values[d.IntN(len(values))] }

// some reports whether a seed has a kind of fault, with probability p.
func (d dice) some(k Kind, p float64) bool { return (d.Float64() < p) && !d.without.Has(k) }

// rate is 0 for a seed that does not have the kind.
func (d dice) rate(k Kind, p, most float64) float64 {
	v := d.Float64() * most
	if !d.some(k, p) {
		return 0
	}
	return v
}

func draw(seed uint64, o Options) Profile {
	const ms = time.Millisecond
	r := dice{stream(seed, 1), o.Without}
	p := Profile{
		Shards: r.pick(4, 4, 8, 8, 16), Keys: 8 + r.IntN(17), Groups: 2 + r.IntN(3), Spare: r.IntN(2),
		Clients: 2 + r.IntN(4), Lanes: 1 + r.IntN(3), Replicas: r.pick(3, 3, 3, 3, 1),
		Operations: o.Size.Operations, Changes: o.Size.Changes + r.IntN(o.Size.Changes+1), Handoffs: o.Size.HandoffsMin,

		Loss: r.rate(KindLoss, 0.5, float64(r.pick(1, 1, 3))/10), Dup: r.rate(KindDup, 0.5, 0.2), DupRequest: r.rate(KindDup, 0.3, 0.2),
		Slow: r.rate(KindSlow, 0.5, 0.1), LostResult: r.rate(KindLostResult, 0.4, float64(r.pick(1, 1, 5))/10), ApplySlow: r.rate(KindSlow, 0.4, 0.2),
		Garble: r.rate(KindGarble, 0.2, 0.1),

		Latency: between(r.Rand, 100*time.Microsecond, 3*ms), SlowMax: between(r.Rand, 10*ms, 800*ms),
		Fsync: between(r.Rand, 50*time.Microsecond, 4*ms), ApplyDelay: between(r.Rand, 0, 2*ms),
		Election: between(r.Rand, 100*ms, 400*ms), Sticky: r.IntN(2) == 0, UnsyncedMax: r.pick(1, 8, 64),

		FaultEvery: between(r.Rand, 150*ms, 1500*ms), FaultLast: between(r.Rand, 30*ms, time.Duration(r.pick(200, 1000, 2000, 5000))*ms),
		ChangeEvery: between(r.Rand, 10*ms, time.Duration(r.pick(100, 400, 1200))*ms),
	}
	p.Echo = r.rate(KindStray, 0.3, 0.5)
	p.Heartbeat = p.Election / 4
	if r.IntN(2) == 0 {
		p.Lease = p.Election
	}
	for _, k := range []Kind{KindCrash, KindGroupCrash, KindPartition, KindPause, KindClock, KindDisk, KindStray, KindNewer, KindLimp} {
		if r.some(k, 0.5) {
			p.Faults = append(p.Faults, k)
		}
	}
	if r.some(KindSnapshot, 0.5) {
		p.CompactAt = uint64(4 + r.IntN(40))
	}
	p.drawClients(r)
	p.drawGroups(r)
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

// drawClients draws what clients do, and what is remembered of them.
func (p *Profile) drawClients(r dice) {
	const ms = time.Millisecond
	p.Deadline, p.Hold, p.Think = between(r.Rand, 300*ms, 2500*ms), between(r.Rand, 100*ms, 800*ms), between(r.Rand, 0, 40*ms)
	p.SleepFor, p.Sleep, p.Retry = between(r.Rand, 1000*ms, 6000*ms), r.rate(KindSleep, 0.4, 0.02), r.Float64()
	p.Conditional, p.Reads, p.Scans = r.Float64()*0.3, 0.2+r.Float64()*0.3, r.Float64()*0.05
	p.ValueBytes = r.pick(0, 20, 300)
	p.SessionResults = r.pick(1, 4, 64, 1024)
	if r.some(KindExpiry, 0.3) {
		p.SessionAge = between(r.Rand, 500*ms, 8000*ms)
	}
	if ahead := uint64(200 + r.IntN(4000)); r.some(KindClock, 0.3) {
		p.SessionAhead = ahead
	}
	p.ClockJump = between(r.Rand, 0, 3*time.Hour)
	p.Parked = r.pick(1, 1000, 1000, 1000)
	p.Explicit = r.IntN(8) == 0
	if r.IntN(30) == 0 {
		p.Big = 4
	}
}

// drawGroups draws how shards move, and what the operator does.
func (p *Profile) drawGroups(r dice) {
	const ms = time.Millisecond
	p.PauseBudget, p.InviteEvery, p.TailPoll = between(r.Rand, 5*ms, 100*ms), between(r.Rand, 20*ms, 100*ms), between(r.Rand, 2*ms, 20*ms)
	p.PageBytes = r.pick(64, 200, 1000, 1<<20)
	p.PagesAtHand, p.WordAge = r.pick(1, 2, 8), 10*p.InviteEvery
	p.QueueBytes = 1 << 30
	if n := r.pick(2000, 5000, 20_000); r.some(KindBusy, 0.4) {
		p.QueueBytes = n
	}
	if n := r.pick(2000, 10_000, 100_000); r.some(KindNarrow, 0.3) && p.Big == 0 {
		p.Bandwidth = uint64(n)
	}
	if n := r.pick(5000, 50_000); r.IntN(4) == 0 && p.Big == 0 {
		p.CopyRate = uint64(n)
	}
	p.Rates = handoff.DefaultParams().Rates
	if r.IntN(3) == 0 {
		// A receiver that takes in the tail so slowly that it does not get short.
		p.Rates.ChangesPerSecond, p.Rates.BytesPerSecond = uint64(r.pick(20, 100, 1000)), uint64(r.pick(1000, 100_000))
	}
	p.ProposalsMax = r.pick(1, 4, 1024)
	p.Ghost, p.Rejoin, p.Leave, p.Move = r.some(KindGhost, 0.25), r.some(KindRejoin, 0.7), r.some(KindLeave, 0.8), r.some(KindMove, 0.7)
	p.Destroy = r.some(KindDestroy, 0.35)
	p.Aliens = r.IntN(2) == 0
	p.Nonsense = r.rate(KindNonsense, 0.4, 0.3)
	p.History = ctrlfsm.Bounds{Requests: ctrlfsm.RequestsMax, HistoryMin: ctrlfsm.HistoryMin, HistoryMax: ctrlfsm.HistoryMax,
		HistoryBytes: ctrlfsm.HistoryBytesMax}
	if r.IntN(2) == 0 {
		p.History = ctrlfsm.Bounds{Requests: uint64(r.pick(2, 5)), HistoryMin: uint64(r.pick(1, 3)), HistoryMax: uint64(r.pick(4, 10)), HistoryBytes: 1500}
	}
}
