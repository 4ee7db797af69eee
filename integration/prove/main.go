// Command prove switches the containments of raftgroup off, one at a time, and
// checks that the test of each fails then: a test that passes without what it
// guards proves nothing. docs/containments.md says what each one is for.
//
//	go run ./integration/prove            all of them
//	go run ./integration/prove -run Vote  those whose name matches
//
// A containment is switched off by an overlay of the go command, so that no build
// of the product can lack one. Run it from the module's root.
//
// It may run the go command, and imports nothing of the product. One goroutine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A guard is a containment with the test that fails without it.
type guard struct {
	name string
	// pkg and test are where the test is: a directory, and what -run takes.
	pkg, test string
	// edits switch the containment off.
	edits []edit
}

// An edit replaces text, which the file must contain exactly once.
type edit struct{ file, text, without string }

// testLimit bounds one test; one that hangs has failed.
const testLimit = time.Minute

func main() {
	run := flag.String("run", "", "a regular expression: only guards whose name matches")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := prove(ctx, *run); err != nil {
		fmt.Fprintln(os.Stderr, "prove:", err)
		os.Exit(1)
	}
}

func prove(ctx context.Context, pattern string) error {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "prove-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	unproven, count := 0, 0
	sound := map[string]string{}
	for _, g := range guards {
		if !match.MatchString(g.name) {
			continue
		}
		count++
		if err := g.prove(ctx, dir, sound); err != nil {
			unproven++
			fmt.Printf("NOT PROVEN  %s: %v\n", g.name, err)
		} else {
			fmt.Printf("proven      %s: %s %s\n", g.name, g.pkg, g.test)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Printf("%d of %d guards proven\n", count-unproven, count)
	if unproven > 0 || count == 0 {
		return errors.New("a guard is not proven, or none was named")
	}
	return nil
}

// prove runs the guard's test with the containment, where it must pass, and
// without it, where it must fail. sound keeps the tests of each package as they
// are, built once.
func (g *guard) prove(ctx context.Context, dir string, sound map[string]string) error {
	if sound[g.pkg] == "" {
		binary := filepath.Join(dir, strings.ReplaceAll(g.pkg, "/", "_"))
		if err := g.build(ctx, binary); err != nil {
			return err
		}
		sound[g.pkg] = binary
	}
	out, err := g.runTest(ctx, sound[g.pkg])
	if err != nil || strings.Contains(out, "no tests to run") {
		return fmt.Errorf("the test does not pass with the containment: %v\n%s", err, out)
	}
	overlay, err := g.overlay(dir)
	if err != nil {
		return err
	}
	without := filepath.Join(dir, "without")
	if err := g.build(ctx, without, "-overlay="+overlay); err != nil {
		return err
	}
	_, err = g.runTest(ctx, without)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return errors.New("the test passes without the containment")
	case !errors.As(err, &exit):
		return err
	}
	return nil
}

// build builds the tests of the guard's package.
func (g *guard) build(ctx context.Context, binary string, flags ...string) error {
	args := append([]string{"test", "-c", "-o", binary}, append(flags, "./"+g.pkg)...)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("it does not compile: %w\n%s", err, out)
	}
	return nil
}

func (g *guard) runTest(ctx context.Context, binary string) (string, error) {
	command := exec.CommandContext(ctx, binary, "-test.timeout="+testLimit.String(), "-test.run="+g.test)
	command.Dir = filepath.FromSlash(g.pkg)
	out, err := command.CombinedOutput()
	return string(out), err
}

// overlay writes the sources without the containment into dir, and returns the
// file that tells the go command to use them.
func (g *guard) overlay(dir string) (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	sources := map[string]string{}
	for _, e := range g.edits {
		path := filepath.Join(root, filepath.FromSlash(e.file))
		source, ok := sources[path]
		if !ok {
			content, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			source = string(content)
		}
		if n := strings.Count(source, e.text); n != 1 {
			return "", fmt.Errorf("%s has %q %d times, not once: update the table", e.file, e.text, n)
		}
		sources[path] = strings.Replace(source, e.text, e.without, 1)
	}
	replace := map[string]string{}
	for path, source := range sources {
		name := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(name, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[path] = name
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}
