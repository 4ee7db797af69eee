package virtual

import (
	"sync"
	"time"
)

// inject runs the schedule.
func (w *world) inject() {
	began := time.Now()
	for _, f := range w.plan.faults {
		if !w.sleep(f.at - time.Since(began)) {
			return
		}
		w.running.Go(func() { w.run(f) })
	}
}

// target is the replica that a fault hits, or nil.
func (w *world) target(f fault) *replica {
	if f.leader {
		if r := w.leader(); r != nil {
			return r
		}
	}
	living := w.living()
	if len(living) == 0 {
		return nil
	}
	return living[f.pick%len(living)]
}

// run runs one fault from its beginning to its end, or that of the storm.
func (w *world) run(f fault) {
	r := w.target(f)
	if r == nil {
		return
	}
	l := r.alive()
	if l == nil {
		return
	}
	w.note("fault: %s, %s, for %v", f.kind, l.name, f.lasts)
	w.tally.faults.Add(1)
	switch f.kind {
	case faultIsolate, faultDeaf, faultMute, faultPair, faultOneWay, faultSplit, faultMinority:
		w.tally.partitions.Add(1)
		w.cut(w.severed(f, r), f.lasts)
	case faultFlap:
		w.tally.partitions.Add(1)
		for range 8 {
			w.cut(w.linksOf(r, true, true), f.lasts/16)
			w.sleep(f.lasts / 16)
		}
	case faultHold:
		w.during(w.linksOf(r, false, true), f.lasts, func(k *link, n int) { k.held += n })
	case faultSlow:
		w.during(w.linksOf(r, true, true), f.lasts, func(k *link, n int) { k.slow += n })
	case faultPause:
		w.freeze(f, r, l)
	case faultStall, faultStallLong:
		if f.kind == faultStallLong {
			l.doomed.Store(true)
		}
		l.disk.hang()
		w.sleep(f.lasts)
		l.disk.goOn()
	case faultDisk:
		l.doomed.Store(true)
		l.disk.failNext()
	case faultLag:
		l.witness.setLag(20 * time.Millisecond)
		w.sleep(f.lasts)
		l.witness.setLag(0)
	case faultReset:
		l.streams.reset()
	case faultKill, faultPower, faultRestart:
		how := map[faultKind]way{faultKill: wayKilled, faultPower: wayPowerOff, faultRestart: wayClosed}[f.kind]
		w.restart(r, l, how, f.lasts)
	case faultBlackout:
		for _, other := range w.living() {
			w.running.Go(func() { w.restart(other, other.alive(), wayPowerOff, f.lasts) })
		}
	}
}

// freeze stops a process, as SIGSTOP does. When it goes on, what waited for it
// arrives in any order: the answers to its old messages perhaps first, then its
// disk's, and the news of another leader last.
func (w *world) freeze(f fault, r *replica, l *life) {
	l.disk.hang()
	l.witness.setLag(f.lasts)
	hold := func(k *link, n int) { k.held += n }
	var thawing sync.WaitGroup
	for _, key := range w.linksOf(r, true, true) {
		late := time.Duration(w.draw(20)) * time.Millisecond
		thawing.Go(func() { w.during([]linkKey{key}, f.lasts+late, hold) })
	}
	w.sleep(f.lasts + time.Duration(w.draw(20))*time.Millisecond)
	l.witness.setLag(0)
	l.disk.goOn()
	thawing.Wait()
}

func (w *world) restart(r *replica, l *life, how way, after time.Duration) {
	if r.end(l, how) {
		w.tally.crashes.Add(1)
		w.sleep(after)
		r.start()
	}
}

// during changes links, and changes them back.
func (w *world) during(keys []linkKey, d time.Duration, add func(k *link, n int)) {
	w.network.change(keys, func(k *link) { add(k, 1) })
	w.sleep(d)
	w.network.change(keys, func(k *link) { add(k, -1) })
}

func (w *world) cut(keys []linkKey, d time.Duration) {
	w.during(keys, d, func(k *link, n int) { k.cut += n })
}

// linksOf returns the links out of a replica, those into it, or both.
func (w *world) linksOf(r *replica, out, in bool) (keys []linkKey) {
	for _, other := range w.all() {
		if other == r {
			continue
		}
		if out {
			keys = append(keys, linkKey{r.member.Address, other.member.Address})
		}
		if in {
			keys = append(keys, linkKey{other.member.Address, r.member.Address})
		}
	}
	return keys
}

// severed returns the links that a partition cuts.
func (w *world) severed(f fault, r *replica) []linkKey {
	all := w.all()
	peer := all[f.other%len(all)]
	there, back := linkKey{r.member.Address, peer.member.Address}, linkKey{peer.member.Address, r.member.Address}
	switch f.kind {
	case faultDeaf:
		return w.linksOf(r, false, true)
	case faultMute:
		return w.linksOf(r, true, false)
	case faultPair:
		return []linkKey{there, back}
	case faultOneWay:
		if f.other%2 == 0 {
			return []linkKey{there}
		}
		return []linkKey{back}
	case faultSplit:
		return between(all, func(i int) bool { return f.other>>i&1 == 1 })
	case faultMinority:
		// The target and every fourth of the others: one of 3 or 4, two of 5.
		return between(all, func(i int) bool { return all[i] == r || len(all) > 4 && i == f.other%len(all) })
	default:
		return w.linksOf(r, true, true)
	}
}

// between returns the links between two sides, both ways.
func between(all []*replica, side func(i int) bool) (keys []linkKey) {
	for i, a := range all {
		for j, b := range all {
			if side(i) != side(j) {
				keys = append(keys, linkKey{a.member.Address, b.member.Address})
			}
		}
	}
	return keys
}
