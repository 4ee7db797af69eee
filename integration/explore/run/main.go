// Command run searches bounds, or for planted mistakes, and prints what it
// found; docs/explorer.md explains it.
//
//	go run ./integration/explore/run -list
//	go run ./integration/explore/run -bound small
//	go run ./integration/explore/run -all
//	go run ./integration/explore/run -plant late-start
//	go run ./integration/explore/run -plants
//	go run -tags ... ./integration/explore/run -tiny -full -expect any
//
// It exits with 0 if everything turned out as expected, with 1 if not (a
// violation, or with a plant or -expect none), with 2 if a search was cut off,
// and with 64 on bad usage. It is single-threaded but for the runtime.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shoalkv/shoal/integration/explore"
)

var (
	name   = flag.String("bound", "", "the bound to search, by name")
	all    = flag.Bool("all", false, "search every bound")
	tiny   = flag.Bool("tiny", false, "search every tiny bound: with -full and -expect, for builds of the product with a mistake")
	plant  = flag.String("plant", "", "the mistake to make, by name; without -bound in a bound that shows it")
	plants = flag.Bool("plants", false, "make every mistake, each in a bound that shows it")
	list   = flag.Bool("list", false, "list bounds and plants")
	full   = flag.Bool("full", false, "keep every committed prefix: no pruning")
	prove  = flag.Bool("prove", false, "search with and without pruning and compare what is reached")
	expect = flag.String("expect", "", "expect a violation that begins so, or any: for builds of the product with a mistake")
	states = flag.Int("states", 0, "cut a search off at so many states; 0: never")
	limit  = flag.Duration("time", time.Hour, "cut a search off after so long")
	memory = flag.Uint64("memory", 8<<10, "cut a search off at so many MiB of heap")
	live   = flag.Int("live", -1, "test one of so many states for liveness; 0: none; -1: as the bound says")
	replay = flag.String("replay", "", "instead of searching take the steps of a trace, by their short names with commas between")
	steps  = flag.Bool("steps", false, "count the transitions by kind")
	quiet  = flag.Bool("quiet", false, "no progress")
)

// Exit codes.
const (
	exitUnexpected = 1
	exitCutOff     = 2
	exitUsage      = 64
)

// A task is one search.
type task struct {
	bound  explore.Bound
	plant  *explore.Plant
	full   bool
	expect string // how the violation begins; empty: there is none
}

func main() {
	flag.Parse()
	if *list {
		printList()
		return
	}
	tasks, err := chosen()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUsage)
	}
	code := 0
	for _, t := range tasks {
		do := search
		switch {
		case *replay != "":
			do = again
		case *prove:
			do = proof
		}
		got := do(t)
		code = max(code, got)
		if *expect != "" && got == 0 {
			os.Exit(0) // one bound that shows the mistake is enough
		}
	}
	os.Exit(code)
}

func printList() {
	fmt.Println("bounds:")
	for _, b := range slices.Concat(explore.Bounds, explore.TinyBounds) {
		fmt.Printf("  %-14s %d groups, %d shards, %d keys each, %d configs, %d operations, %d emptied, %d faults, %d destroyed\n",
			b.Name, b.Groups, b.Shards, b.Keys, b.Configs, len(b.Ops), b.Emptied, b.Faults, b.Destroyed)
	}
	fmt.Println("plants:")
	for _, p := range explore.Plants {
		fmt.Printf("  %-24s %s\n", p.Name, p.About)
	}
}

// chosen returns the searches that the flags ask for.
func chosen() (tasks []task, err error) {
	switch {
	case *plants:
		for _, p := range explore.Plants {
			tasks = append(tasks, planted(p))
		}
	case *plant != "":
		p, ok := explore.FindPlant(*plant)
		if !ok {
			return nil, fmt.Errorf("no plant is called %q; -list lists them", *plant)
		}
		tasks = []task{planted(p)}
	case *all, *tiny:
		bounds := explore.Bounds
		if *tiny {
			bounds = explore.TinyBounds
		}
		for _, b := range bounds {
			tasks = append(tasks, task{bound: b, full: *full, expect: *expect})
		}
	default:
		tasks = []task{{full: *full, expect: *expect}}
	}
	if *name != "" || len(tasks) == 1 && tasks[0].bound.Name == "" {
		b, ok := explore.FindBound(*name)
		if !ok {
			return nil, fmt.Errorf("no bound is called %q; -list lists them", *name)
		}
		for i := range tasks {
			tasks[i].bound = b
		}
	}
	for i := range tasks {
		tasks[i].bound.StatesMax = *states
		if *live >= 0 {
			tasks[i].bound.Live = *live
		}
	}
	return tasks, nil
}

func planted(p explore.Plant) task {
	return task{bound: p.Bound, plant: &p, full: p.Full || *full, expect: p.Catches}
}

func (t task) expects(violation string) bool {
	return t.expect == "any" || t.expect != "" && strings.HasPrefix(violation, t.expect)
}

func (t task) options() explore.Options {
	return explore.Options{Plant: t.plant, Full: t.full, TimeMax: *limit, BytesMax: *memory << 20}
}

func search(t task) int {
	o := t.options()
	begun := cpuTime()
	if !*quiet {
		o.Progress = func(r explore.Report) { fmt.Fprintln(os.Stderr, line(t, r)) }
	}
	r := explore.Run(t.bound, o)
	fmt.Printf("%s; %.1f s of CPU\n", line(t, r), (cpuTime() - begun).Seconds())
	if *steps {
		for _, kind := range slices.Sorted(maps.Keys(r.Steps)) {
			fmt.Printf("  %10d %s\n", r.Steps[kind], kind)
		}
	}
	v := r.Violation
	switch {
	case v != nil:
		fmt.Printf("  %s\n", v.Text)
		for i, step := range v.Trace {
			fmt.Printf("  %3d. %s\n", i+1, step)
		}
		fmt.Printf("  replay: %s\n", t.command(v))
		return unexpected(t.expects(v.Text))
	case !r.Complete:
		return exitCutOff
	}
	return unexpected(t.expect == "")
}

// proof compares a pruned search with a full one.
func proof(t task) int {
	pruned, full, same := explore.Prove(t.bound, t.options())
	fmt.Println(line(t, pruned))
	fmt.Println(line(t, full))
	if !pruned.Complete || !full.Complete {
		return exitCutOff
	}
	fmt.Printf("both reach the same: %v\n", same)
	return unexpected(same)
}

func unexpected(ok bool) int {
	if ok {
		return 0
	}
	return exitUnexpected
}

// command returns the command that replays a violation.
func (t task) command(v *explore.Violation) string {
	var b strings.Builder
	b.WriteString("go run ./integration/explore/run")
	if t.plant != nil {
		fmt.Fprintf(&b, " -plant %s", t.plant.Name)
	}
	fmt.Fprintf(&b, " -bound %s", t.bound.Name)
	if t.full {
		b.WriteString(" -full")
	}
	fmt.Fprintf(&b, " -replay %s", strings.Join(v.Keys, ","))
	return b.String()
}

// again replays a trace.
func again(t task) int {
	n := 0
	bad, err := explore.Replay(t.bound, t.options(), strings.Split(*replay, ","), func(step, state string) {
		n++
		fmt.Printf("%3d. %s\n%s", n, step, state)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	if bad == "" {
		fmt.Println("everything holds")
		return unexpected(t.expect == "")
	}
	fmt.Println(bad)
	return unexpected(t.expects(bad))
}

// line is a report in one line.
func line(t task, r explore.Report) string {
	what, verdict := r.Bound.Name, "running"
	if t.plant != nil {
		what = t.plant.Name
	}
	if r.Full {
		what += " (full)"
	}
	switch {
	case r.Violation != nil && t.expect != "":
		verdict = "caught"
	case r.Violation != nil:
		verdict = "VIOLATION"
	case r.Complete && t.expect != "":
		verdict = "NOT CAUGHT"
	case r.Complete:
		verdict = "holds, exhaustive"
	case r.CutOff != "":
		verdict = "cut off: " + r.CutOff
	}
	seconds := r.Elapsed.Seconds()
	return fmt.Sprintf("%-14s %9d states, %10d transitions, depth %d, %d states of groups, %d tested for liveness, %.1f s, %.0f states/s, %d MiB: %s",
		what, r.States, r.Transitions, r.Depth, r.Locals, r.Sampled, seconds, float64(r.States)/seconds, r.HeapBytes>>20, verdict)
}
