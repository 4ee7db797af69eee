// Command accept runs the acceptance scenarios in full and writes what it saw
// into docs/acceptance.md: scenario, command, quantity, observed, commit.
//
//	go run ./integration/accept             runs all of them
//	go run ./integration/accept S3 S6       runs two; the other rows stay
//
// Run it from the module's root. Data goes below -data, which must be on a real
// disk: nothing that runs in memory can show a missing fsync.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/integration/scenario"
)

const table = "docs/acceptance.md"

func main() {
	data := flag.String("data", "accept-data", "directory for the clusters' data, deleted after each success")
	seed := flag.Uint64("seed", 1, "fixes whom a scenario kills and what it moves")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *data, *seed, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "accept:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, data string, seed uint64, names []string) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	binary, err := cluster.Build(data)
	if err != nil {
		return err
	}
	commit, err := head()
	if err != nil {
		return err
	}
	results, err := readTable(table)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var failed error
	for _, s := range scenario.All {
		known[s.Name] = true
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		r, err := runOne(ctx, s, filepath.Join(data, s.Name), binary, seed)
		r.commit = commit
		results[s.Name] = r
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.Name, err))
		}
		if err := writeTable(table, results); err != nil {
			return err
		}
	}
	for _, name := range names {
		if !known[name] {
			failed = errors.Join(failed, fmt.Errorf("there is no scenario %q", name))
		}
	}
	return failed
}

// runOne runs one scenario in full. The data of a failed run is kept.
func runOne(ctx context.Context, s scenario.Scenario, dir, binary string, seed uint64) (result, error) {
	if err := os.RemoveAll(dir); err != nil {
		return result{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return result{}, err
	}
	start := time.Now()
	e := &scenario.Env{Scale: scenario.Full(), Binary: binary, Dir: dir, Seed: seed, Logf: func(format string, args ...any) {
		fmt.Printf("%s %6.1f s  %s\n", s.Name, time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}}
	ctx, cancel := context.WithTimeout(ctx, e.Scale.Limit)
	defer cancel()
	err := s.Run(ctx, e)
	r := result{name: s.Name, claim: s.Claim, rows: e.Observed()}
	verdict := "holds"
	if err != nil {
		verdict = "FAILS: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	r.rows = append(r.rows, scenario.Observation{Quantity: "verdict",
		Observed: fmt.Sprintf("%s (%.0f s, seed %d)", verdict, time.Since(start).Seconds(), seed)})
	fmt.Printf("%s: %s\n", s.Name, verdict)
	if err == nil {
		err = os.RemoveAll(dir)
	}
	return r, err
}

// head names the commit that is measured.
func head() (string, error) {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("git rev-parse: %w", err)
	}
	commit := strings.TrimSpace(string(out))
	changed, err := exec.Command("git", "status", "--porcelain", "--", "*.go", "go.mod").Output()
	if err != nil {
		return "", fmt.Errorf("git status: %w", err)
	}
	if len(changed) > 0 {
		commit += "+changes"
	}
	return commit, nil
}
