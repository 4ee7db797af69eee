package virtual

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A plan is all that a seed decides.
type plan struct {
	seed     uint64
	replicas int
	streams  bool // Raft's network transport over streams; otherwise messages
	kv       bool // the machine of shardkv; otherwise registers
	changes  bool // the membership changes
	clients  int
	length   time.Duration // of load and faults
	faults   []fault

	timeout         time.Duration
	skewMax         time.Duration // of each life's clock, either way
	slowDisk        time.Duration
	stallLimit      time.Duration
	entryBytes      int
	snapshotEntries uint64
	trailingBytes   int64
}

// A faultKind is one thing that goes wrong.
type faultKind string

const (
	faultIsolate   faultKind = "isolate"    // no link of the target works
	faultDeaf      faultKind = "deaf"       // nothing reaches the target
	faultMute      faultKind = "mute"       // nothing from the target arrives
	faultPair      faultKind = "pair"       // no link between two replicas works
	faultOneWay    faultKind = "one way"    // one link does not work
	faultSplit     faultKind = "split"      // two sides
	faultMinority  faultKind = "minority"   // the leader and a minority, and the others
	faultHold      faultKind = "hold"       // what is sent to the target arrives at the end
	faultPause     faultKind = "pause"      // the process stands still
	faultSlow      faultKind = "slow peer"  // the target's links are slow
	faultStall     faultKind = "disk stall" // the disk hangs
	faultStallLong faultKind = "dead disk"  // it hangs beyond the limit
	faultDisk      faultKind = "disk error" // a write fails
	faultLag       faultKind = "lag"        // the machine is slow
	faultKill      faultKind = "kill"       // the process, and a restart
	faultPower     faultKind = "power loss" // the host, and a restart
	faultBlackout  faultKind = "blackout"   // all hosts at once
	faultRestart   faultKind = "restart"    // in order
	faultReset     faultKind = "reset"      // all connections of the target break
	faultFlap      faultKind = "flap"       // the target's links come and go
)

// faultWeights says how often each kind is drawn.
var faultWeights = []struct {
	kind   faultKind
	weight int
}{
	{faultIsolate, 4}, {faultDeaf, 4}, {faultMute, 4}, {faultPair, 3}, {faultOneWay, 4}, {faultSplit, 3},
	{faultMinority, 4}, {faultHold, 5}, {faultPause, 5}, {faultSlow, 3}, {faultStall, 4}, {faultStallLong, 1},
	{faultDisk, 2}, {faultLag, 2}, {faultKill, 5}, {faultPower, 5}, {faultBlackout, 1}, {faultRestart, 2},
	{faultReset, 3}, {faultFlap, 2},
}

// A fault is one entry of the schedule.
type fault struct {
	at, lasts time.Duration
	kind      faultKind
	// leader: the target is whoever leads then, if anybody does; otherwise pick
	// chooses among those that run.
	leader      bool
	pick, other int
}

func (f fault) String() string {
	whom := fmt.Sprintf("replica %d", f.pick)
	if f.leader {
		whom = "the leader"
	}
	return fmt.Sprintf("%v: %s, %s, for %v", f.at, f.kind, whom, f.lasts)
}

// newPlan draws a plan.
func newPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := plan{
		seed:            seed,
		replicas:        3,
		streams:         seed%2 == 1,
		kv:              seed/2%3 == 2,
		changes:         r.IntN(10) < 6,
		clients:         3 + r.IntN(4),
		length:          time.Duration(12+r.IntN(18)) * time.Second,
		timeout:         []time.Duration{200, 500, 500, 1000}[r.IntN(4)] * time.Millisecond,
		skewMax:         []time.Duration{0, 50 * time.Millisecond, 20 * time.Second}[r.IntN(3)],
		slowDisk:        []time.Duration{0, time.Millisecond, 10 * time.Millisecond}[r.IntN(3)],
		stallLimit:      []time.Duration{5, 10}[r.IntN(2)] * time.Second,
		entryBytes:      []int{64, 1 << 10, 256 << 10}[r.IntN(3)],
		snapshotEntries: []uint64{10, 40, 200, 1 << 20}[r.IntN(4)],
		trailingBytes:   []int64{1, 2 << 10, 64 << 10}[r.IntN(3)],
	}
	if r.IntN(5) == 0 {
		p.replicas = 5
	}
	p.draw(r)
	return p
}

// draw draws the schedule: faults overlap, with quiet times between. Half of the
// plans have a theme, three kinds that come far more often than the others.
func (p *plan) draw(r *rand.Rand) {
	weights := slices.Clone(faultWeights)
	if r.IntN(2) == 0 {
		for range 3 {
			weights[r.IntN(len(weights))].weight *= 12
		}
	}
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	gap := []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second}[r.IntN(3)]
	for at := 2 * time.Second; at < p.length; at += time.Duration(r.Int64N(int64(2 * gap))) {
		f := fault{at: at, lasts: time.Duration(50+r.IntN(4000)) * time.Millisecond,
			leader: r.IntN(5) < 3, pick: r.IntN(64), other: r.IntN(64)}
		n := r.IntN(total)
		for _, w := range weights {
			if n -= w.weight; n < 0 {
				f.kind = w.kind
				break
			}
		}
		switch f.kind {
		case faultStallLong:
			f.lasts = p.stallLimit + time.Second
		case faultStall, faultPause, faultHold:
			// Long enough for another leader, not too long for old messages.
			f.lasts = p.timeout + time.Duration(r.Int64N(int64(2*time.Second)))
		case faultSlow, faultLag:
			f.lasts *= 2
		}
		p.faults = append(p.faults, f)
		if r.IntN(4) == 0 {
			at += time.Duration(1+r.IntN(5)) * time.Second
		}
	}
	slices.SortFunc(p.faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
}

func (p plan) flavour() flavour {
	if p.kv {
		return shards{}
	}
	return registers{}
}

// diskTakes is what a write costs on one life's disk.
func (p plan) diskTakes(percent int) time.Duration {
	return 50*time.Microsecond + p.slowDisk*time.Duration(percent)/100
}

func (p plan) String() string {
	var b strings.Builder
	q := p
	q.faults = nil
	fmt.Fprintf(&b, "%+v\n", struct {
		Replicas                  int
		Streams, KV, Changes      bool
		Clients                   int
		Length, Timeout, Skew     time.Duration
		Disk, StallLimit          time.Duration
		EntryBytes                int
		SnapshotEntries, Trailing int64
	}{p.replicas, p.streams, p.kv, p.changes, p.clients, p.length, p.timeout, p.skewMax, p.slowDisk, p.stallLimit,
		p.entryBytes, int64(p.snapshotEntries), p.trailingBytes})
	for _, f := range p.faults {
		fmt.Fprintf(&b, "  %v\n", f)
	}
	return b.String()
}
