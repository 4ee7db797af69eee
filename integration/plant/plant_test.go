package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/integration/overlay"
)

const root = "../.."

// Every planted bug still fits the sources: its texts are found exactly once,
// what it leaves compiles, its name is its own, and somebody is asked to catch
// it.
func TestBugsFitTheSources(t *testing.T) {
	seen, all := map[string]bool{}, everything()
	c := newChecker(t, all)
	for _, b := range all {
		if seen[b.name] || strings.Contains(b.name, "|") {
			t.Errorf("a second bug is called %q, or the name would break the table", b.name)
		}
		seen[b.name] = true
		if len(b.catchers) == 0 {
			t.Errorf("%s: nobody is asked to catch it", b.name)
		}
		sources, err := overlay.Sources(root, b.edits)
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		if err := c.check(sources); err != nil {
			t.Errorf("%s: it does not compile: %v", b.name, err)
		}
	}
}

// A checker type-checks packages with some of their files replaced, against
// what the go command compiled of the others.
type checker struct {
	fset     *token.FileSet
	imports  types.Importer
	packages map[string][]string // directory -> files, from the root
	parsed   map[string]*ast.File
}

func newChecker(t *testing.T, bugs []bug) *checker {
	var dirs []string
	for _, b := range bugs {
		for _, e := range b.edits {
			dirs = append(dirs, "./"+path.Dir(e.File))
		}
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	c := &checker{fset: token.NewFileSet(), packages: map[string][]string{}, parsed: map[string]*ast.File{}}
	for _, line := range list(t, dirs, "-f", `{{.Dir}}{{range .GoFiles}} {{.}}{{end}}`) {
		fields := strings.Fields(line)
		absolute, err := filepath.Abs(root)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := filepath.Rel(absolute, fields[0])
		if err != nil {
			t.Fatal(err)
		}
		c.packages[filepath.ToSlash(dir)] = fields[1:]
	}
	exports := map[string]string{}
	for _, line := range list(t, dirs, "-deps", "-export", "-f", `{{.ImportPath}} {{.Export}}`) {
		if fields := strings.Fields(line); len(fields) == 2 {
			exports[fields[0]] = fields[1]
		}
	}
	c.imports = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	return c
}

func list(t *testing.T, packages []string, args ...string) []string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"list"}, args, packages)...)
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// check checks the packages of the replaced files, each by itself.
func (c *checker) check(sources map[string]string) error {
	done := map[string]bool{}
	for file := range sources {
		dir := path.Dir(file)
		if done[dir] {
			continue
		}
		done[dir] = true
		var files []*ast.File
		for _, name := range c.packages[dir] {
			f, err := c.parse(path.Join(dir, name), sources)
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		config := types.Config{Importer: c.imports}
		if _, err := config.Check(dir, c.fset, files, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) parse(name string, sources map[string]string) (*ast.File, error) {
	if content, replaced := sources[name]; replaced {
		return parser.ParseFile(c.fset, name, content, parser.SkipObjectResolution)
	}
	if f := c.parsed[name]; f != nil {
		return f, nil
	}
	f, err := parser.ParseFile(c.fset, filepath.Join(root, name), nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	c.parsed[name] = f
	return f, nil
}

// A row that was written is read back, and one of a bug that nothing notices is
// not.
func TestTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "planted.md")
	bugs := []bug{
		{name: "a", source: "s", edits: one("p/f.go", "", "")},
		{name: "b", source: "s", edits: one("p/f.go", "", "")},
	}
	want := result{by: "p: TestX", seconds: 1.5, commit: "abc"}
	if err := writeTable(file, bugs, map[string]result{"a": want}); err != nil {
		t.Fatal(err)
	}
	rows, err := readTable(file)
	if err != nil || len(rows) != 1 || rows["a"] != want {
		t.Fatalf("%v, %v", rows, err)
	}
}
