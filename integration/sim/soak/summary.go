package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/shoalkv/shoal/integration/section"
	"github.com/shoalkv/shoal/integration/sim"
)

// A failure is a seed that failed.
type failure struct {
	Seed               uint64
	Name, Text, Replay string
}

// A summary is what a soak found.
type summary struct {
	From, Seeds    uint64
	Twice          int // seeds that were run twice, with equal traces
	Took           time.Duration
	SeedsPerSecond float64
	Machine        string
	// OperationsMin and HandoffsMin are what every seed did, at least, before its
	// faults stopped. A seed that does less than its size says has failed.
	OperationsMin, HandoffsMin int
	Stats                      sim.Stats
	// Happened counts faults by kind; With, the seeds that had any of a kind.
	Happened, With map[string]int
	Failures       []failure
}

func (s *summary) add(r *sim.Report, again *sim.Report) {
	if s.Happened == nil {
		s.Happened, s.With = map[string]int{}, map[string]int{}
		s.OperationsMin, s.HandoffsMin = r.Stats.Worked.Operations, r.Stats.Worked.Handoffs
	}
	s.Seeds++
	s.Stats.Add(&r.Stats)
	s.OperationsMin = min(s.OperationsMin, r.Stats.Worked.Operations)
	s.HandoffsMin = min(s.HandoffsMin, r.Stats.Worked.Handoffs)
	for k, n := range r.Stats.Happened {
		s.Happened[sim.Kind(k).String()] += n
		if n > 0 {
			s.With[sim.Kind(k).String()]++
		}
	}
	if again != nil && again.Trace == r.Trace {
		s.Twice++
	}
}

func (s *summary) finish(r *run) {
	s.From = r.from
	s.Took = time.Since(r.start).Round(time.Millisecond)
	s.SeedsPerSecond = float64(s.Seeds) / s.Took.Seconds()
	s.Machine = fmt.Sprintf("%d cores, %s, %s/%s", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// text is the summary in Markdown.
func (s *summary) text() string {
	var b strings.Builder
	row := func(name string, value any) { fmt.Fprintf(&b, "| %s | %v |\n", name, value) }
	b.WriteString("\n| Simulation | |\n|---|---|\n")
	row("seeds", fmt.Sprintf("%d, from %d", s.Seeds, s.From))
	row("failures", len(s.Failures))
	row("run twice, equal traces", s.Twice)
	row("time", fmt.Sprintf("%v, %.1f seeds/s (%s)", s.Took.Round(time.Second), s.SeedsPerSecond, s.Machine))
	row("virtual time", s.Stats.Virtual.Round(time.Second))
	row("events", s.Stats.Events)
	row("operations", fmt.Sprintf("%d, at least %d a seed", s.Stats.Operations, s.OperationsMin))
	row("- answered / not done / unknown", fmt.Sprintf("%d / %d / %d", s.Stats.Done, s.Stats.NotDone, s.Stats.Unknown))
	row("- repeats answered from a record", s.Stats.Repeats)
	row("- sessions refused for their age", s.Stats.Expired)
	row("- scans / their pages", fmt.Sprintf("%d / %d", s.Stats.Scans, s.Stats.Pages))
	row("handoffs", fmt.Sprintf("%d, at least %d a seed", s.Stats.Handoffs, s.HandoffsMin))
	row("- shards installed / stagings discarded", fmt.Sprintf("%d / %d", s.Stats.Installs, s.Stats.Discards))
	row("configurations", s.Stats.Configs)
	row("- groups joined, or their weights or replicas changed", s.Stats.Joins)
	row("- shards pinned or let go", s.Stats.Pins)
	row("groups drained / reborn", fmt.Sprintf("%d / %d", s.Stats.Drained, s.Stats.Reborn))
	row("shards repaired after groups were destroyed / of which writes were lost", fmt.Sprintf("%d / %d", s.Stats.Repairs, s.Stats.Lossy))
	row("elections", s.Stats.Elections)
	row("crashes of replicas", s.Stats.Crashes)
	row("replicas that stopped because their disk failed", s.Stats.DiskStops)
	row("entries replayed after crashes", s.Stats.Replayed)
	row("rests, for work that lagged", s.Stats.Rests)
	b.WriteString("\n| Fault | What it is | Happened | In seeds |\n|---|---|---:|---:|\n")
	for _, k := range sim.AllKinds() {
		fmt.Fprintf(&b, "| %v | %s | %d | %d |\n", k, k.Text(), s.Happened[k.String()], s.With[k.String()])
	}
	for _, f := range s.Failures {
		fmt.Fprintf(&b, "\nSeed %d: %s: %s\n\n    %s\n", f.Seed, f.Name, f.Text, f.Replay)
	}
	return b.String()
}

// write writes the summary to a file as JSON, or into the section of a document.
func (s *summary) write(file string) error {
	switch {
	case file == "":
		return nil
	case strings.HasSuffix(file, ".json"):
		content, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(file, content, 0o644)
	}
	return section.Write(file, "soak", s.text())
}
