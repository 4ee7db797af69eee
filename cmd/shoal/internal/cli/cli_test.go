package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/transfer"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Flags may stand anywhere, and "--" ends them.
func TestFlagsStandAnywhere(t *testing.T) {
	root := (&app{}).root()
	for _, c := range []struct{ given, want string }{
		{"get k -o json", "get k -o json"},
		{"-o json get k", "get -o json k"},
		{"--timeout=1s get k", "get --timeout=1s k"},
		{"--if-version 3 put k v", "put --if-version 3 k v"},
		{"--if-absent put k v", "put --if-absent k v"},
		{"--plan join 1 a:1", "join --plan 1 a:1"},
		{"--data d dev --all restart", "dev restart --data d --all"},
		{"dev restart get", "dev restart get"},
		{"get get", "get get"},
		{"put k -", "put k -"},
		{"put -- -k -v", "put -- -k -v"},
		{"-o json -- get", "-o json -- get"},
		{"nonsense --wait", "nonsense --wait"},
		{"-ojson get k", "get -ojson k"},
		{"--unknown get k", "get --unknown k"},
		{"--timeout", "--timeout"},
	} {
		if got := strings.Join(commandFirst(root, strings.Fields(c.given)), " "); got != c.want {
			t.Errorf("%q became %q; want %q", c.given, got, c.want)
		}
	}
}

// A setting comes from the flag, else the environment, else the configuration
// file, else the default; a mistake in any of them is a usage error that names
// where it is.
func TestSettingsPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shoal.yaml")
	text := "controllers: [file:1, file:2]\ntimeout: 3s\nlog_level: error\nid: from-file\npeers: {a: 'h:1', b: 'h:2'}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("timeout: 1s\ncontrolers: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte("timeout: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	marked, empty := write("marked.yaml", "\uFEFFtimeout: 3s\r\n"), write("empty.yaml", "timeout:\noutput: \"\"\n")
	twice, spelled := write("twice.yaml", "timeout: 3s\ntimeout: 4s\n"), write("spelled.yaml", "log_level: info\nlog-level: warn\n")
	cased, second := write("cased.yaml", "Timeout: 3s\n"), write("second.yaml", "timeout: 3s\n---\ntimeout: 4s\n")
	unset := map[string]string{"SHOAL_CONFIG": ""}
	for _, f := range settable((&app{}).root()) {
		unset[variable(f)] = ""
	}
	for _, c := range []struct {
		name, args string
		env        map[string]string
		want       string // controllers, timeout, format, log level; or part of the error
	}{
		{name: "defaults", want: "127.0.0.1:7400 10s table "},
		{name: "file", args: "--config " + file, want: "file:1,file:2 3s table error"},
		{name: "file from the environment", env: map[string]string{"SHOAL_CONFIG": file}, want: "file:1,file:2 3s table error"},
		{name: "environment over file", args: "--config " + file, env: map[string]string{"SHOAL_CONTROLLERS": "env:1,env:2", "SHOAL_OUTPUT": "json"}, want: "env:1,env:2 3s json error"},
		{name: "flag over all", args: "--config " + file + " --controllers flag:1 -o table", env: map[string]string{"SHOAL_CONTROLLERS": "env:1", "SHOAL_OUTPUT": "json"}, want: "flag:1 3s table error"},
		{name: "empty variables are not set", env: unset, want: "127.0.0.1:7400 10s table "},
		{name: "empty variables leave the file", args: "--config " + file, env: unset, want: "file:1,file:2 3s table error"},
		{name: "byte order mark", args: "--config " + marked, want: "127.0.0.1:7400 3s table "},
		{name: "keys without values", args: "--config " + empty, want: "127.0.0.1:7400 10s table "},
		{name: "no keys", args: "--config " + write("none.yaml", "# none\n"), want: "127.0.0.1:7400 10s table "},
		{name: "a key twice", args: "--config " + twice, want: "already defined"},
		{name: "a key in two spellings", args: "--config " + spelled, want: "log-level is there twice"},
		{name: "a key in another case", args: "--config " + cased, want: "no setting \"Timeout\""},
		{name: "a second document", args: "--config " + second, want: "something follows"},
		{name: "unknown key", args: "--config " + bad, want: bad + ":2: no setting \"controlers\""},
		{name: "no file", args: "--config /nowhere.yaml", want: "no such file"},
		{name: "bad environment", env: map[string]string{"SHOAL_TIMEOUT": "soon"}, want: "SHOAL_TIMEOUT is \"soon\": it must be a time"},
		{name: "bad file", args: "--config " + wrong, want: "key timeout of " + wrong + " is \"3\": it must be a time"},
		{name: "bad controllers", args: "--controllers h:1,h", want: "--controllers: \"h\" is no address"},
		{name: "bad seeds", env: map[string]string{"SHOAL_SEEDS": "h"}, want: "--seeds: \"h\" is no address"},
		{name: "bad format", args: "-o xml", want: "no output format"},
		{name: "bad level", args: "--log-level loud", want: "no log level"},
		{name: "bad timeout", args: "--timeout 0s", want: "--timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &app{env: Environment{Stderr: new(bytes.Buffer), Stdout: new(bytes.Buffer), Lookup: lookup(c.env)}}
			root := a.root()
			root.AddCommand(&cobra.Command{Use: "probe", RunE: func(*cobra.Command, []string) error { return nil }})
			root.SetArgs(append([]string{"probe"}, strings.Fields(c.args)...))
			err := root.Execute()
			got := fmt.Sprintf("%s %v %s %s", strings.Join(a.controllers, ","), a.timeout, a.format, a.logLevel)
			if err != nil {
				if got = err.Error(); !strings.Contains(got, c.want) || exitCode(err) != ExitUsage {
					t.Errorf("error %v (code %d); want %s", err, exitCode(err), c.want)
				}
			} else if got != c.want {
				t.Errorf("settings %q; want %q", got, c.want)
			}
		})
	}
}

// The environment and the file also set the flags of the commands that run
// replicas, and of no others.
func TestServerSettings(t *testing.T) {
	a := &app{env: Environment{Stderr: new(bytes.Buffer), Stdout: new(bytes.Buffer), Lookup: lookup(map[string]string{
		"SHOAL_ID": "c1", "SHOAL_PEERS": "c1=h:1,c2=h:2", "SHOAL_SHARDS": "64", "SHOAL_KEYS": "7", "SHOAL_GROUP": "9",
	})}}
	root := a.root()
	for name, want := range map[string]map[string]string{
		"controller": {"id": "c1", "shards": "64", "peers": "c1=h:1,c2=h:2"},
		"server":     {"id": "c1", "group": "9"},
		"dev":        {"shards": "1024"},
		"bench":      {"keys": "100000"},
		"shards":     {"group": "0"},
	} {
		cmd := childOf(root, name)
		if err := cmd.ParseFlags(nil); err != nil {
			t.Fatal(err)
		}
		if err := a.applySettings(cmd); err != nil {
			t.Fatal(err)
		}
		for flag, value := range want {
			if got := cmd.Flags().Lookup(flag).Value.String(); got != value {
				t.Errorf("%s --%s is %s; want %s", name, flag, got, value)
			}
		}
	}
}

// The operator's page names every variable of the environment that is read.
func TestEnvironmentIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(settable((&app{}).root()), "config") {
		if !bytes.Contains(page, []byte("`"+variable(name)+"`")) {
			t.Errorf("docs/operations.md says nothing of %s", variable(name))
		}
	}
}

// Every error ends the program with the code that the contract gives it.
func TestExitCodes(t *testing.T) {
	of := func(family clerk.Family, cause error) error {
		return fmt.Errorf("put: %w", &clerk.Error{Op: "put", Family: family, Cause: cause})
	}
	refused := func(r ctrlpb.Reason) error {
		return of(clerk.FamilyNotDone, &clerk.RefusedError{Reason: r})
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("odd"), 1},
		{usagef("bad"), 2},
		{of(clerk.FamilyNotDone, clerk.ErrUnavailable), 3},
		{of(clerk.FamilyNotDone, clerk.ErrTimeout), 3},
		{of(clerk.FamilyOutcomeUnknown, clerk.ErrTimeout), 3},
		{of(clerk.FamilyOutcomeUnknown, errors.New("connection lost")), 3},
		{of(clerk.FamilyNotDone, context.DeadlineExceeded), 3},
		{of(clerk.FamilyNotDone, context.Canceled), 1},
		{of(clerk.FamilyDone, clerk.ErrNotFound), 4},
		{of(clerk.FamilyDone, clerk.ErrVersionMismatch), 4},
		{of(clerk.FamilyNotDone, clerk.ErrInvalid), 2},
		{of(clerk.FamilyNotDone, clerk.ErrWrongCluster), 5},
		{of(clerk.FamilyNotDone, clerk.ErrSessionExpired), 1},
		{refused(ctrlpb.Reason_BAD_REQUEST), 2},
		{refused(ctrlpb.Reason_UNKNOWN_GROUP), 4},
		{refused(ctrlpb.Reason_UNKNOWN_CONFIG), 4},
		{refused(ctrlpb.Reason_LAST_GROUP), 5},
		{refused(ctrlpb.Reason_REPLICA_MISMATCH), 5},
		{refused(ctrlpb.Reason_GROUP_EXISTS), 5},
		{refused(ctrlpb.Reason_CLUSTER_MISMATCH), 5},
		{&transfer.RefusedError{Count: 1}, 5},
		{codedError{errors.New("x"), 5}, 5},
		{status.Error(codes.FailedPrecondition, "quorum"), 5},
		{status.Error(codes.Unavailable, "down"), 3},
		{errors.Join(status.Error(codes.NotFound, "no"), nil), 4},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: code %d; want %d", c.err, got, c.want)
		}
	}
}

// What can be seen to be wrong without a cluster is a usage error, before anyone
// is asked; a write that nobody received says that it was not done.
func TestUsageAndUnreachable(t *testing.T) {
	long := strings.Repeat("k", shardcfg.KeyBytesMax+1)
	for _, c := range []struct {
		args   []string
		stdin  string
		code   int
		stderr string
	}{
		{args: []string{"nonsense"}, code: 2, stderr: "unknown command"},
		{args: []string{"get"}, code: 2, stderr: "missing"},
		{args: []string{"get", "a", "b"}, code: 2, stderr: "too many"},
		{args: []string{"get", "k", "--nonsense"}, code: 2, stderr: "unknown flag: --nonsense"},
		{args: []string{"get", "k", "-o"}, code: 2, stderr: "--output needs a value"},
		{args: []string{"help", "nonsense"}, code: 2, stderr: "unknown command \"nonsense\""},
		{args: []string{"append", "k", "-5"}, code: 2, stderr: "put -- before"},
		{args: []string{"get", ""}, code: 2, stderr: "empty"},
		{args: []string{"put", long, "v"}, code: 2, stderr: "not done"},
		{args: []string{"put", "k", "-"}, stdin: strings.Repeat("v", shardcfg.ValueBytesMax+1), code: 2, stderr: "not done"},
		{args: []string{"put", "k", "v", "--if-version", "1", "--if-absent"}, code: 2, stderr: "exclude"},
		{args: []string{"put", "k", "v", "--if-version", "-1"}, code: 2, stderr: "--if-version is \"-1\": it must be a whole number from 0 on"},
		{args: []string{"scan", "--limit", "few"}, code: 2, stderr: "--limit is \"few\": it must be a whole number"},
		{args: []string{"join", "1", "h:1", "--weight", "99999999999"}, code: 2, stderr: "out of range"},
		{args: []string{"get", "k", "--timeout", "3"}, code: 2, stderr: "--timeout is \"3\": it must be a time with its unit"},
		{args: []string{"get", "k", "--timout=3s"}, code: 2, stderr: "did you mean --timeout?"},
		{args: []string{"get", "k", "--contrllers", "h:1"}, code: 2, stderr: "did you mean --controllers?"},
		{args: []string{"scan", "--limit", "-1"}, code: 2, stderr: "--limit"},
		{args: []string{"join", "0", "h:1"}, code: 2, stderr: "no gid"},
		{args: []string{"join", "1", "h"}, code: 2, stderr: "no address"},
		{args: []string{"leave", "x"}, code: 2, stderr: "no gid"},
		{args: []string{"move", "99999", "1"}, code: 2, stderr: "no shard"},
		{args: []string{"config", "x"}, code: 2},
		{args: []string{"bench", "--read-fraction", "2"}, code: 2, stderr: "--read-fraction"},
		{args: []string{"check", "--clients", "0"}, code: 2, stderr: "--clients"},
		{args: []string{"check", "--keys", "100000"}, code: 2, stderr: "--keys"},
		{args: []string{"check", "--duration", "-1s"}, code: 2, stderr: "--duration"},
		{args: []string{"check"}, code: 3},
		{args: []string{"rebalance"}, code: 2, stderr: "missing"},
		{args: []string{"rebalance", "stop"}, code: 2, stderr: "pause, resume or status"},
		{args: []string{"rebalance", "status", "--rate", "1KiB"}, code: 2, stderr: "64KiB"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "nowhere"}, code: 64, stderr: "--listen: \"nowhere\" is no address"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:99999"}, code: 64, stderr: "--listen"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--http", "x"}, code: 64, stderr: "--http"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "a=h,b=h:2,c=h:3"}, code: 64, stderr: "--peers: \"a\": \"h\" is no address"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "a=0.0.0.0:1"}, code: 64, stderr: "--peers: \"a\": \"0.0.0.0:1\" is no address"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "a=h:0"}, code: 64, stderr: "port is not from 1"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--advertise", ":1"}, code: 64, stderr: "--advertise: \":1\" is no address"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--advertise", "h:2", "--peers", "a=h:1"}, code: 64, stderr: "they must be the same"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "0.0.0.0:1", "--insecure"}, code: 64, stderr: "say at which address"},
		{args: []string{"renumber", t.TempDir(), "a=h"}, code: 1, stderr: "not done: no replica has run"},
		{args: []string{"renumber", "x", "h:1"}, code: 2, stderr: "is not ID=ADDR"},
		{args: []string{"renumber", "/nowhere", "a=h:1"}, code: 1, stderr: "no such file"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "a=h:1,b=h:2,c=h:2"}, code: 64, stderr: "both \"b\" and \"c\""},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "a=h:1,b=h:2,a=h:3"}, code: 64, stderr: "--peers: \"a\" is given twice, as h:1 and h:3"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "a=h:1", "--peers", "a=h:2"}, code: 64, stderr: "--peers: \"a\" is given twice"},
		{args: []string{"controller", "--id", "a", "--data", "x", "--listen", "127.0.0.1:1", "--peers", "h:1"}, code: 64, stderr: "--peers: \"h:1\" is not ID=ADDR"},
		{args: []string{"server", "--group", "1", "--memtable", "1"}, code: 64, stderr: "--memtable"},
		{args: []string{"server", "--group", "1", "--log-max", "1MiB"}, code: 64, stderr: "--log-max"},
		{args: []string{"server", "--group", "1", "--cache", "much"}, code: 64, stderr: "no size"},
		{args: []string{"replicas", "1", "destroy", "x"}, code: 2, stderr: "add, remove or replace"},
		{args: []string{"replicas", "1", "add"}, code: 2, stderr: "takes 1"},
		{args: []string{"controller"}, code: 64, stderr: "--id"},
		{args: []string{"server", "--id", "a", "--listen", "127.0.0.1:0", "--data", "x"}, code: 64, stderr: "--group"},
		{args: []string{"dev", "--replicas", "2"}, code: 2, stderr: "--replicas"},
		{args: []string{"dev", "--shards", "1000"}, code: 2, stderr: "--shards"},
		{args: []string{"dev", "--listen", "0.0.0.0:7400"}, code: 2, stderr: "loopback"},
		{args: []string{"dev", "restart"}, code: 2, stderr: "either"},
		{args: []string{"dev", "restart", "c1", "--data", t.TempDir()}, code: 3, stderr: "no shoal dev runs"},
		{args: []string{"import", "/nowhere"}, code: 1, stderr: "no such file"},
		{args: []string{"put", "k", "v"}, code: 3, stderr: "not done"},
		{args: []string{"append", "k", "v"}, code: 3, stderr: "not done"},
		{args: []string{"delete", "k"}, code: 3, stderr: "not done"},
		{args: []string{"get", "k"}, code: 3, stderr: "unavailable"},
		{args: []string{"status"}, code: 3},
	} {
		args := append([]string{"--controllers", "127.0.0.1:1", "--timeout", "300ms"}, c.args...)
		code, stdout, stderr := runCLI(t, c.stdin, args...)
		if code != c.code || !strings.Contains(stderr, c.stderr) || stdout != "" {
			t.Errorf("%.60q: code %d, stdout %q, stderr %q; want code %d with %q", c.args, code, stdout, stderr, c.code, c.stderr)
		}
	}
}

// Every command explains itself, with an example.
func TestHelp(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			return
		}
		if c.HasParent() && (c.Short == "" || len(c.Long) < 60 || c.Example == "") {
			t.Errorf("%s lacks a short or long explanation, or an example", c.CommandPath())
		}
		if code, stdout, _ := runCLI(t, "", append(strings.Fields(c.CommandPath())[1:], "--help")...); code != 0 || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%s --help: code %d, %q", c.CommandPath(), code, stdout)
		}
		for _, child := range c.Commands() {
			check(child)
		}
	}
	check((&app{}).root())
}

// All help fits a terminal of 80 columns, the flags and what cobra adds included;
// a list stays one, and a word is never cut.
func TestHelpFits(t *testing.T) {
	root := (&app{}).root()
	root.InitDefaultCompletionCmd("x")
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		var b bytes.Buffer
		c.SetOut(&b)
		explain(c, nil)
		for line := range strings.Lines(b.String()) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > helpColumns || strings.HasSuffix(line, " ") {
				t.Errorf("%s: %q", c.CommandPath(), line)
			}
		}
		for _, child := range c.Commands() {
			check(child)
		}
	}
	check(root)
	long := strings.Repeat("word ", 20)
	for _, c := range []struct{ text, want string }{
		{"a\nb\n\n" + long, "a\nb\n\n" + strings.TrimSpace(strings.Repeat("word ", 16)) + "\n" + strings.Repeat("word ", 4)},
		{"  x  " + long + "\n     more\n  yy " + "z", "  x  " + strings.TrimSpace(strings.Repeat("word ", 15)) + "\n     " + strings.Repeat("word ", 5) + " more\n  yy z"},
		{strings.Repeat("x", 100), strings.Repeat("x", 100)},
	} {
		if got := fit(c.text); got != c.want {
			t.Errorf("%q became\n%q; want\n%q", c.text, got, c.want)
		}
	}
}

// Common names of other stores' commands work, and --version says what "version"
// does.
func TestOtherNames(t *testing.T) {
	root := (&app{}).root()
	for alias, name := range map[string]string{"set": "put", "del": "delete", "ls": "scan"} {
		if c := childOf(root, alias); c == nil || c.Name() != name {
			t.Errorf("%s is %v", alias, c)
		}
	}
	_, want, _ := runCLI(t, "", "version")
	if code, got, stderr := runCLI(t, "", "--version"); code != 0 || got != want || stderr != "" {
		t.Errorf("--version: code %d, %q%q; want %q", code, got, stderr, want)
	}
}

// The JSON of configurations and of the status has the fields of the contract,
// and lists are lists also when they are empty.
func TestJSONShapes(t *testing.T) {
	config := &shardcfg.Config{
		Num: 7, Shards: []shardcfg.GroupID{2, 0},
		Groups: map[shardcfg.GroupID]shardcfg.Group{2: {Replicas: []string{"h:1"}, Weight: 3, State: shardcfg.GroupLeaving}},
		Pins:   map[shardcfg.ShardID]shardcfg.Pin{1: {Group: 2, MaxPauseMS: 70}},
	}
	for _, c := range []struct {
		v    any
		want string
	}{
		{configJSON(config), `{"num":7,"shards":[2,0],"groups":{"2":{"replicas":["h:1"],"weight":3,"state":"leaving"}},"pins":{"1":2},"max_pause_ms":{"1":70}}`},
		{configJSON(&shardcfg.Config{}), `{"num":0,"shards":[],"groups":{},"pins":{}}`},
		{statusJSON(&clerk.Status{Total: 4}), `{"config":0,"controllers":[],"groups":[],"unjoined":[],` +
			`"shards":{"total":4,"settled":0,"moving":0,"unavailable":0},"handoffs":[],"state":"healthy","reasons":[],"availability":[]}`},
		{statusJSON(&clerk.Status{
			Config:      config,
			Controllers: []clerk.ReplicaStatus{{ID: "c1", Address: "h:1", Role: "leader", Healthy: true}},
			Groups: []clerk.GroupStatus{{GID: 2, State: shardcfg.GroupMember, Shards: 1, Keys: 2, Bytes: 3, Adopted: 7,
				Replicas: []clerk.ReplicaStatus{{ID: "a", Address: "h:2", Role: "follower", AppliedIndex: 9, Problem: "slow"}}}},
			Unjoined: []clerk.GroupStatus{{GID: 3, Replicas: []clerk.ReplicaStatus{{Address: "h:3"}}}},
			Shards:   []clerk.ShardStatus{{Owner: 2, Holder: 2, Phase: "serving"}},
			Total:    2, Settled: 1, Moving: 1, Unavailable: 1,
			Handoffs: []clerk.Handoff{{Shard: 1, From: 2, To: 3, Phase: "frozen", CopiedBytes: 5, TotalBytes: 6, Pause: 1500 * time.Microsecond}},
		}), `{"config":7,"controllers":[{"id":"c1","address":"h:1","leader":true,"healthy":true}],` +
			`"groups":[{"gid":2,"state":"member","replicas":[{"id":"a","address":"h:2","role":"follower","applied_index":9,"healthy":false,"problem":"slow"}],` +
			`"shards":1,"keys":2,"bytes":3,"adopted":7}],` +
			`"unjoined":[{"gid":3,"replicas":[{"id":"","address":"h:3","role":"","applied_index":null,"healthy":false}]}],` +
			`"shards":{"total":2,"settled":1,"moving":1,"unavailable":1},` +
			`"handoffs":[{"shard":1,"from":2,"to":3,"phase":"frozen","copied_bytes":5,"total_bytes":6,"pause_ms":1.5}],` +
			`"state":"unavailable","reasons":["1 shard UNAVAILABLE: group 2 has no leader (0 of its 1 replicas answer)","replica of group 2, a at h:2: slow"],` +
			`"availability":[{"gid":2,"shards":1,"ranges":[{"first":0,"last":0}],"reason":"group 2 has no leader (0 of its 1 replicas answer)"}]}`},
	} {
		got, err := json.Marshal(c.v)
		if err != nil || string(got) != c.want {
			t.Errorf("%s %v\nwant %s", got, err, c.want)
		}
	}
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// runCLI runs one command line and returns what it printed.
func runCLI(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), Environment{
		Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Lookup: lookup(nil), Program: "shoal",
	})
	return code, out.String(), errs.String()
}
