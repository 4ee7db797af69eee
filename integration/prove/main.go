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
// Row 5 of the layers: it runs the go command. One goroutine.
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
	"regexp"
	"strings"
	"time"

	"github.com/shoalkv/shoal/integration/overlay"
)

// A guard is a containment with the test that fails without it.
type guard struct {
	name string
	// pkg and test are where the test is: a directory, and what -run takes.
	pkg, test string
	// edits switch the containment off.
	edits []overlay.Edit
}

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
	edited, err := overlay.Write(dir, g.edits)
	if err != nil {
		return err
	}
	without := filepath.Join(dir, "without")
	if err := g.build(ctx, without, "-overlay="+edited); err != nil {
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
