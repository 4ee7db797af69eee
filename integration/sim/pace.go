package sim

import "time"

// A run's work has a schedule: so many operations and handoffs by so much
// virtual time. A seed may draw faults that a cluster can't live with, such as
// whole groups without power most of the time; then all that it shows is a
// cluster that is down. So when the work has fallen behind its schedule the
// faults rest: those that last end, none begins, and messages arrive. Once it has
// caught up they go on.

const (
	// paceOfOperation is the time in the schedule for one operation of all clients
	// together: a cluster without faults needs a tenth of it.
	paceOfOperation = 120 * time.Millisecond
	// paceLag is how far the work may fall behind.
	paceLag   = 10 * time.Second
	paceEvery = 250 * time.Millisecond // between two looks
)

// paceBegin looks after the schedule until the faults end for good.
func (w *World) paceBegin() {
	var look func()
	look = func() {
		if w.calm {
			return
		}
		switch {
		case !w.resting && w.behind(w.now-paceLag):
			w.rest()
		case w.resting && !w.behind(w.now):
			w.resting = false
		}
		w.later(paceEvery, look)
	}
	w.later(paceEvery, look)
}

// behind reports whether less is done than should be at a time.
func (w *World) behind(at time.Duration) bool {
	all := time.Duration(w.p.Operations) * paceOfOperation
	if at >= all {
		return true
	}
	due := func(work int) int { return int(int64(work) * int64(max(at, 0)) / int64(all)) }
	return w.stats.ended() < due(w.p.Operations) || w.stats.Handoffs < due(w.p.Handoffs)
}

// rest ends all faults that last, until the work has caught up.
func (w *World) rest() {
	w.resting = true
	w.stats.Rests++
	w.relieve()
}

// quiet: no fault may happen now.
func (w *World) quiet() bool { return w.calm || w.resting }

// checkMinima: a run that did not do its work shows nothing.
func (w *World) checkMinima() {
	if n := w.stats.ended(); n < w.p.Operations || w.stats.Handoffs < w.p.Handoffs {
		w.fail("minimum", "%d operations of %d and %d handoffs of %d in %v", n, w.p.Operations, w.stats.Handoffs, w.p.Handoffs, w.now)
	}
	w.stats.Worked.Operations, w.stats.Worked.Handoffs = w.stats.ended(), w.stats.Handoffs
}
