package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
)

// A World is one cluster with its clients, its operator and its faults.
type World struct {
	seed  uint64
	p     Profile
	bugs  Bugs
	now   time.Duration
	queue events
	trace trace
	stats Stats

	// One stream of random numbers for each purpose: to draw more from one leaves
	// the others as they are.
	rng struct {
		net, raft, fault, operator, serve, order *rand.Rand
	}

	nodes   []*node
	address map[string]*node
	cut     [nodesMax][nodesMax]uint8 // how many faults cut this directed link

	controllers *controllers
	lives       []*life // every incarnation that was ever formed
	clerks      []*clerk
	operator    *operator
	cluster     shardcfg.ClusterID

	monitor *handoff.Monitor
	model   model
	history recorder
	strays  strays
	// garbled are the shards of which a page was damaged on its way.
	garbled map[shardcfg.ShardID]bool
	// calm: no more faults. resting: none until the work has caught up.
	calm, resting bool
	// spell counts how often all faults were ended: what would end one of an
	// earlier spell is void.
	spell int
	// changed is set when a group's records changed, for the invariants.
	changed bool
}

// nodesMax bounds the machines of a World.
const nodesMax = 64

// A Failure is what went wrong in a run.
type Failure struct {
	// Name is the invariant's, or what kind of failure it is.
	Name string
	Text string
	At   time.Duration
}

// Error is the name and the text.
func (f *Failure) Error() string { return fmt.Sprintf("%s: %s (at %v)", f.Name, f.Text, f.At) }

// fail ends the run.
func (w *World) fail(name, format string, args ...any) {
	panic(&Failure{Name: name, Text: fmt.Sprintf(format, args...), At: w.now})
}

// check ends the run if err is not nil: the machines and the store may not fail
// on a healthy disk.
func (w *World) check(err error, doing string) {
	if err != nil {
		w.fail("machine", "%s: %v", doing, err)
	}
}

func stream(seed, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, purpose*0x9E3779B97F4A7C15+1))
}

// chance is true with probability p.
func chance(r *rand.Rand, p float64) bool { return p > 0 && r.Float64() < p }

// between draws from [low, high).
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// later runs f after d.
func (w *World) later(d time.Duration, f func()) { w.queue.push(w.now+d, f) }

// run carries out events until stop, or until nothing is left, or until virtual
// time passes a limit; it reports whether stop held.
func (w *World) run(limit time.Duration, stop func() bool) bool {
	for {
		if stop() {
			return true
		}
		if w.queue.empty() || w.queue.first() > limit {
			return false
		}
		var f func()
		w.now, f = w.queue.pop()
		f()
		w.stats.Events++
		if w.changed {
			w.changed = false
			w.observe()
		}
	}
}

// events is a heap by time, then by order of creation.
type events struct {
	heap   []event
	serial uint64
}

type event struct {
	at     time.Duration
	serial uint64
	run    func()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.serial < o.serial }

func (q *events) empty() bool          { return len(q.heap) == 0 }
func (q *events) first() time.Duration { return q.heap[0].at }

func (q *events) push(at time.Duration, run func()) {
	q.serial++
	q.heap = append(q.heap, event{at, q.serial, run})
	h := q.heap
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 4
		if !h[i].before(&h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *events) pop() (time.Duration, func()) {
	h := q.heap
	top := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	q.heap = h
	for i := 0; ; {
		least := i
		for c := 4*i + 1; c <= 4*i+4 && c < last; c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if least == i {
			return top.at, top.run
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
