package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/shoalkv/shoal/integration/overlay"
)

// simulator runs seeds of a medium size until one fails.
var simulator = catcher{pkg: "./integration/sim/soak", program: true,
	args: []string{"-seeds=1500", "-ops=150", "-changes=4", "-handoffs=0", "-failures=1", "-shrink=false"}}

// simulated are the packages whose code the simulator runs.
var simulated = []string{"shardctrler/ctrlfsm", "shardctrler/shardcfg", "shardctrler/report",
	"shardkv/kvfsm", "shardkv/session", "shardkv/handoff", "shardkv/placement", "clerk/route"}

// simulates reports whether the simulator runs all of a bug's code.
func simulates(b bug) bool {
	return !slices.ContainsFunc(b.edits, func(e overlay.Edit) bool { return !slices.Contains(simulated, path.Dir(e.File)) })
}

// alone asks only the simulator, for every bug in the code that it runs, and
// prints what it made of them: how far does it reach without the machines' own
// tests?
func alone(ctx context.Context, f *field, all []bug, jobs int) error {
	var bugs []bug
	for _, b := range all {
		if simulates(b) {
			b.catchers = []catcher{simulator}
			bugs = append(bugs, b)
		}
	}
	found := map[string]result{}
	err := plantAll(ctx, f, bugs, jobs, func(b bug, r result, caught bool) error {
		if caught {
			found[b.name] = r
		}
		return nil
	}, true)
	if err == nil {
		fmt.Print("\n", aloneText(bugs, found))
	}
	return err
}

// aloneText is the list of the bugs, by what the simulator made of them.
func aloneText(bugs []bug, found map[string]result) string {
	var caught, missed strings.Builder
	for _, b := range bugs {
		if r, ok := found[b.name]; ok {
			_, how, _ := strings.Cut(r.by, ": ")
			fmt.Fprintf(&caught, "| %s | %s | %s |\n", b.source, cell(b.name), cell(how))
		} else {
			fmt.Fprintf(&missed, "| %s | %s |\n", b.source, cell(b.name))
		}
	}
	return fmt.Sprintf("%d of %d are noticed within 1,500 seeds of 150 operations.\n\n| Source | Bug | Noticed |\n|---|---|---|\n%s\n"+
		"The others: what the simulated callers never let happen, what costs time and not safety, and what shows only beyond its bounds. "+
		"Each is caught by a test or by the explorer ([planted.md](planted.md)).\n\n| Source | Bug |\n|---|---|\n%s",
		len(found), len(bugs), caught.String(), missed.String())
}
