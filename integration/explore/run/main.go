// Command run searches one bound, or all, and prints what it found.
//
//	go run ./integration/explore/run -list
//	go run ./integration/explore/run -bound small
//	go run ./integration/explore/run -all
//
// It exits with 1 on a violation, with 2 on a search that was cut off. It is
// single-threaded but for the runtime.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/shoalkv/shoal/integration/explore"
)

var (
	name   = flag.String("bound", "", "the bound to search, by name")
	all    = flag.Bool("all", false, "search every bound")
	list   = flag.Bool("list", false, "list bounds and plants")
	full   = flag.Bool("full", false, "keep every committed prefix: no pruning")
	states = flag.Int("states", 0, "cut the search off at so many states; 0: never")
	live   = flag.Int("live", -1, "test one of so many states for liveness; 0: none; -1: as the bound says")
	replay = flag.String("replay", "", "take the steps of a trace, by their short names with commas between, instead of searching")
	steps  = flag.Bool("steps", false, "count the transitions by kind")
	quiet  = flag.Bool("quiet", false, "no progress")
)

func main() {
	flag.Parse()
	code := 0
	for _, b := range chosen() {
		code = max(code, search(b))
	}
	os.Exit(code)
}

func chosen() []explore.Bound {
	if *all {
		return explore.Bounds
	}
	b, ok := explore.FindBound(*name)
	if !ok {
		fmt.Fprintf(os.Stderr, "no bound is called %q; there are:\n", *name)
		for _, b := range explore.Bounds {
			fmt.Fprintf(os.Stderr, "  %s\n", b.Name)
		}
		os.Exit(64)
	}
	return []explore.Bound{b}
}

func search(b explore.Bound) int {
	b.StatesMax = *states
	if *live >= 0 {
		b.Live = *live
	}
	o := explore.Options{Full: *full}
	if !*quiet {
		o.Progress = func(r explore.Report) { fmt.Fprintf(os.Stderr, "%s\n", line(r)) }
	}
	r := explore.Run(b, o)
	fmt.Println(line(r))
	if *steps {
		for _, kind := range slices.Sorted(maps.Keys(r.Steps)) {
			fmt.Printf("  %10d %s\n", r.Steps[kind], kind)
		}
	}
	if r.Violation != nil {
		fmt.Printf("VIOLATION of %s\n", r.Violation.Text)
		for i, step := range r.Violation.Trace {
			fmt.Printf("%3d. %s\n", i+1, step)
		}
		fmt.Printf("replay: go run ./integration/explore/run -bound %s -replay %s\n", b.Name, strings.Join(r.Violation.Keys, ","))
		return 1
	}
	if !r.Complete {
		return 2
	}
	return 0
}

func line(r explore.Report) string {
	verdict := "running"
	switch {
	case r.Violation != nil:
		verdict = "VIOLATION"
	case r.Complete:
		verdict = "holds"
	}
	seconds := r.Elapsed.Seconds()
	return fmt.Sprintf("%-14s %9d states %10d transitions, depth %d, %d locals, %d tested for liveness, %.1f s, %.0f states/s, %d MiB: %s",
		r.Bound.Name, r.States, r.Transitions, r.Depth, r.Locals, r.Sampled, seconds, float64(r.States)/seconds, r.HeapBytes>>20, verdict)
}
