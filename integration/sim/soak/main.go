// Command soak runs seeds of the simulator on all cores, or replays one.
//
//	go run ./integration/sim/soak -seeds 200000 -from 1
//	go run ./integration/sim/soak -replay 123 -v
//
// Each seed is a whole cluster's life in one thread; seeds share nothing. A seed
// that fails is shrunk, and the command that replays it is printed. Every 64th
// seed is run twice, and must give the same trace. An interrupt ends a soak with
// the summary of what was run.
//
// Row 5 of the layers.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/shoalkv/shoal/integration/sim"
)

type settings struct {
	seeds, from uint64
	replay      uint64
	verbose     bool
	options     sim.Options
	workers     int
	failuresMax int
	report      string
	shrink      bool
}

func main() {
	// Worlds are small and live for a moment: rare collections cost little memory.
	debug.SetGCPercent(800)
	s, err := parse(os.Args[1:])
	if err == nil && s.replay != 0 {
		err = replay(s)
	} else if err == nil {
		err = soak(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(args []string) (s settings, err error) {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.Uint64Var(&s.seeds, "seeds", 1000, "how many seeds to run")
	f.Uint64Var(&s.from, "from", 1, "the first seed")
	f.Uint64Var(&s.replay, "replay", 0, "replay this seed instead")
	f.BoolVar(&s.verbose, "v", false, "with -replay: print the trace")
	profile := f.String("profile", "soak", "the size of a run: small or soak")
	ops := f.Int("ops", 0, "operations of a run; 0: as the profile says")
	changes := f.Int("changes", 0, "changes of the configuration, at least; 0: as the profile says")
	handoffs := f.Int("handoffs", -1, "shards that must move, at least; -1: as the profile says")
	without := f.String("without", "", "kinds of faults to leave out, with commas between")
	f.IntVar(&s.options.Clients, "clients", 0, "clients, of one lane each; 0: as the seed draws")
	f.IntVar(&s.options.Keys, "keys", 0, "keys; 0: as the seed draws")
	bug := f.String("bug", "", "plant a bug, to see it caught")
	f.IntVar(&s.workers, "workers", runtime.GOMAXPROCS(0), "seeds at once")
	f.IntVar(&s.failuresMax, "failures", 5, "stop after so many failures")
	f.BoolVar(&s.shrink, "shrink", true, "shrink the seeds that fail")
	f.StringVar(&s.report, "o", "", "write a summary to this .json file, or into the section of this document")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	switch *profile {
	case "small":
		s.options.Size = sim.SizeSmall
	case "soak":
		s.options.Size = sim.SizeSoak
	default:
		return s, fmt.Errorf("no profile is called %q", *profile)
	}
	if *ops > 0 {
		s.options.Size.Operations = *ops
	}
	if *changes > 0 {
		s.options.Size.Changes = *changes
	}
	if *handoffs >= 0 {
		s.options.Size.HandoffsMin = *handoffs
	}
	if s.options.Without, err = sim.ParseKinds(*without); err != nil {
		return s, err
	}
	s.options.Bugs, err = sim.ParseBug(*bug)
	return s, err
}

func replay(s settings) error {
	var out io.Writer
	if s.verbose {
		out = os.Stdout
	}
	r := sim.Run(s.replay, s.options, out)
	fmt.Printf("seed %d: trace %016x, %v of virtual time\nprofile: %+v\nstats: %+v\n", s.replay, r.Trace, r.Stats.Virtual, r.Profile, r.Stats)
	if r.Failure != nil {
		return r.Failure
	}
	return nil
}

// A run collects the reports of all seeds.
type run struct {
	settings
	start time.Time
	mu    struct {
		sync.Mutex
		next    uint64
		summary summary
	}
}

func soak(s settings) error {
	r := &run{settings: s, start: time.Now()}
	r.mu.next = s.from
	var workers sync.WaitGroup
	for range s.workers {
		workers.Go(r.work)
	}
	over := make(chan struct{})
	go func() {
		workers.Wait()
		close(over)
	}()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	for running := true; running; {
		select {
		case <-interrupt:
			signal.Stop(interrupt) // a second one ends it at once
			r.end()
		case <-tick.C:
			fmt.Println(r.line())
		case <-over:
			running = false
		}
	}
	fmt.Println(r.line())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.summary.finish(r)
	fmt.Print(r.mu.summary.text())
	if err := r.mu.summary.write(s.report); err != nil {
		return err
	}
	if n := len(r.mu.summary.Failures); n > 0 {
		return fmt.Errorf("%d seeds failed", n)
	}
	return nil
}

// take returns the next seed, if there is one to run.
func (r *run) take() (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.next >= r.from+r.seeds || len(r.mu.summary.Failures) >= r.failuresMax {
		return 0, false
	}
	r.mu.next++
	return r.mu.next - 1, true
}

// end lets no more seeds begin: those that run are counted still.
func (r *run) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.next = r.from + r.seeds
}

// twiceEvery is how many seeds there are to one that is run twice.
const twiceEvery = 64

func (r *run) work() {
	for {
		seed, ok := r.take()
		if !ok {
			return
		}
		report := sim.Run(seed, r.options, nil)
		var again *sim.Report
		if seed%twiceEvery == 0 {
			second := sim.Run(seed, r.options, nil)
			again = &second
		}
		command := ""
		if report.Failure != nil {
			command = r.replayOf(seed)
		}
		r.mu.Lock()
		r.mu.summary.add(&report, again)
		if report.Failure != nil {
			f := failure{Seed: seed, Name: report.Failure.Name, Text: report.Failure.Text, Replay: command}
			r.mu.summary.Failures = append(r.mu.summary.Failures, f)
			fmt.Printf("FAIL seed %d: %v\n  %s\n", seed, report.Failure, f.Replay)
		} else if again != nil && again.Trace != report.Trace {
			f := failure{Seed: seed, Name: "replay", Text: "two runs gave two traces", Replay: fmt.Sprintf("go run ./integration/sim/soak -replay %d -v", seed)}
			r.mu.summary.Failures = append(r.mu.summary.Failures, f)
			fmt.Printf("FAIL seed %d: %s\n", seed, f.Text)
		}
		r.mu.Unlock()
	}
}

// replayOf is the command that repeats a failure.
func (r *run) replayOf(seed uint64) string {
	if !r.shrink {
		return sim.Shrunk{Seed: seed, Options: r.options}.Command()
	}
	return sim.Shrink(seed, r.options).Command()
}

// line says how far the run is.
func (r *run) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	took := time.Since(r.start)
	s := &r.mu.summary
	return fmt.Sprintf("%8v  %d seeds, %.0f/s, %d operations, %d handoffs, %d failures", took.Round(time.Second),
		s.Seeds, float64(s.Seeds)/took.Seconds(), s.Stats.Operations, s.Stats.Handoffs, len(s.Failures))
}
