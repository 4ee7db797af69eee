// Command plant plants known bugs in the product, one at a time, and asks the
// tests, the explorer and the simulator to notice: a check counts only if it
// fails where it should. A bug is a text of a source file and what it becomes;
// the build's overlay puts it in, so that neither the tree nor any release ever
// contains one.
//
//	go run ./integration/plant                     plants every bug; writes docs/planted.md
//	go run ./integration/plant -only 'freeze|h$'   some of them; the other rows stay
//	go run ./integration/plant -only '^client:'    those of one source
//	go run ./integration/plant -list               names them
//	go run ./integration/plant -alone              asks the simulator alone; writes nothing
//
// Run it from the module's root. It exits with 1 if nothing notices a bug, if a
// text is not found exactly once any more, if a bug does not compile, or if a
// catcher fails without any bug.
//
// The lists are in the files bugs_*.go, one for each source. Row 5 of the
// layers: it runs the go command. One goroutine for each of -jobs bugs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	table = "docs/planted.md"
	// bugLimit bounds one bug: all of its catchers and their builds.
	bugLimit = 10 * time.Minute
)

func main() {
	only := flag.String("only", "", "plant only bugs for which \"source: name\" matches this expression")
	list := flag.Bool("list", false, "list the bugs and plant none")
	bySimulator := flag.Bool("alone", false, "ask the simulator alone, for the bugs in the code that it runs")
	jobs := flag.Int("jobs", 1, "how many bugs to try at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *list, *bySimulator, *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "plant:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, list, bySimulator bool, jobs int) error {
	matches, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	all := everything()
	var chosen []bug
	for _, b := range all {
		if matches.MatchString(b.source + ": " + b.name) {
			chosen = append(chosen, b)
		}
	}
	if list {
		for _, b := range chosen {
			fmt.Printf("%-20s %-55s %s\n", b.source, b.name, b.edits[0].File)
		}
		return nil
	}
	commit, err := head()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "plant-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if bySimulator {
		return alone(ctx, &field{dir: dir}, chosen, max(jobs, 1))
	}
	// Each row is written at once, so that a run that is cut short is not lost; a
	// bug that was chosen and not caught loses its row.
	return plantAll(ctx, &field{dir: dir}, chosen, max(jobs, 1), func(b bug, r result, caught bool) error {
		rows, err := readTable(table)
		if err != nil {
			return err
		}
		delete(rows, b.name)
		if r.commit = commit; caught {
			rows[b.name] = r
		}
		return writeTable(table, all, rows)
	}, false)
}

// plantAll tries every bug and hands over what came of each, one at a time. May
// miss says that a bug that nothing notices is no failure.
func plantAll(ctx context.Context, f *field, bugs []bug, jobs int, note func(b bug, r result, caught bool) error, mayMiss bool) error {
	var (
		mu     sync.Mutex
		failed error
		work   = make(chan bug)
		ended  sync.WaitGroup
	)
	for range jobs {
		ended.Go(func() {
			for b := range work {
				r, err := f.try(ctx, b)
				mu.Lock()
				if err == nil {
					fmt.Printf("%-55s %6.1f s  %s\n", b.name, r.seconds, r.by)
				} else if mayMiss && errors.Is(err, errUncaught) {
					fmt.Printf("%-55s not noticed\n", b.name)
				} else {
					failed = errors.Join(failed, fmt.Errorf("%s: %w", b.name, err))
					fmt.Printf("%-55s NOT CAUGHT: %v\n", b.name, err)
				}
				if ctx.Err() == nil {
					failed = errors.Join(failed, note(b, r, err == nil))
				}
				mu.Unlock()
			}
		})
	}
	for _, b := range bugs {
		if ctx.Err() == nil {
			work <- b
		}
	}
	close(work)
	ended.Wait()
	return errors.Join(failed, ctx.Err())
}

// head names the commit that is tried.
func head() (string, error) {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "", fmt.Errorf("git rev-parse: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
