package sim

import (
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
)

// A Report says how a run ended.
type Report struct {
	Seed    uint64
	Profile Profile
	// Trace is the hash of everything that happened, in order.
	Trace uint64
	Stats Stats
	// Failure is nil if nothing went wrong.
	Failure *Failure
}

// Limits of virtual time.
const (
	workMax   = 300 * time.Second // for the workload under faults
	settleMax = 60 * time.Second  // from the last fault until all is at rest
)

// Run runs one seed. It writes the trace's text to out, if that is not nil.
func Run(seed uint64, o Options, out io.Writer) (report Report) {
	if o.Size == (Size{}) {
		o.Size = SizeSmall
	}
	w := newWorld(seed, draw(seed, o), o.Bugs)
	w.trace.out = out
	defer func() {
		report = Report{Seed: seed, Profile: w.p, Trace: w.trace.hash, Stats: w.stats}
		report.Stats.Virtual = w.now
		switch f := recover().(type) {
		case nil:
		case *Failure:
			report.Failure = f
		default:
			report.Failure = &Failure{Name: "panic", Text: fmt.Sprintf("%v\n%s", f, debug.Stack()), At: w.now}
		}
	}()
	w.live()
	return report
}

func newWorld(seed uint64, p Profile, bugs Bugs) *World {
	w := &World{seed: seed, p: p, bugs: bugs, address: map[string]*node{}, cluster: shardcfg.ClusterID{1},
		monitor: handoff.NewMonitor(), model: newModel(), garbled: map[shardcfg.ShardID]bool{}}
	w.trace.now = &w.now
	w.rng.net, w.rng.raft, w.rng.fault = stream(seed, 2), stream(seed, 3), stream(seed, 4)
	w.rng.operator, w.rng.serve, w.rng.order = stream(seed, 5), stream(seed, 6), stream(seed, 7)
	return w
}

// live is a cluster's whole life.
func (w *World) live() {
	w.controllers = newControllers(w)
	w.operator = newOperator(w)
	for i := range w.p.Clients {
		w.clerks = append(w.clerks, w.newClerk(i))
	}
	w.operator.begin()
	w.faultsBegin()
	w.paceBegin()
	lanes := w.p.Clients * w.p.Lanes
	for i := range w.p.Operations {
		w.lane(i%lanes).left++
	}
	for i := range lanes {
		w.lane(i).next()
	}
	w.run(workMax, func() bool { return w.idle() && w.operator.done })
	w.checkMinima()
	w.settle()
	w.read()
	w.judge()
	for _, r := range w.groups() {
		w.trace.note(traceState, 0, r.newest.index, r.newest.term)
	}
}

func (w *World) lane(i int) *lane { return w.clerks[i/w.p.Lanes].lanes[i%w.p.Lanes] }

// idle reports whether all calls have ended.
func (w *World) idle() bool {
	for _, c := range w.clerks {
		for _, l := range c.lanes {
			if !l.idle {
				return false
			}
		}
	}
	return true
}

// settle ends the faults and waits until everything is at rest: progress is a
// promise too (INV-5).
func (w *World) settle() {
	for _, c := range w.clerks {
		for _, l := range c.lanes {
			l.left = 0
		}
	}
	w.operator.left = 0
	w.heal()
	at, why := time.Duration(-1), ""
	limit := w.now + settleMax
	ok := w.run(limit, func() bool {
		if at >= 0 && w.now-at < 20*time.Millisecond {
			return false // looking is costly
		}
		at = w.now
		switch why = ""; {
		case !w.idle():
			why = "a client has no answer"
		case !w.operator.done:
			why = "the operator has no answer"
		default:
			why = w.rested()
		}
		return why == ""
	})
	if !ok {
		w.fail("INV-5", "not at rest %v after the last fault: %s", settleMax, why)
	}
}

// read reads every key through a client, and compares the replicas.
func (w *World) read() {
	l := w.clerks[0].lanes[0]
	reads := 0
	for k := range w.p.Keys {
		o := &op{l: &lane{c: l.c, number: 1000 + k, seen: map[string]shardcfg.Revision{}}, read: true, final: true}
		o.h = history.Operation{Client: 1000 + k, Kind: history.Get, Key: keyName(k)}
		reads++
		o.start(w.now + w.p.Deadline)
	}
	want := len(w.history.list) + reads
	if !w.run(w.now+settleMax, func() bool { return len(w.history.list) == want }) {
		w.fail("INV-5", "%d of %d final reads got no answer", want-len(w.history.list), reads)
	}
	if !w.run(w.now+settleMax, w.even) {
		w.fail("INV-5", "replicas do not come level")
	}
	w.checkContents()
}

func replyOf[T ~uint8](code T) route.Reply { return route.Reply{Code: route.Code(code)} }
