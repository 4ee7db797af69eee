package cli

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A group whose replicas all come back at other addresses refuses to run, replica by
// replica, with exit code 5 and the command that helps; after "renumber" on each of
// their directories it serves what it served before, and the controllers have its
// new addresses without being told.
func TestRenumberedGroup(t *testing.T) {
	dir := t.TempDir()
	at := freeAddresses(t, 7)
	controller, old, moved := at[0], at[1:4], at[4:7]
	c := startProcess(t, "controller", "--id", "c1", "--listen", controller, "--data", filepath.Join(dir, "c1"), "--peers", "c1="+controller)
	defer c.stop(t)
	run := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := runCLI(t, "", append([]string{"--controllers", controller}, args...)...)
		if code != want {
			t.Fatalf("%q: code %d, want %d: %s%s", args, code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	group := startGroup(t, dir, controller, old)
	waitFor(t, "the group to join", func() bool {
		code, _, _ := runCLI(t, "", "--controllers", controller, "join", "1", strings.Join(old, ","), "--wait")
		return code == 0
	})
	run(0, "put", "k", "kept", "--timeout", "30s")
	if _, stderr := run(ExitRefused, "renumber", filepath.Join(dir, "a"), peersOf(moved)); !strings.Contains(stderr, "not done") {
		t.Errorf("renumber of a running replica: %s", stderr)
	}
	for _, p := range group {
		p.stop(t)
	}

	for _, p := range startGroup(t, dir, controller, moved) {
		if code := p.wait(); code != ExitRefused || !strings.Contains(p.err.String(), "shoal renumber DIR") {
			t.Errorf("started elsewhere: code %d, %s", code, p.err.String())
		}
	}
	if _, stderr := run(ExitRefused, "join", "1", strings.Join(moved, ",")); !strings.Contains(stderr, "does not answer") {
		t.Errorf("join of a group that is down: %s", stderr)
	}
	for _, id := range groupIDs {
		run(0, "renumber", filepath.Join(dir, id), peersOf(moved))
	}

	for _, p := range startGroup(t, dir, controller, moved) {
		defer p.stop(t)
	}
	if got, _ := run(0, "get", "k", "--timeout", "30s"); got != "kept\n" {
		t.Errorf("got %q", got)
	}
	waitFor(t, "the controllers to have the new addresses", func() bool {
		config, _ := run(0, "config", "-o", "json")
		for i := range moved {
			if !strings.Contains(config, moved[i]) || strings.Contains(config, old[i]) {
				return false
			}
		}
		return true
	})
}

// groupIDs are the replicas of a group that startGroup starts.
var groupIDs = []string{"a", "b", "c"}

// peersOf is the list of the replicas of a group at addresses.
func peersOf(addresses []string) string {
	var peers []string
	for i, id := range groupIDs {
		peers = append(peers, id+"="+addresses[i])
	}
	return strings.Join(peers, ",")
}

func startGroup(t *testing.T, dir, controller string, addresses []string) (group []*process) {
	t.Helper()
	for i, id := range groupIDs {
		group = append(group, startProcess(t, "server", "--group", "1", "--id", id, "--listen", addresses[i],
			"--data", filepath.Join(dir, id), "--controllers", controller, "--peers", peersOf(addresses)))
	}
	return group
}

// freeAddresses are addresses on loopback at which nobody listened a moment ago.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// A process is the program, run by itself.
type process struct {
	cmd *exec.Cmd
	err syncBuffer
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...)}
	p.cmd.Env = append(os.Environ(), beProgram+"=1")
	p.cmd.Stderr = &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// wait waits for the process to end, and returns its exit code; -1 if a signal
// ended it.
func (p *process) wait() int {
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the process in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("%q ended with code %d: %s", p.cmd.Args[1:], code, p.err.String())
	}
}
