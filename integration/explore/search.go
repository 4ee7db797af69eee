package explore

import (
	"fmt"
	"maps"
	"runtime"
	"time"
)

// A Report is what a search found, so far or at its end.
type Report struct {
	Bound Bound
	Full  bool
	// States that differ, and transitions between them.
	States, Transitions int
	// Depth is the greatest number of steps to a state.
	Depth int
	// Frontier is how many states of the present depth wait.
	Frontier int
	// Locals are the states of single groups that the states consist of.
	Locals int
	// Sampled states were tested for liveness, each with every choice of a dead
	// group and with none.
	Sampled int
	// Steps counts the transitions by what was done: none should be missing.
	Steps   map[string]int
	Elapsed time.Duration
	// HeapBytes is how much memory was in use at the end.
	HeapBytes uint64
	// Complete says that every state within the bound was visited; CutOff is why
	// not, if there was no violation.
	Complete bool
	CutOff   string
	// Violation is what is wrong; nil: nothing.
	Violation *Violation
}

// A Violation is a broken invariant with the shortest way to it.
type Violation struct {
	// Text begins with the invariant's name.
	Text string
	// Trace are the steps in words, Keys their short names, for a replay.
	Trace, Keys []string
}

// Run searches everything within a bound, breadth first, and stops at the first
// violation.
func Run(b Bound, o Options) Report {
	s := newSearch(newExplorer(b, o))
	s.run()
	return s.report
}

// Prove searches a bound with and without pruning and reports whether both reach
// the same states of groups, controllers and clients. It says nothing if either
// found a violation or was cut off.
func Prove(b Bound, o Options) (pruned, full Report, same bool) {
	reach := func(full bool) *search {
		o.Full = full
		s := newSearch(newExplorer(b, o))
		s.projections = map[uint64]bool{}
		s.run()
		return s
	}
	p, f := reach(false), reach(true)
	return p.report, f.report, maps.Equal(p.projections, f.projections)
}

// search is a breadth-first search.
type search struct {
	x      *explorer
	seen   set
	begun  time.Time
	report Report
	// Of every state, in the order of their discovery: its fingerprint and the
	// state that it was found from. Steps are found again when they are asked for.
	prints  []uint64
	parents []uint32
	// level holds the states of the present depth, next those found from them.
	level, next frontier
	// projections are kept if asked for.
	projections map[uint64]bool
	kinds       [kindsMax]int
	ticks       int // states that were expanded
}

// frontier holds encoded states, in blocks so that growing copies nothing.
type frontier struct {
	blocks [][]uint32
	count  int
}

const blockWords = 1 << 20

func (f *frontier) add(words []uint32) {
	if n := len(f.blocks); n == 0 || len(f.blocks[n-1])+len(words) > blockWords {
		f.blocks = append(f.blocks, make([]uint32, 0, blockWords))
	}
	last := &f.blocks[len(f.blocks)-1]
	*last = append(*last, words...)
	f.count++
}

func newSearch(x *explorer) *search { return &search{x: x, begun: time.Now()} }

func (s *search) run() {
	first := s.x.first()
	s.visit(first, 0)
	var (
		st   state
		from uint32
	)
	for s.next.count > 0 && s.report.Violation == nil {
		s.level, s.next = s.next, frontier{}
		for i, block := range s.level.blocks {
			for len(block) > 0 && s.report.Violation == nil && s.report.CutOff == "" {
				block = s.x.readWords(block, &st)
				s.expand(&st, from)
				from++
				s.tick()
			}
			s.level.blocks[i] = nil
		}
		if s.report.CutOff != "" {
			break
		}
		if s.next.count > 0 {
			s.report.Depth++
		}
	}
	s.report.Complete = s.report.Violation == nil && s.report.CutOff == ""
	s.measure()
}

// expand visits what follows from a state.
func (s *search) expand(st *state, from uint32) {
	if s.sampled(from) {
		s.report.Sampled++
		if bad := s.x.checkLive(st); bad != "" {
			s.violated(from, "", bad)
			return
		}
	}
	s.x.expand(st, func(a action, next *state, bad string) {
		if s.report.Violation != nil {
			return
		}
		s.report.Transitions++
		s.kinds[s.x.kindOf(a)]++
		if bad != "" {
			s.violated(from, s.x.describe(a, st), bad)
			return
		}
		s.visit(next, from)
	})
}

// sampled picks states for the test of liveness by their fingerprint.
func (s *search) sampled(from uint32) bool {
	every := uint64(s.x.bound.Live)
	return every > 0 && s.prints[from]>>8%every == 0
}

func (s *search) visit(st *state, from uint32) {
	print := s.x.fingerprint(st)
	if !s.seen.add(print) {
		return
	}
	s.prints = append(s.prints, print)
	s.parents = append(s.parents, from)
	words := s.x.appendWords(s.x.scratch.words[:0], st)
	s.x.scratch.words = words
	s.next.add(words)
	if s.projections != nil {
		s.projections[s.x.projection(st)] = true
	}
}

// Of how many states one looks at the limits, and one reports.
const (
	limitsEvery   = 1 << 14
	progressEvery = 1 << 19
)

// tick cuts the search off at a limit and reports now and then.
func (s *search) tick() {
	n := len(s.prints)
	if limit := s.x.bound.StatesMax; limit > 0 && n >= limit {
		s.report.CutOff = fmt.Sprintf("limit of %d states", limit)
	}
	s.ticks++
	if s.ticks%limitsEvery != 0 {
		return
	}
	s.measure()
	o := &s.x.opts
	switch {
	case o.TimeMax > 0 && s.report.Elapsed > o.TimeMax:
		s.report.CutOff = fmt.Sprintf("limit of %v", o.TimeMax)
	case o.BytesMax > 0 && s.report.HeapBytes > o.BytesMax:
		s.report.CutOff = fmt.Sprintf("limit of %d MiB", o.BytesMax>>20)
	}
	if o.Progress != nil && s.ticks%progressEvery == 0 {
		o.Progress(s.report)
	}
}

// measure fills in the report.
func (s *search) measure() {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	r := &s.report
	r.Full = s.x.full
	r.States, r.Bound, r.Frontier, r.Locals = len(s.prints), s.x.bound, s.next.count, len(s.x.locals)
	r.Elapsed, r.HeapBytes = time.Since(s.begun), mem.HeapAlloc
	r.Steps = map[string]int{}
	for kind, n := range s.kinds {
		if n > 0 {
			r.Steps[kindNames[kind]] = n
		}
	}
}

// violated notes a violation and the way to it: the states that led there are
// known by their fingerprints, and their steps are found by taking them again.
func (s *search) violated(from uint32, last, text string) {
	v := &Violation{Text: text}
	s.report.Violation = v
	var way []uint64
	for i := from; i != 0; i = s.parents[i] {
		way = append(way, s.prints[i])
	}
	st := s.x.first()
	for i := len(way) - 1; i >= 0; i-- {
		var (
			found bool
			then  state
		)
		s.x.expand(st, func(a action, next *state, _ string) {
			if !found && s.x.fingerprint(next) == way[i] {
				found = true
				v.add(s.x.describe(a, st))
				next.copyTo(&then)
			}
		})
		if !found {
			panic(fmt.Sprintf("explore: step %d of a trace is gone", len(way)-i))
		}
		st = &then
	}
	if last != "" {
		v.add(last)
	}
}

func (v *Violation) add(step string) {
	v.Trace = append(v.Trace, step)
	v.Keys = append(v.Keys, shortName(step))
}

// shortName names a step within the steps from one state.
func shortName(step string) string { return fmt.Sprintf("%06x", hashBytes([]byte(step))>>40) }

// Replay takes the steps of a trace again and calls show with each step and with
// the state behind it, in words. It returns the violation that it ends with;
// empty: none.
func Replay(b Bound, o Options, keys []string, show func(step, state string)) (string, error) {
	x := newExplorer(b, o)
	st := x.first()
	for n, want := range keys {
		var (
			found bool
			then  state
			bad   string
		)
		x.expand(st, func(a action, next *state, why string) {
			step := x.describe(a, st)
			if found || shortName(step) != want {
				return
			}
			found, bad = true, why
			next.copyTo(&then)
			show(step, x.describeState(&then))
		})
		if !found {
			return "", fmt.Errorf("replay: no step %d is called %s in bound %s", n+1, want, b.Name)
		}
		if bad != "" {
			return bad, nil
		}
		st = &then
	}
	return x.checkLive(st), nil
}

// set is a hash set of fingerprints: open addressing, at most three quarters
// full. No fingerprint is 0.
type set struct {
	slots []uint64
	count int
}

// add adds p and reports whether it was absent.
func (s *set) add(p uint64) bool {
	if 4*(s.count+1) > 3*len(s.slots) {
		s.grow()
	}
	mask := uint64(len(s.slots) - 1)
	for i := p & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case p:
			return false
		case 0:
			s.slots[i] = p
			s.count++
			return true
		}
	}
}

func (s *set) grow() {
	old := s.slots
	s.slots = make([]uint64, max(1<<12, 2*len(old)))
	s.count = 0
	for _, p := range old {
		if p != 0 {
			s.add(p)
		}
	}
}
