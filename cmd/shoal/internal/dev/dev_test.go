package dev

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func layoutOptions(listen string) Options {
	return Options{Groups: 2, SpareGroups: 1, Replicas: 3, ControllerReplicas: 3, Shards: 64, Listen: listen, Data: "dir"}
}

// Controllers take consecutive ports from the first, the groups the next ones,
// with ids that are unique in the whole cluster; the layout survives its file.
func TestLayout(t *testing.T) {
	l, err := newLayout(layoutOptions("127.0.0.1:7400"))
	if err != nil {
		t.Fatal(err)
	}
	l.find("g3c").PID = 42
	dir := t.TempDir()
	if err := l.save(dir); err != nil {
		t.Fatal(err)
	}
	if l, err = loadLayout(dir); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, id := range l.ids() {
		lines = append(lines, l.line(id))
	}
	for i, want := range map[int]string{0: "replica controller c1 127.0.0.1:7400", 3: "replica 1 g1a 127.0.0.1:7403", 11: "replica 3 g3c 127.0.0.1:7411 42"} {
		if len(lines) != 12 || lines[i] != want {
			t.Errorf("line %d of %q; want %q", i, lines, want)
		}
	}
	if ids := l.ids(); len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 12 {
		t.Errorf("ids %v", ids)
	}
	specs := l.specs("/d")
	if s := specs[4]; s.ID != "g1b" || s.Group != 1 || len(s.Peers) != 3 || s.Peers["g1b"] != s.Address || s.DataDir != "/d/g1b" || s.LogFile != "/d/logs/g1b.log" || len(s.Controllers) != 3 {
		t.Errorf("spec %+v", s)
	}
	if l.Groups[0].Spare || !l.Groups[2].Spare {
		t.Error("the spare group is not the last one")
	}
	if _, err := loadLayout(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no layout: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(`{"format":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadLayout(dir); err == nil {
		t.Error("a layout of another format was taken")
	}
}

// Flags that were given must agree with a layout that exists; others are ignored.
func TestLayoutAgrees(t *testing.T) {
	o := layoutOptions("127.0.0.1:7400")
	l, err := newLayout(o)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{"groups": true, "spare-groups": true, "replicas": true, "controller-replicas": true, "shards": true, "listen": true}
	o.Given = all
	if err := l.agrees(o); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Options){
		"groups": func(o *Options) { o.Groups++ }, "spare-groups": func(o *Options) { o.SpareGroups++ },
		"replicas": func(o *Options) { o.Replicas += 2 }, "controller-replicas": func(o *Options) { o.ControllerReplicas += 2 },
		"shards": func(o *Options) { o.Shards *= 2 }, "listen": func(o *Options) { o.Listen = "127.0.0.1:1" },
	} {
		changed := o
		change(&changed)
		if err := l.agrees(changed); !errors.As(err, new(*UsageError)) || !strings.Contains(err.Error(), "--"+name) {
			t.Errorf("%s: %v", name, err)
		}
		changed.Given = nil
		if err := l.agrees(changed); err != nil {
			t.Errorf("%s, not given: %v", name, err)
		}
	}
}

// With port 0 every replica gets a port of its own that is free.
func TestChosenPorts(t *testing.T) {
	l, err := newLayout(layoutOptions("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for r := range l.all() {
		if seen[r.Address] || strings.HasSuffix(r.Address, ":0") {
			t.Errorf("%s at %s", r.ID, r.Address)
		}
		seen[r.Address] = true
	}
	if _, err := newLayout(layoutOptions("127.0.0.1:65530")); !errors.As(err, new(*UsageError)) {
		t.Errorf("ports beyond the last one: %v", err)
	}
}

// The way in which the program was started is found again: by its name, its
// path, or go run with the package that was named.
func TestInvocation(t *testing.T) {
	for _, c := range []struct{ program, executable, want string }{
		{"shoal", "/usr/bin/shoal", "shoal"},
		{"./bin/shoal", "/src/bin/shoal", "./bin/shoal"},
		{"x", "/srv/go-builder/bin/x", "x"},
	} {
		if got := strings.Join(Invocation(c.program, c.executable), " "); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	for executable, want := range map[string]bool{
		"/tmp/go-build123/b001/exe/shoal":       true,
		"/var/cache/go-build/ab/abcdef-d/shoal": true,
		"/srv/gopath/src/shoal/shoal":           false,
		"/srv/Caches/go-build/1/2-d/shoal":      true,
	} {
		if isGoRun(executable) != want {
			t.Errorf("%s: go run is %v", executable, !want)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"go run ./cmd/shoal dev", "go run ./cmd/shoal"},
		{"/usr/local/go/bin/go run -race -tags a,b . dev --data x", "go run -race -tags a,b ."},
		{"go -C /src run ./cmd/shoal dev", "go -C /src run ./cmd/shoal"},
		{"go run example.com/shoal/cmd/shoal@latest dev", "go run example.com/shoal/cmd/shoal@latest"},
		{"bash", "go run ./cmd/shoal"},
		{"", "go run ./cmd/shoal"},
	} {
		if got := strings.Join(goRun(strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%q: %q; want %q", c.args, got, c.want)
		}
	}
	for word, want := range map[string]string{"a-b_c/d.e:1,2=3@4": "a-b_c/d.e:1,2=3@4", "a b": "'a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := quote(word); got != want {
			t.Errorf("%q: %s; want %s", word, got, want)
		}
	}
}

// The control socket is in the directory, or where that path is too long for a
// socket, under a short one that depends on the directory only.
func TestSocketPath(t *testing.T) {
	if got := socketPath("/tmp/x"); got != "/tmp/x/dev.sock" {
		t.Error(got)
	}
	long := "/tmp/" + strings.Repeat("x", 200)
	if got := socketPath(long); len(got) > socketPathMax || got != socketPath(long) || got == socketPath(long+"y") {
		t.Error(got)
	}
}

// Nobody runs where nothing was started.
func TestRestartWithoutCluster(t *testing.T) {
	for _, c := range []struct{ data, listen string }{{t.TempDir(), ""}, {"", "127.0.0.1:1"}} {
		if _, err := Restart(t.Context(), c.data, c.listen, "c1", false); !errors.As(err, new(*NotRunningError)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Metrics are served at ports that no replica needs, each once, or at none.
func TestHTTPPorts(t *testing.T) {
	l, err := newLayout(layoutOptions("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.serveHTTP("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for r := range l.all() {
		used[r.Address], used[r.HTTP] = true, true
	}
	if specs := l.specs("/d"); len(used) != 24 || specs[4].HTTP != l.find("g1b").HTTP {
		t.Errorf("%d addresses of 12 replicas, one is started with %q", len(used), specs[4].HTTP)
	}
	if err := l.serveHTTP(l.find("g1b").Address); !errors.As(err, new(*UsageError)) {
		t.Errorf("where a replica listens: %v", err)
	}
	if err := l.serveHTTP(""); err != nil || l.find("c1").HTTP != "" {
		t.Errorf("switched off: %v, %q", err, l.find("c1").HTTP)
	}
}
