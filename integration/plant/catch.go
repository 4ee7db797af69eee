package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/shoalkv/shoal/integration/overlay"
)

// A catcher is a command that fails where it notices a bug: the tests of one
// package, or a program such as the explorer.
type catcher struct {
	pkg  string
	args []string
	// program says that pkg is a program, which exits with 1 if it found
	// something; else its tests are run.
	program bool
}

// catcherLimit bounds one run of a catcher. Whatever hangs has noticed.
const catcherLimit = 3 * time.Minute

// tests are tests of a package that match an expression; empty: all.
func tests(pkg, run string, args ...string) catcher {
	all := []string{"-test.failfast", "-test.timeout=2m"}
	if run != "" {
		all = append(all, "-test.run="+run)
	}
	return catcher{pkg: pkg, args: append(all, args...)}
}

// properties are tests that use rapid: from one seed, so that the table can be
// repeated, without its search for the smallest failure, and without notes of
// failures that are wanted here.
func properties(pkg, run string) catcher {
	return tests(pkg, run, "-rapid.seed=1", "-rapid.checks=1000", "-rapid.nofailfile", "-rapid.shrinktime=0s")
}

// explorer searches all states of one of its bounds.
func explorer(bound string) catcher {
	return catcher{pkg: "./integration/explore/run", program: true, args: []string{"-quiet", "-bound", bound}}
}

// The catchers that several bugs share.
var (
	machine  = properties("./shardkv/kvfsm", "")
	sessions = properties("./shardkv/session", "")
	world    = tests("./shardkv/handoff", "")
	states   = explorer("small")

	controller = properties("./shardctrler/ctrlfsm", "")
	assignment = properties("./shardctrler/shardcfg", "")
	routing    = properties("./clerk/route", "")
	client     = tests("./clerk", "")
	judge      = tests("./integration/history", "")
)

// String is the catcher as it stands in the table.
func (c catcher) String() string {
	name := strings.TrimPrefix(c.pkg, "./")
	if c.program {
		return name + " " + strings.Join(c.args[1:], " ")
	}
	return name
}

// A field is where bugs are planted.
type field struct {
	dir string
	mu  sync.Mutex
	// sound are catchers that were run without a bug, and what came of it.
	sound map[string]error
}

// A result is how a bug was caught.
type result struct {
	by, commit string
	seconds    float64
}

// errUncaught says that no catcher noticed a bug.
var errUncaught = errors.New("nothing notices")

// try plants one bug and asks its catchers.
func (f *field) try(ctx context.Context, b bug) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, bugLimit)
	defer cancel()
	begun := time.Now()
	dir, err := os.MkdirTemp(f.dir, "bug-*")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	edited, err := overlay.Write(dir, b.edits)
	if err != nil {
		return result{}, err
	}
	for _, c := range b.catchers {
		checking := time.Now()
		if err := f.check(ctx, c); err != nil {
			return result{}, fmt.Errorf("without the bug, %s: %w", c, err)
		}
		begun = begun.Add(time.Since(checking)) // it is not the bug's time
		what, err := c.run(ctx, dir, edited)
		if err != nil {
			return result{}, fmt.Errorf("%s: %w", c, err)
		}
		if what != "" {
			return result{by: c.String() + ": " + what, seconds: time.Since(begun).Seconds()}, nil
		}
	}
	return result{}, errUncaught
}

// check runs a catcher without a bug, once.
func (f *field) check(ctx context.Context, c catcher) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := c.pkg + " " + strings.Join(c.args, " ")
	if err, known := f.sound[key]; known {
		return err
	}
	dir, err := os.MkdirTemp(f.dir, "sound-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	what, err := c.run(ctx, dir, "")
	if err == nil && what != "" {
		err = fmt.Errorf("it fails anyhow: %s", what)
	}
	if f.sound == nil {
		f.sound = map[string]error{}
	}
	f.sound[key] = err
	return err
}

// run builds the catcher with an overlay, if edited names one, runs it, and says what it
// noticed; empty: nothing. What does not compile is an error: nobody noticed it.
func (c catcher) run(ctx context.Context, dir, edited string) (noticed string, err error) {
	binary := filepath.Join(dir, "catcher")
	// Debugging information would take most of the linker's time.
	build := []string{"test", "-c", "-ldflags=-s -w", "-o", binary}
	if c.program {
		build = []string{"build", "-o", binary}
	}
	if edited != "" {
		build = append(build, "-overlay", edited)
	}
	if out, err := exec.CommandContext(ctx, "go", append(build, c.pkg)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not compile: %w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, catcherLimit)
	defer cancel()
	command := exec.CommandContext(ctx, binary, c.args...)
	if !c.program {
		command.Dir = c.pkg
	}
	if edited != "" {
		// What a test builds has the bug as well.
		command.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+edited)
	}
	command.WaitDelay = time.Second
	out, err := command.CombinedOutput()
	text := string(out)
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(text, "no tests to run"):
		return "", errors.New("there are no such tests: update the list")
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "it hangs", nil
	case !errors.As(err, &exit):
		return "", err
	case c.program && exit.ExitCode() != 1 && !strings.Contains(text, "\ngoroutine "):
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return symptom(text), nil
}

var (
	failure    = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	failedSeed = regexp.MustCompile(`(?m)^FAIL (seed \d+: [^:\n]+)`)
)

// symptom names the innermost test that failed, or how a program ended.
func symptom(out string) string {
	if m := failedSeed.FindStringSubmatch(out); m != nil {
		return m[1]
	}
	found := failure.FindAllStringSubmatch(out, -1)
	name := ""
	for _, m := range found {
		if name == "" || strings.HasPrefix(m[1], name+"/") {
			name = m[1]
		}
	}
	switch {
	case strings.Contains(out, "panic: test timed out"):
		return "it hangs"
	case name != "":
		return name
	case strings.Contains(out, "panic: "):
		return "panic"
	}
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "VIOLATION of "); ok {
			return "violation of " + strings.TrimSpace(rest)
		}
	}
	return "exit"
}
