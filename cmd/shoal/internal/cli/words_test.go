package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// familiesIn returns the families that a message names: what it says is known of
// a write or a change.
func familiesIn(message string) (found []string) {
	for _, family := range []string{"not done", "outcome unknown", "done; not settled yet", "done in part"} {
		if strings.Contains(message, family) {
			found = append(found, family)
		}
	}
	return found
}

// A wording is one command line with what it must come to in a situation.
type wording struct {
	command string
	code    int
	says    string // in stderr
}

// without is every command that needs a cluster; %s stands for an address, and
// $FILES for a directory with one file. What changes nothing may name no family.
var without = []string{
	"get k", "put k v", "append k v", "delete k", "scan", "locate k", "import $FILES", "export $FILES/out",
	"join 2 %s", "join 2 %s --wait", "leave 1", "leave 1 --wait", "move 0 1", "move 0 1 --wait", "unpin 0", "retire 1 --destroyed", "repair", "repair --plan",
	"rebalance pause", "rebalance status", "replicas 1", "replicas 1 add %s", "replicas 1 remove g1a", "replicas 1 replace g1a %s",
	"replicas controller", "replicas controller add %s", "replicas controller remove c1 --wait --wait-timeout 1s",
	"config", "status", "shards", "health", "bench --duration 100ms", "bench clean", "check --duration 100ms",
}

// Every command that needs a cluster is in the list, so that no new one is
// forgotten.
func TestEveryCommandIsWorded(t *testing.T) {
	// Those that run without a cluster.
	none := map[string]bool{"help": true, "completion": true, "version": true, "dev": true, "controller": true, "server": true,
		"salvage": true, "reform": true, "renumber": true}
	for _, c := range (&app{}).root().Commands() {
		listed := none[c.Name()]
		for _, command := range without {
			listed = listed || strings.HasPrefix(command+" ", c.Name()+" ")
		}
		if !listed {
			t.Errorf("%s is not in the list", c.Name())
		}
	}
}

// Where no controller answers, nothing was done, and every command says so, with
// another way in. Nothing was done for a context that has ended before, either.
func TestWordsWithoutControllers(t *testing.T) {
	t.Parallel()
	files := wordingFiles(t)
	for _, command := range without {
		args := append([]string{"--controllers", "127.0.0.1:1", "--timeout", "300ms"}, wordingArgs(command, files, "127.0.0.1:2")...)
		code, stdout, stderr := runCLI(t, "", args...)
		if command == "health" {
			if code != ExitUnavailable {
				t.Errorf("health: code %d, %s", code, stderr)
			}
			continue
		}
		if found := familiesIn(stderr); code != ExitUnavailable || stdout != "" || len(found) != 1 || found[0] != "not done" ||
			!strings.Contains(stderr, "--seeds names replicas to ask instead") {
			t.Errorf("%s: code %d, %q, %s", command, code, stdout, stderr)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if code, stderr := runEnded(ended, args); code != ExitFailed || strings.Join(familiesIn(stderr), ",") != "not done" || !strings.Contains(stderr, "interrupted") {
			t.Errorf("%s, cancelled: code %d, %s", command, code, stderr)
		}
	}
}

// Where no group has joined, commands on data fail at once and say how to add one;
// the others say what is there.
func TestWordsWithoutGroups(t *testing.T) {
	t.Parallel()
	files, address := wordingFiles(t), startController(t)
	for _, c := range []wording{
		{"get k", 3, "no group has joined"}, {"put k v", 3, "not done: no group has joined"}, {"append k v", 3, "not done: no group has joined"},
		{"delete k", 3, "not done: no group has joined"}, {"scan", 3, "shoal join GID"}, {"locate k", 3, "shoal join GID"},
		{"import $FILES", 3, "not done: no group has joined"}, {"export $FILES/out", 3, "no group has joined"},
		{"bench --duration 100ms", 3, "shoal join GID"}, {"check --duration 100ms", 3, "shoal join GID"},
		{"join 2 127.0.0.1:2", 5, "join: not done: refused"}, {"leave 1", 4, "leave: not done: refused"}, {"move 0 1", 4, "move: not done: refused"},
		{"unpin 0", 0, ""}, {"retire 1 --destroyed", 4, "retire: not done"}, {"repair --plan", 0, ""}, {"rebalance status", 0, ""},
		{"replicas 1", 4, "not done: group 1 is not in the configuration"}, {"replicas 1 remove g1a", 4, "not done: group 1 is not in the configuration"},
		{"replicas controller remove c1", 5, "remove: not done: refused"}, {"replicas controller add 127.0.0.1:2 --wait --wait-timeout 1s", 3, "replica at 127.0.0.1:2 does not answer: dial tcp 127.0.0.1:2: connect: connection refused"},
		{"config", 0, ""}, {"status", 0, ""}, {"shards", 0, ""},
	} {
		began := time.Now()
		code, _, stderr := runCLI(t, "", append([]string{"--controllers", address, "--timeout", "1m"}, wordingArgs(c.command, files, "")...)...)
		if code != c.code || !strings.Contains(stderr, c.says) || code == 0 && stderr != "" || len(familiesIn(stderr)) > 1 {
			t.Errorf("%s: code %d, %s; want code %d, %q", c.command, code, stderr, c.code, c.says)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s took %v", c.command, took)
		}
	}
	if _, err := os.Stat(filepath.Join(files, "out")); !os.IsNotExist(err) {
		t.Errorf("the export wrote something: %v", err)
	}
}

// A wait that ends early is over a change that is done, and says so with how many
// shards are on their way; what is refused is not done, and the configuration is
// the one before.
func TestWordsOfWaits(t *testing.T) {
	t.Parallel()
	d := startDev(t, "--listen", "127.0.0.1:0", "--groups", "1", "--replicas", "1", "--controller-replicas", "1", "--shards", "16")
	spare, member := d.addresses()["g2a"], d.addresses()["g1a"]
	d.ok(t, "put", "k", "v")
	d.ok(t, "rebalance", "pause")
	for _, c := range []struct {
		wording
		changes bool
	}{
		{wording{"leave 1", 5, "leave: not done: refused"}, false},
		{wording{"join 1 " + spare, 5, "join: not done: refused"}, false},
		{wording{"retire 1 --destroyed", 5, "retire: not done: refused"}, false},
		{wording{"replicas 1 remove g1a", 5, "remove: not done: refused"}, false},
		{wording{"replicas 1 add " + spare, 5, "add: not done: "}, false},
		{wording{"replicas 1 replace nobody " + spare, 5, "replace: not done: "}, false},
		{wording{"replicas 1 replace nobody 127.0.0.1:1", 4, `replace: not done: no member has the id "nobody" (the members are g1a), and the replica at 127.0.0.1:1 does not answer`}, false},
		{wording{"replicas 1 add 127.0.0.1:1 --wait --wait-timeout 1s", 3, "replica at 127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused"}, false},
		{wording{"replicas 1 add " + d.addresses()["c1"], 5, "belongs to the controllers' group, this is group 1"}, false},
		{wording{"put k x --if-absent", 4, "version mismatch"}, false},
		{wording{"join 2 " + spare + " --wait --wait-timeout -1s", 2, "--wait-timeout is -1s: it must not be negative"}, false},
		{wording{"join 2 " + spare + " --wait --wait-timeout 1s", 3, "join: done; not settled yet: 8 shards on their way: the wait timed out ('shoal status' says what they wait for)"}, true},
		{wording{"join 2 " + spare + " --wait --wait-timeout 500ms", 3, "join: done; not settled yet: 8 shards on their way: the wait timed out"}, false},
		{wording{"move 0 2 --wait --wait-timeout 500ms", 3, "move: done; not settled yet: 9 shards on their way: the wait timed out"}, true},
		{wording{"move 0 2 --wait --wait-timeout 1ns", 3, "move: done; not settled yet: how many shards are on their way is not known: the wait timed out"}, false},
		{wording{"unpin 0 --wait --wait-timeout 500ms", 3, "unpin: done; not settled yet: 8 shards on their way: the wait timed out"}, true},
		{wording{"leave 2 --wait --wait-timeout 0s --timeout 1ns", 3, "leave: not done: "}, false},
		{wording{"leave 1 --wait --wait-timeout 500ms", 3, "leave: done; not settled yet: 16 shards on their way, 1 group leaving: the wait timed out"}, true},
		{wording{"leave 1 --wait --wait-timeout 500ms", 3, "leave: done; not settled yet: 16 shards on their way, 1 group leaving: the wait timed out"}, false},
		{wording{"move 3 1", 5, "move: not done: refused"}, false},
		{wording{"repair --wait --wait-timeout 500ms", 3, "repair: done; not settled yet: 16 shards on their way: the wait timed out"}, false},
		{wording{"join 1 " + member + " --wait --wait-timeout 500ms", 3, "join: done; not settled yet: 8 shards on their way: the wait timed out ('shoal status' says what they wait for)"}, true},
	} {
		before := d.configNum(t)
		code, _, stderr := runCLI(t, "", append([]string{"--controllers", d.controllers}, strings.Fields(c.command)...)...)
		if code != c.code || !strings.Contains(stderr, c.says) || len(familiesIn(stderr)) > 1 {
			t.Errorf("%s: code %d, %s; want code %d, %q", c.command, code, stderr, c.code, c.says)
		}
		if changed := d.configNum(t) != before; changed != c.changes {
			t.Errorf("%s: the configuration changed: %v; %s", c.command, changed, stderr)
		}
	}
	d.interruptedWaits(t)
	d.ok(t, "rebalance", "resume")
	if got := d.ok(t, "leave", "2", "--wait"); !regexp.MustCompile(`(?m)^done: 8 shards, [0-9.]+ \w+, [0-9.]+ s; nothing is left on group 2$`).MatchString(got) {
		t.Errorf("leave: %s", got)
	}
	if got := d.ok(t, "get", "k"); got != "v\n" {
		t.Errorf("get: %q", got)
	}
	d.shortDeadlines(t)
	d.stop(t)
}

// interruptedWaits checks what is said of a wait that the user interrupts.
func (d *devRun) interruptedWaits(t *testing.T) {
	for _, command := range []string{"move 9 1 --wait", "leave 2 --wait"} {
		ctx, interrupt := context.WithCancel(t.Context())
		before := d.configNum(t)
		go func() {
			waitFor(t, command+" to be made", func() bool { return d.configNum(t) != before })
			interrupt()
		}()
		code, stderr := runEnded(ctx, append([]string{"--controllers", d.controllers}, strings.Fields(command)...))
		verb, _, _ := strings.Cut(command, " ")
		if code != ExitFailed || !strings.Contains(stderr, verb+": done; not settled yet: ") || !strings.Contains(stderr, ": the wait was interrupted") {
			t.Errorf("%s, interrupted: code %d, %s", command, code, stderr)
		}
		interrupt()
	}
	d.ok(t, "join", "2", d.addresses()["g2a"])
}

// shortDeadlines checks the family of writes that run into their deadlines: what
// is not done is never there.
func (d *devRun) shortDeadlines(t *testing.T) {
	for i := range 40 {
		key, timeout := fmt.Sprintf("deadline/%d", i), time.Duration(i)*150*time.Microsecond+1
		code, _, stderr := runCLI(t, "", "put", key, "v", "--timeout", timeout.String(), "--controllers", d.controllers)
		families := familiesIn(stderr)
		if code == 0 != (len(families) == 0) || code != 0 && (code != ExitUnavailable || len(families) != 1) {
			t.Fatalf("timeout %v: code %d, %s", timeout, code, stderr)
		}
		got, _, _ := runCLI(t, "", "get", key, "--controllers", d.controllers)
		if there := got == 0; there != (code == 0) && families[0] != "outcome unknown" {
			t.Errorf("timeout %v: the key is there: %v, though %s", timeout, there, stderr)
		}
	}
}

// configNum is the number of the latest configuration.
func (d *devRun) configNum(t *testing.T) uint64 {
	t.Helper()
	var config struct {
		Num uint64 `json:"num"`
	}
	if err := json.Unmarshal([]byte(d.ok(t, "config", "-o", "json")), &config); err != nil {
		t.Fatal(err)
	}
	return config.Num
}

// wordingFiles makes a directory with one file.
func wordingFiles(t *testing.T) string {
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "k"), []byte("v"), 0o600); err != nil {
		t.Fatal(err)
	}
	return files
}

func wordingArgs(command, files, address string) []string {
	return strings.Fields(strings.NewReplacer("%s", address, "$FILES", files).Replace(command))
}

// runEnded runs a command under a context that ends.
func runEnded(ctx context.Context, args []string) (code int, stderr string) {
	var out, err syncBuffer
	code = Run(ctx, Environment{Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err, Lookup: lookup(nil), Program: "shoal"})
	return code, err.String()
}

// startController runs a controller of one, which no group has joined, until the
// test ends.
func startController(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		code, stderr := runEnded(ctx, []string{"controller", "--id", "c1", "--listen", address, "--data", t.TempDir(), "--peers", "c1=" + address, "--shards", "16"})
		if code != 0 {
			t.Errorf("controller: code %d, %s", code, stderr)
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	waitFor(t, "the controller to lead", func() bool {
		code, _, _ := runCLI(t, "", "config", "--controllers", address)
		return code == 0
	})
	return address
}
