package sim

import "time"

// A node is a machine with an address: it may be down, or paused, and has a
// clock of its own.
type node struct {
	w    *World
	id   int
	addr string
	up   bool
	// boot counts the lives of its process: timers and messages of an earlier one
	// are void.
	boot uint64
	// alien: a server of another cluster answers here.
	alien   bool
	paused  int      // how many faults pause it
	held    []func() // what happens when it goes on
	limping int      // how many faults make its disk slow
	// skew is how far its clock is ahead of virtual time.
	skew time.Duration
	// host is the replica that lives here; nil: none.
	host *replica
}

func (w *World) addNode(addr string) *node {
	if len(w.nodes) == nodesMax {
		panic("sim: too many nodes")
	}
	n := &node{w: w, id: len(w.nodes), addr: addr, up: true}
	w.nodes = append(w.nodes, n)
	w.address[addr] = n
	return n
}

// epochMS is where virtual time begins, in ms since 1970: later than every age
// that is subtracted from it.
const epochMS = 1_000_000_000

// clock is the node's own, in ms since 1970.
func (n *node) clock() uint64 {
	return uint64(epochMS + int64((n.w.now+n.skew)/time.Millisecond))
}

// after runs f after d, unless the process has ended by then; a paused one runs
// it when it goes on.
func (n *node) after(d time.Duration, f func()) {
	boot := n.boot
	n.w.later(d, func() {
		if n.boot == boot && n.up {
			n.do(f)
		}
	})
}

// do runs f now, or when the node goes on.
func (n *node) do(f func()) {
	if n.paused > 0 {
		boot := n.boot
		n.held = append(n.held, func() {
			if n.boot == boot {
				f()
			}
		})
		return
	}
	f()
}

// latency draws how long a message takes.
func (w *World) latency() time.Duration {
	d := between(w.rng.net, w.p.Latency/2, 2*w.p.Latency)
	if !w.quiet() && chance(w.rng.net, w.p.Slow) {
		w.stats.happened(KindSlow)
		d += between(w.rng.net, 0, w.p.SlowMax)
	}
	return d
}

// post carries a message that may be lost, repeated, delayed beyond later ones,
// or cut off. A node that is down receives nothing.
func (w *World) post(from, to *node, f func()) { w.carry(from, to, w.p.Dup, f) }

func (w *World) carry(from, to *node, dup float64, f func()) (copies int) {
	copies = 1
	if !w.quiet() {
		if chance(w.rng.net, w.p.Loss) {
			w.stats.happened(KindLoss)
			return 0
		}
		if chance(w.rng.net, dup) {
			w.stats.happened(KindDup)
			copies = 2
		}
	}
	if w.cut[from.id][to.id] > 0 {
		return 0
	}
	for range copies {
		w.later(w.latency(), func() {
			if w.cut[from.id][to.id] == 0 && to.up {
				to.do(f)
			}
		})
	}
	return copies
}

// ending is how a call ended.
type ending uint8

const (
	answered ending = iota
	refused         // nobody listens there: the request had no effect
	silent          // no answer in time
)

// call sends a request and waits for the answer, at most for timeout. dup is the
// chance that the request is carried twice; copied is told, before end, if it
// was. serve runs at to, and may answer at any later time.
func call[T any](from, to *node, timeout time.Duration, dup float64, serve func(reply func(T)), end func(v T, how ending, copied bool)) {
	w := from.w
	over, copied := false, false
	finish := func(v T, how ending) {
		if !over {
			over = true
			end(v, how, copied)
		}
	}
	var zero T
	if !to.up && w.cut[from.id][to.id] == 0 && w.cut[to.id][from.id] == 0 {
		from.after(2*w.p.Latency, func() { finish(zero, refused) })
		return
	}
	from.after(timeout, func() { finish(zero, silent) })
	boot := from.boot
	copied = w.carry(from, to, dup, func() {
		serve(func(v T) {
			w.post(to, from, func() {
				if from.boot == boot {
					finish(v, answered)
				}
			})
		})
	}) > 1
}
