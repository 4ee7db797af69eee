// Command cover tells which statements of the step machines the simulator
// executes, and why it executes no others.
//
//	go run ./integration/sim/cover -seeds 8000
//
// It runs TestSeeds with the coverage of the machines' packages. Each block that
// no seed reached needs a reason, from reasons.go; one without fails the run. The
// tables go into docs/simulation.md.
//
// Row 5 of the layers.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoalkv/shoal/integration/section"
)

// machines are the packages that the simulator is there for: all that decides,
// and nothing that only carries out.
var machines = []string{
	"shardctrler/ctrlfsm", "shardctrler/shardcfg", "shardctrler/report",
	"shardkv/kvfsm", "shardkv/session", "shardkv/handoff", "shardkv/placement",
	"clerk/route",
}

const modulePath = "github.com/shoalkv/shoal/"

func main() {
	seeds := flag.Int("seeds", 8000, "how many seeds to run")
	profile := flag.String("profile", "", "read this coverage profile, and run nothing")
	out := flag.String("o", "docs/simulation.md", "the document whose tables to replace; empty: none")
	verbose := flag.Bool("v", false, "print every block that no seed reached, with its reason")
	flag.Parse()
	if err := run(*seeds, *profile, *out, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1)
	}
}

func run(seeds int, profile, out string, verbose bool) error {
	if profile == "" {
		dir, err := os.MkdirTemp("", "shoal-cover-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		profile = filepath.Join(dir, "profile")
		if err := simulate(seeds, profile); err != nil {
			return err
		}
	}
	blocks, err := readProfile(profile)
	if err != nil {
		return err
	}
	r, err := explain(blocks)
	if err != nil {
		return err
	}
	text := r.text(seeds)
	fmt.Print(text)
	if verbose {
		r.list(os.Stdout)
	}
	if n := len(r.unexplained); n > 0 {
		return fmt.Errorf("%d blocks were not reached, and have no reason:\n%s", n, strings.Join(r.unexplained, "\n"))
	}
	if out == "" {
		return nil
	}
	return section.Write(out, "coverage", text)
}

// simulate runs the seeds and leaves the profile.
func simulate(seeds int, profile string) error {
	packages := "./" + strings.Join(machines, ",./")
	cmd := exec.Command("go", "test", "-count=1", "-timeout=0", "-coverprofile="+profile, "-coverpkg="+packages,
		"./integration/sim", "-run=TestSeeds", "-args", "-seeds="+strconv.Itoa(seeds))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// A block is a run of statements without a branch.
type block struct {
	file       string // below the module's root
	from, to   int    // lines
	statements int
	reached    bool
}

// readProfile reads lines of the form
//
//	file.go:from.column,to.column statements count
func readProfile(name string) (blocks []block, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if strings.HasPrefix(line, "mode:") {
			continue
		}
		file, rest, _ := strings.Cut(line, ":")
		var n block
		var fromColumn, toColumn, count int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &n.from, &fromColumn, &n.to, &toColumn, &n.statements, &count); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", name, line, err)
		}
		n.file, n.reached = strings.TrimPrefix(file, modulePath), count > 0
		blocks = append(blocks, n)
	}
	return blocks, nil
}
