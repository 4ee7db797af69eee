package sim

import (
	"fmt"
	"strings"
	"time"
)

// A Shrunk is a failing run with as little in it as was found to suffice.
type Shrunk struct {
	Seed    uint64
	Options Options
	Report  Report
	Runs    int // that it took
}

// Shrink looks for smaller options under which a seed fails by the same name:
// fewer kinds of faults, fewer operations and changes, fewer clients and keys.
func Shrink(seed uint64, o Options) Shrunk {
	if o.Size == (Size{}) {
		o.Size = SizeSmall
	}
	start := time.Now()
	s := Shrunk{Seed: seed, Options: o, Report: Run(seed, o, nil), Runs: 1}
	if s.Report.Failure == nil {
		return s
	}
	for again := true; again; {
		again = false
		for _, smaller := range s.candidates() {
			s.Runs++
			if r := Run(seed, smaller, nil); r.Failure != nil && r.Failure.Name == s.Report.Failure.Name {
				s.Options, s.Report, again = smaller, r, true
			}
			if s.Runs >= shrinkRunsMax || time.Since(start) > shrinkMax {
				return s
			}
			if again {
				break
			}
		}
	}
	return s
}

// shrinkRunsMax and shrinkMax bound the effort.
const (
	shrinkRunsMax = 300
	shrinkMax     = 20 * time.Second
)

// candidates are the next smaller options, the greatest steps first.
func (s *Shrunk) candidates() (list []Options) {
	add := func(f func(o *Options)) {
		o := s.Options
		if f(&o); o != s.Options {
			list = append(list, o)
		}
	}
	for _, part := range []int{4, 2} {
		add(func(o *Options) { o.Size.Operations = min(max(o.Size.Operations/part, 4), o.Size.Operations) })
		add(func(o *Options) { o.Size.Changes = min(max(o.Size.Changes/part, 1), o.Size.Changes) })
	}
	add(func(o *Options) { o.Size.HandoffsMin = 0 })
	for k := range kindCount {
		if !s.Options.Without.Has(k) {
			add(func(o *Options) { o.Without = o.Without.With(k) })
		}
	}
	add(func(o *Options) { o.Clients = 1 })
	if s.Options.Clients != 1 {
		add(func(o *Options) { o.Clients = 2 })
	}
	add(func(o *Options) { o.Keys = 3 })
	add(func(o *Options) { o.Size.Operations = o.Size.Operations * 4 / 5 })
	return list
}

// Command replays the run, with its trace.
func (s Shrunk) Command() string {
	var b strings.Builder
	fmt.Fprintf(&b, "go run ./integration/sim/soak -replay %d -v -ops %d -changes %d -handoffs %d", s.Seed,
		s.Options.Size.Operations, s.Options.Size.Changes, s.Options.Size.HandoffsMin)
	if s.Options.Without != 0 {
		fmt.Fprintf(&b, " -without %v", s.Options.Without)
	}
	if s.Options.Clients > 0 {
		fmt.Fprintf(&b, " -clients %d", s.Options.Clients)
	}
	if s.Options.Keys > 0 {
		fmt.Fprintf(&b, " -keys %d", s.Options.Keys)
	}
	return b.String()
}
