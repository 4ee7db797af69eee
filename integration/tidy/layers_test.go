// Package tidy holds the house rules as tests: layers, comments, sizes,
// leftovers. Each failure says how to mend it.
package tidy

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shoalkv/shoal"

// rows are the layers: a package imports only packages of its own or a lower
// row. docs/architecture.md draws them.
var rows = []struct {
	name     string
	packages []string
}{
	{"0", []string{"raftgroup/store", "raftgroup/entry"}},
	{"1", []string{"shardctrler/shardcfg", "shardkv/session"}},
	{"2", []string{"shardctrler/ctrlfsm", "shardctrler/report", "shardkv/kvfsm", "shardkv/placement", "shardkv/handoff"}},
	{"3", []string{"raftgroup", "raftgroup/transport", "raftgroup/logstore", "raftgroup/pebblestore",
		"raftgroup/formation", "raftgroup/host", "raftgroup/host/fence", "raftgroup/failpoint", "raftgroup/stall",
		"raftgroup/raftpb", "shardctrler/ctrlpb", "shardkv/kvpb", "clerk/route"}},
	{"4", []string{"shardctrler", "shardkv", "shardkv/salvage", "clerk"}},
	{"5", []string{"cmd", "integration"}},
}

// testSupport are contract suites: tests may import them, products may not.
var testSupport = []string{"raftgroup/grouptest", "raftgroup/store/storetest", "raftgroup/logstore/logstoretest"}

// owners says which packages may import a library directly; a name ending in
// "/..." covers what is below it.
var owners = map[string][]string{
	"github.com/hashicorp/raft":         {"raftgroup", "raftgroup/transport", "raftgroup/logstore", "raftgroup/host"},
	"github.com/hashicorp/raft-boltdb":  {"raftgroup/logstore"},
	"go.etcd.io/bbolt":                  {"raftgroup/logstore"},
	"github.com/cockroachdb/pebble":     {"raftgroup/pebblestore"},
	"github.com/spf13/cobra":            {"cmd/..."},
	"github.com/schollz/progressbar":    {"cmd/..."},
	"github.com/anishathalye/porcupine": {"integration/..."},
}

// isStepMachine says which packages must be pure: rows 0 to 2, and the clerk's
// routing, which stands in row 3 only because it speaks the wire's codes.
func isStepMachine(rel string) bool {
	row := rowOf(rel)
	return row >= 0 && row < 3 || rel == "clerk/route"
}

// impure are the packages that a step machine may not import: randomness, I/O,
// concurrency, logging, environment. Of package time it may use durations; see
// TestStepMachinesArePure.
var impure = []string{"math/rand", "math/rand/v2", "crypto/rand", "net", "os", "log", "log/slog",
	"context", "syscall", "os/exec", "runtime"}

type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Dir,Imports,GoFiles"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// rowOf returns the row of a package of the module; -1: none is given.
func rowOf(rel string) int {
	for i, row := range rows {
		for _, p := range row.packages {
			if rel == p || i == 5 && strings.HasPrefix(rel, p+"/") {
				return i
			}
		}
	}
	return -1
}

func covered(list []string, rel string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		base, deep := strings.CutSuffix(p, "/...")
		return rel == base || deep && strings.HasPrefix(rel, base+"/")
	})
}

// Imports go down, never up; row 4's packages don't know each other; libraries
// stay with their owners; step machines are pure.
func TestLayers(t *testing.T) {
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if covered(testSupport, rel) {
			continue
		}
		row := rowOf(rel)
		if row < 0 {
			t.Errorf("%s stands in no layer; add it to rows in integration/tidy/layers_test.go and to docs/architecture.md", rel)
			continue
		}
		for _, imported := range p.Imports {
			checkImport(t, rel, row, imported)
		}
	}
}

func checkImport(t *testing.T, rel string, row int, imported string) {
	if to, ours := strings.CutPrefix(imported, module+"/"); ours {
		switch other := rowOf(to); {
		case covered(testSupport, to) && row < 5:
			t.Errorf("%s imports %s, which is for tests only", rel, to)
		case other > row:
			t.Errorf("%s (row %d) imports %s (row %d): imports go down; declare an interface where it is consumed", rel, row, to, other)
		case other == 4 && row == 4:
			t.Errorf("%s imports %s: shardctrler, shardkv and clerk know each other by gRPC only", rel, to)
		}
		return
	}
	for library, may := range owners {
		if (imported == library || strings.HasPrefix(imported, library+"/")) && !covered(may, rel) {
			t.Errorf("%s imports %s, which only %v may", rel, imported, may)
		}
	}
	if row < 3 && strings.HasPrefix(imported, "google.golang.org/") {
		t.Errorf("%s imports %s: gRPC and protobuf begin at row 3", rel, imported)
	}
	if isStepMachine(rel) && slices.Contains(impure, imported) {
		t.Errorf("%s imports %q: step machines get time, randomness and I/O from their drivers", rel, imported)
	}
}

// An application that imports clerk links neither Raft nor Pebble.
func TestClerkIsLight(t *testing.T) {
	for _, p := range list(t, "-deps", "./clerk") {
		for _, heavy := range []string{"github.com/hashicorp/raft", "github.com/cockroachdb/pebble", "go.etcd.io/bbolt",
			path.Join(module, "raftgroup"), path.Join(module, "shardkv"), path.Join(module, "shardctrler")} {
			if p.ImportPath == heavy {
				t.Errorf("clerk links %s", heavy)
			}
		}
	}
}
