package sim

import (
	"time"
)

// faultsBegin lets faults happen from time to time.
func (w *World) faultsBegin() {
	if len(w.p.Faults) == 0 {
		return
	}
	var next func()
	next = func() {
		if w.calm {
			return
		}
		if !w.resting {
			w.fault(w.p.Faults[w.rng.fault.IntN(len(w.p.Faults))])
		}
		w.later(between(w.rng.fault, w.p.FaultEvery/4, 7*w.p.FaultEvery/4), next)
	}
	w.later(between(w.rng.fault, 0, w.p.FaultEvery), next)
}

func (w *World) fault(k Kind) {
	rng := w.rng.fault
	last := between(rng, w.p.FaultLast/8, 2*w.p.FaultLast)
	happened := true
	switch k {
	case KindCrash:
		happened = w.crash(w.nodes[rng.IntN(len(w.nodes))], last)
	case KindGroupCrash:
		happened = false
		for _, r := range w.anyGroup().replicas {
			happened = w.crash(r.n, between(rng, last/2, last)) || happened
		}
	case KindPartition:
		happened = w.partition(last)
	case KindDisk:
		happened = w.failDisk(w.nodes[rng.IntN(len(w.nodes))], false)
	case KindNewer:
		happened = w.failDisk(w.nodes[rng.IntN(len(w.nodes))], true)
	case KindLimp:
		w.limp(w.nodes[rng.IntN(len(w.nodes))], last)
	case KindStray:
		w.stray()
		return // counted where a command is proposed
	case KindPause:
		w.pause(w.nodes[rng.IntN(len(w.nodes))], last)
	case KindClock:
		n := w.nodes[rng.IntN(len(w.nodes))]
		most := w.p.ClockJump
		if rng.IntN(2) == 0 {
			most = 5 * time.Second
		}
		n.skew = between(rng, -most, most+1)
		w.trace.note(traceClock, n.id, uint64(n.skew), 0)
	}
	if happened {
		w.stats.happened(k)
	}
}

// anyGroup draws a group that lives, or the controllers.
func (w *World) anyGroup() *raftGroup {
	groups := []*raftGroup{w.controllers.g}
	for _, l := range w.lives {
		if !l.over {
			groups = append(groups, l.g)
		}
	}
	return groups[w.rng.fault.IntN(len(groups))]
}

// crash takes a replica's power, for a while; false: it had none.
func (w *World) crash(n *node, last time.Duration) bool {
	if !n.up || n.host == nil {
		return false
	}
	w.stats.Crashes++
	w.trace.note(traceCrash, n.id, n.host.last(), n.host.synced)
	n.up = false
	n.boot++
	n.held = nil
	n.host.crash()
	boot := n.boot
	w.later(last, func() {
		if n.boot == boot {
			w.restart(n)
		}
	})
	return true
}

func (w *World) restart(n *node) {
	if n.up || n.host == nil {
		return
	}
	if n.host.disk != nil && !n.host.opens() {
		w.later(between(w.rng.fault, 10*time.Millisecond, 500*time.Millisecond), func() { w.restart(n) })
		return
	}
	n.up = true
	n.boot++
	w.trace.note(traceRestart, n.id, n.host.last(), n.host.machine.index())
	n.host.start()
}

// limp makes a machine's disk slow, for a while.
func (w *World) limp(n *node, last time.Duration) {
	n.limping++
	w.trace.note(traceLimp, n.id, uint64(last), 0)
	spell := w.spell
	w.later(last, func() {
		if w.spell == spell {
			n.limping--
		}
	})
}

// pause stops a machine, for a while.
func (w *World) pause(n *node, last time.Duration) {
	n.paused++
	w.trace.note(tracePause, n.id, uint64(last), 0)
	spell := w.spell
	w.later(last, func() {
		if w.spell == spell {
			n.paused--
			n.goOn()
		}
	})
}

// goOn runs what happened to a paused machine meanwhile.
func (n *node) goOn() {
	if n.paused > 0 {
		return
	}
	held := n.held
	n.held = nil
	for _, f := range held {
		n.do(f)
	}
}

// partition cuts links, for a while: around one machine, one way or both; half
// of all; or one group from another. False: it cut nothing.
func (w *World) partition(last time.Duration) bool {
	rng := w.rng.fault
	side := make([]bool, len(w.nodes))
	inward, outward := true, true
	switch rng.IntN(4) {
	case 0:
		side[rng.IntN(len(side))] = true
	case 1:
		side[rng.IntN(len(side))] = true
		inward = rng.IntN(2) == 0
		outward = !inward
	case 2:
		for i := range side {
			side[i] = rng.IntN(2) == 0
		}
	case 3:
		for _, r := range w.anyGroup().replicas {
			side[r.n.id] = true
		}
	}
	var links [][2]int
	for a := range side {
		for b := range side {
			if a != b && side[a] != side[b] && (side[a] && outward || side[b] && inward) {
				links = append(links, [2]int{a, b})
				w.cut[a][b]++
			}
		}
	}
	w.trace.note(traceCut, 0, uint64(len(links)), uint64(last))
	spell := w.spell
	if w.trace.on() {
		for i, s := range side {
			if s {
				w.trace.text("cut off: %s (inward %v, outward %v)", w.nodes[i].addr, inward, outward)
			}
		}
	}
	w.later(last, func() {
		if w.spell != spell {
			return
		}
		w.trace.note(traceHeal, 0, uint64(len(links)), 0)
		for _, l := range links {
			w.cut[l[0]][l[1]]--
		}
	})
	return len(links) > 0
}

// heal ends all faults for good.
func (w *World) heal() {
	w.calm = true
	w.relieve()
}

// relieve ends all faults that last.
func (w *World) relieve() {
	w.spell++
	clear(w.cut[:])
	for _, n := range w.nodes {
		if n.host != nil && !n.host.stopping {
			n.host.disk = nil
		}
		n.limping = 0
		if n.paused > 0 {
			n.paused = 0
			n.goOn()
		}
		w.restart(n)
	}
	w.trace.note(traceHeal, 0, 0, 0)
}
