package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestMain lets this test's executable be the program, so that a dev cluster of
// processes can be tested without building one.
func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		if os.Getenv(panicSoon) != "" {
			go func() { panic("a fault in the background") }()
		}
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

const (
	beProgram = "CLI_TEST_BE_PROGRAM"
	// panicSoon makes the program panic in a goroutine of its own.
	panicSoon = "CLI_TEST_PANIC"
)

// The data and administration commands print what the contract says, from an
// empty store to a group that joined and left; and the data outlives the
// cluster that is stopped and started again.
func TestTranscripts(t *testing.T) {
	data, files := filepath.Join(t.TempDir(), "data"), t.TempDir()
	args := []string{"--data", data, "--listen", "127.0.0.1:0", "--groups", "1", "--replicas", "1", "--controller-replicas", "1", "--shards", "16"}
	d := startDev(t, args...)
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			switch td.Cmd {
			case "shoal":
				var stdin string
				td.MaybeScanArgs(t, "stdin", &stdin)
				return d.transcript(t, stdin, strings.ReplaceAll(td.Input, "$FILES", files), files)
			case "file":
				path := filepath.Join(files, td.CmdArgs[0].Key)
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					td.Fatalf(t, "%v", err)
				}
				if err := os.WriteFile(path, []byte(td.Input), 0o666); err != nil {
					td.Fatalf(t, "%v", err)
				}
				return ""
			case "stop":
				d.stop(t)
				return ""
			case "start":
				d = startDev(t, args...)
				return ""
			}
			td.Fatalf(t, "unknown directive %s", td.Cmd)
			return ""
		})
	})
	d.stop(t)
}

// In a cluster of processes a killed replica stays dead, the store goes on, and
// "dev restart" brings it back; ending the cluster ends every process.
func TestProcesses(t *testing.T) {
	t.Setenv(beProgram, "1")
	data := filepath.Join(t.TempDir(), "data")
	d := startDev(t, "--processes", "--data", data, "--listen", "127.0.0.1:0", "--groups", "1", "--spare-groups", "0",
		"--controller-replicas", "1", "--shards", "16")
	d.ok(t, "put", "k", "before")
	leader := regexp.MustCompile(`"leader":"([^"]+)"`).FindStringSubmatch(d.ok(t, "replicas", "1", "-o", "json"))[1]
	id, pid := d.replicaAt(t, leader)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.ok(t, "put", "k", "after", "--timeout", "20s")
	if got := d.ok(t, "get", "k"); got != "after\n" {
		t.Errorf("got %q", got)
	}
	waitFor(t, "the death to be noticed", func() bool { return strings.Contains(d.err.String(), "replica "+id+" ended") })
	// Rebalancing is paused wherever somebody answers, and who does not is named; a
	// replica that starts again has forgotten.
	if code, stdout, stderr := runCLI(t, "", "rebalance", "pause", "--controllers", d.controllers); code != ExitUnavailable ||
		!strings.Contains(stderr, "1 of 3 replicas did not answer") || strings.Count(stdout, "paused") != 2 || !strings.Contains(stdout, "NO ANSWER") {
		t.Errorf("pause: code %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr := runCLI(t, "", "dev", "restart", "nobody", "--data", data); code != ExitCondition {
		t.Errorf("restart of nobody: code %d, %s", code, stderr)
	}
	line := d.ok(t, "dev", "restart", id, "--data", data)
	if want := fmt.Sprintf("replica 1 %s %s ", id, leader); !strings.HasPrefix(line, want) || strings.Contains(line, strconv.Itoa(pid)) {
		t.Errorf("restart printed %q; want %q with a new process", line, want)
	}
	waitFor(t, "all replicas to be healthy", func() bool {
		return strings.Count(d.ok(t, "status", "-o", "json"), `"healthy":true`) == 4
	})
	for _, step := range [][2]string{{"status", "mixed"}, {"resume", "running"}, {"pause", "paused"}} {
		if got := d.ok(t, "rebalance", step[0], "-o", "json"); !strings.HasPrefix(got, `{"state":"`+step[1]+`"`) {
			t.Errorf("rebalance %s: %s; want it to be %s", step[0], got, step[1])
		}
	}
	d.withoutControllers(t)
	d.withoutQuorum(t, id, strings.Fields(line)[4])
	salvages(t, filepath.Join(data, "g1a"))
	pids := d.pids()
	if len(pids) != 5 { // four, and the one that was killed
		t.Errorf("processes: %v in\n%s", pids, d.out.String())
	}
	d.stop(t)
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d outlived the cluster", pid)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(data, "*.sock")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// withoutControllers checks, for a cluster with one controller, that data commands
// need none: they find the way by a seed, or by the placement that an earlier one
// kept. What does need one says soon, for each that was asked, why it got nothing.
func (d *devRun) withoutControllers(t *testing.T) {
	t.Helper()
	placement := filepath.Join(t.TempDir(), "placement")
	d.ok(t, "put", "k", "kept", "--placement", placement)
	waitFor(t, "the placement to be written", func() bool { _, err := os.Stat(placement); return err == nil })
	_, pid := d.replicaAt(t, d.controllers)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][]string{{"--placement", placement, "--controllers", d.controllers}, {"--seeds", d.addresses()["g1a"]}} {
		if code, stdout, stderr := runCLI(t, "", append(way, "get", "k")...); code != 0 || stdout != "kept\n" {
			t.Errorf("get %q: code %d, %q, %s", way, code, stdout, stderr)
		}
		if code, _, stderr := runCLI(t, "", append(way, "put", "k", "kept")...); code != 0 {
			t.Errorf("put %q: code %d, %s", way, code, stderr)
		}
		if code, stdout, stderr := runCLI(t, "", append(way, "replicas", "1")...); code != 0 || strings.Count(stdout, "healthy") != 3 {
			t.Errorf("replicas %q: code %d, %s%s", way, code, stdout, stderr)
		}
		if code, _, stderr := runCLI(t, "", append(way, "replicas", "1", "remove", "nobody")...); code != 0 || !strings.Contains(stderr, "nothing was done") {
			t.Errorf("replicas remove %q: code %d, %s", way, code, stderr)
		}
	}
	start := time.Now()
	code, _, stderr := runCLI(t, "", "unpin", "3", "--timeout", "1m", "--seeds", d.addresses()["g1a"], "--controllers", d.controllers)
	if want := d.controllers + " does not accept connections: connect: connection refused"; code != ExitUnavailable || !strings.Contains(stderr, want) {
		t.Errorf("unpin: code %d, %s; want %q", code, stderr, want)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("unpin failed after %v", took)
	}
	if code, _, stderr := runCLI(t, "", "unpin", "3", "--seeds", d.addresses()["g1a"]); code != ExitUnavailable || !strings.Contains(stderr, "no controller is configured") {
		t.Errorf("unpin without controllers: code %d, %s", code, stderr)
	}
}

// withoutQuorum checks, for a cluster without its controller, what is said of a
// group of which a majority is dead, and of replicas that nobody can ask. One
// replica was restarted, as another process.
func (d *devRun) withoutQuorum(t *testing.T, restarted, pid string) {
	t.Helper()
	kill := func(id string) {
		t.Helper()
		_, n := d.replicaAt(t, d.addresses()[id])
		if id == restarted {
			n, _ = strconv.Atoi(pid)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	seeds := []string{"--seeds", d.addresses()["g1a"] + "," + d.addresses()["g1b"] + "," + d.addresses()["g1c"]}
	code, stdout, stderr := runCLI(t, "", append(seeds, "health")...)
	if want := "no majority of the controllers answers: the configuration can't change\n"; code != ExitFailed || stdout != want {
		t.Errorf("health without controllers: code %d, %q, %s; want %q", code, stdout, stderr, want)
	}
	kill("g1b")
	kill("g1c")
	const want = "16 shards UNAVAILABLE: group 1 has no leader (1 of its 3 replicas answer)\n"
	waitFor(t, "the survivor to notice that it is alone", func() bool {
		code, stdout, _ = runCLI(t, "", append(seeds, "health")...)
		return code == ExitUnavailable && strings.HasPrefix(stdout, want)
	})
	code, stdout, stderr = runCLI(t, "", append(seeds, "status", "-o", "json")...)
	for _, part := range []string{`"state":"unavailable"`, `"unavailable":16`, `"ranges":[{"first":0,"last":15}]`, `"applied_index":null`} {
		if code != 0 || !strings.Contains(stdout, part) {
			t.Errorf("status: code %d, %s, %s; want %s", code, stdout, stderr, part)
		}
	}
	if code, stdout, _ := runCLI(t, "", append(seeds, "status")...); code != 0 || !strings.Contains(stdout, strings.TrimSpace(want)) {
		t.Errorf("status: code %d, %s", code, stdout)
	}
	kill("g1a")
	if code, stdout, _ := runCLI(t, "", append(seeds, "health", "-o", "json")...); code != ExitUnavailable || !strings.HasPrefix(stdout, `{"state":"unavailable","reasons":["`) {
		t.Errorf("health of nobody: code %d, %s", code, stdout)
	}
}

// salvages checks what is said of the directory of a replica that was killed: what is
// in it, as an export and as the beginning of a new group, and of where that can't go.
func salvages(t *testing.T, dir string) {
	t.Helper()
	out, files, fresh := filepath.Join(t.TempDir(), "out.jsonl"), filepath.Join(t.TempDir(), "files"), filepath.Join(t.TempDir(), "new")
	for _, c := range []struct {
		code   int
		stdout string
		stderr string
		args   []string
	}{
		{0, "exported 1 key, 4 B, of 16 shards of group 1, as replica g1a had them, to " + out + "\nfrom entry ", "", []string{"salvage", dir, out}},
		{ExitRefused, "", "name one that does not exist", []string{"salvage", dir, out}},
		{0, `{"gid":1,"id":"g1a","incarnation":"`, "", []string{"salvage", dir, files, "-o", "json"}},
		{0, "made " + fresh + " the directory of replica g1a of a new group 1, incarnation ", "", []string{"reform", dir, fresh, "--address", "127.0.0.1:7999"}},
		{ExitRefused, "", "name one that does not exist", []string{"reform", dir, fresh, "--address", "127.0.0.1:7999"}},
		{ExitUsage, "", "--address", []string{"reform", dir, fresh + "2"}},
		{ExitUsage, "", "id", []string{"reform", dir, fresh + "2", "--address", "127.0.0.1:7999", "--id", "a b"}},
		{ExitCondition, "", "not done", []string{"salvage", filepath.Join(dir, "nothing"), out + "2.jsonl"}},
	} {
		code, stdout, stderr := runCLI(t, "", c.args...)
		if code != c.code || !strings.HasPrefix(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%q: code %d, %q, %q; want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != `{"key":"k","value":"kept"}`+"\n" {
		t.Errorf("exported %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(files, "k")); err != nil || string(b) != "kept" {
		t.Errorf("exported %q, %v", b, err)
	}
	if _, err := os.Stat(fresh + "2"); !os.IsNotExist(err) {
		t.Errorf("what was refused left something behind: %v", err)
	}
}

// A temporary directory is gone when the cluster has ended, and a port that is
// in use is named. With --http every replica serves metrics.
func TestTemporaryCluster(t *testing.T) {
	d := startDev(t, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--groups", "1", "--spare-groups", "0", "--replicas", "1", "--controller-replicas", "1", "--shards", "1")
	dir := regexp.MustCompile(`(?m)^data (\S+) \(deleted on exit; keep it with --data\)$`).FindStringSubmatch(d.out.String())[1]
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	pages := regexp.MustCompile(`(?m)^http (\S+) (http://\S+)$`).FindAllStringSubmatch(d.out.String(), -1)
	for _, m := range pages {
		r, err := http.Get(m[2])
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		if r.Body.Close(); err != nil || !strings.Contains(string(text), "shoal_raft_leader 1") {
			t.Errorf("%s: %v, %.300s", m[0], err, text)
		}
	}
	if len(pages) != 2 {
		t.Errorf("%d replicas serve metrics, there are 2", len(pages))
	}
	busy := d.controllers
	if code, _, stderr := runCLI(t, "", "dev", "--listen", busy, "--groups", "1", "--replicas", "1", "--controller-replicas", "1"); code != ExitFailed || !strings.Contains(stderr, busy) {
		t.Errorf("a busy port: code %d, %s; want %s to be named", code, stderr, busy)
	}
	// The commands to paste work as they stand, with this binary in place of the
	// name that it was started by.
	command := regexp.MustCompile(`(?m)^  .*?(put hello .*)$`).FindStringSubmatch(d.out.String())[1]
	if code, stdout, stderr := runCLI(t, "", strings.Fields(command)...); code != 0 || stdout != "version 1\n" {
		t.Errorf("%s: code %d, %q %q", command, code, stdout, stderr)
	}
	d.completes(t)
	d.stop(t)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v; want it deleted", dir, err)
	}
}

// completes checks what a shell is offered: fixed words, and the groups and
// replicas of the cluster that the environment or the line names.
func (d *devRun) completes(t *testing.T) {
	t.Helper()
	for line, want := range map[string]string{
		"status -o ":                  "table json",
		"rebalance ":                  "pause resume status",
		"leave ":                      "1",
		"move 0 ":                     "1",
		"shards --group ":             "1",
		"replicas ":                   "1 controller",
		"replicas 1 ":                 "add remove replace",
		"replicas 1 replace ":         "g1a",
		"replicas controller remove ": "c1",
		"get ":                        "",
		"replicas 1 add ":             "",
	} {
		var out, errs syncBuffer
		code := Run(t.Context(), Environment{Args: strings.Split("__complete "+line, " "), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
			Lookup: lookup(map[string]string{"SHOAL_CONTROLLERS": d.controllers}), Program: "shoal"})
		offers, _, _ := strings.Cut(out.String(), ":")
		if got := strings.Join(strings.Fields(offers), " "); code != 0 || got != want {
			t.Errorf("%q: code %d, offered %q, %s; want %q", line, code, got, errs.String(), want)
		}
	}
	if _, out, _ := runCLI(t, "", "__complete", "leave", "--controllers", d.controllers, ""); !strings.HasPrefix(out, "1\n") {
		t.Errorf("the cluster that the line names: %q", out)
	}
	if code, out, _ := runCLI(t, "", "__complete", "leave", "--controllers", "127.0.0.1:1", ""); code != 0 || !strings.HasPrefix(out, ":") {
		t.Errorf("without a cluster: code %d, %q", code, out)
	}
}

// devRun is a dev cluster under test.
type devRun struct {
	out, err    syncBuffer
	cancel      context.CancelFunc
	done        chan int
	controllers string
}

// startDev runs "shoal dev" until it is ready.
func startDev(t *testing.T, args ...string) *devRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &devRun{cancel: cancel, done: make(chan int, 1)}
	go func() {
		d.done <- Run(ctx, Environment{
			Args: append([]string{"dev"}, args...), Stdin: strings.NewReader(""), Stdout: &d.out, Stderr: &d.err,
			Lookup: lookup(nil), Program: "shoal",
		})
	}()
	t.Cleanup(cancel)
	ready := regexp.MustCompile(`(?m)^ready controllers=(\S+)$`)
	waitFor(t, "the cluster to be ready", func() bool {
		select {
		case code := <-d.done:
			t.Fatalf("shoal dev ended with code %d:\n%s%s", code, d.out.String(), d.err.String())
		default:
		}
		return ready.MatchString(d.out.String())
	})
	d.controllers = ready.FindStringSubmatch(d.out.String())[1]
	return d
}

func (d *devRun) stop(t *testing.T) {
	t.Helper()
	d.cancel()
	if code := <-d.done; code != 0 {
		t.Errorf("shoal dev ended with code %d: %s", code, d.err.String())
	}
}

// ok runs a command against the cluster, which must succeed.
func (d *devRun) ok(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := runCLI(t, "", append([]string{"--controllers", d.controllers}, args...)...)
	if code != 0 {
		t.Fatalf("%q: code %d, %s", args, code, stderr)
	}
	return stdout
}

// transcript runs command lines and returns what they print, with names in the
// place of what differs from run to run.
func (d *devRun) transcript(t *testing.T, stdin, lines, files string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		code, stdout, stderr := runCLI(t, stdin, append([]string{"--controllers", d.controllers}, d.words(line)...)...)
		b.WriteString(stdout + stderr)
		if code != 0 {
			fmt.Fprintf(&b, "exit %d\n", code)
		}
	}
	return d.stable(strings.ReplaceAll(b.String(), files, "$FILES"))
}

var unstable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`"seconds":[0-9.e-]+`), `"seconds":S`},
	{regexp.MustCompile(` in [0-9.µm]+s: .*`), " in TIME"},
	{regexp.MustCompile(`"applied_index":\d+`), `"applied_index":N`},
	{regexp.MustCompile(`"incarnation":"[0-9a-f]{32}"`), `"incarnation":"ID"`},
	{regexp.MustCompile(`"server_id":"([a-z0-9]+)\.[0-9a-f]{32}"`), `"server_id":"$1.ID"`},
	{regexp.MustCompile(`("to":\d+),"bytes":\d+`), `$1,"bytes":N`},
	{regexp.MustCompile(` to move, .*`), " to move, SIZE"},
	{regexp.MustCompile(`(done: \d+ shards?), [^;\n]*`), `$1, SIZE, TIME`},
	{regexp.MustCompile(`"pause_ms":[0-9.]+`), `"pause_ms":N`},
	{regexp.MustCompile(`"unjoined":.*,("shards":{"total")`), `"unjoined":[...],$1`}, // a group that left is heard of for a while
}

func (d *devRun) stable(text string) string {
	for id, address := range d.addresses() {
		text = strings.ReplaceAll(text, address, "<"+id+">")
	}
	for _, u := range unstable {
		text = u.pattern.ReplaceAllString(text, u.with)
	}
	return text
}

// words splits a line at spaces, except within single quotes, and puts addresses
// in the place of <id>.
func (d *devRun) words(line string) []string {
	for id, address := range d.addresses() {
		line = strings.ReplaceAll(line, "<"+id+">", address)
	}
	var words []string
	for i, part := range strings.Split(strings.TrimSuffix(line, "\n"), "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

var replicaLine = regexp.MustCompile(`(?m)^replica \S+ (\S+) (\S+)(?: (\d+))?$`)

func (d *devRun) addresses() map[string]string {
	all := map[string]string{}
	for _, m := range replicaLine.FindAllStringSubmatch(d.out.String(), -1) {
		all[m[1]] = m[2]
	}
	return all
}

func (d *devRun) pids() []int {
	var pids []int
	for _, m := range replicaLine.FindAllStringSubmatch(d.out.String(), -1) {
		pid, _ := strconv.Atoi(m[3])
		pids = append(pids, pid)
	}
	return pids
}

func (d *devRun) replicaAt(t *testing.T, address string) (id string, pid int) {
	t.Helper()
	for _, m := range replicaLine.FindAllStringSubmatch(d.out.String(), -1) {
		if m[2] == address {
			pid, _ = strconv.Atoi(m[3])
			return m[1], pid
		}
	}
	t.Fatalf("no replica at %s in\n%s", address, d.out.String())
	return "", 0
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(20 * time.Millisecond) // poll
	}
}

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.Buffer.String()
}
