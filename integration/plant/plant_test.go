package main

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// Every planted bug still fits the sources: its texts are found exactly once,
// what it leaves parses, its name is its own, and somebody is asked to catch it.
func TestBugsFitTheSources(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range everything() {
		if seen[b.name] {
			t.Errorf("two bugs are called %q", b.name)
		}
		seen[b.name] = true
		if len(b.catchers) == 0 {
			t.Errorf("%s: nobody is asked to catch it", b.name)
		}
		sources, err := b.planted(filepath.Join("..", ".."))
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		for file, content := range sources {
			if _, err := parser.ParseFile(token.NewFileSet(), file, content, 0); err != nil {
				t.Errorf("%s: what it leaves does not parse: %v", b.name, err)
			}
		}
	}
}

// A row that was written is read back, and one of a bug that nothing notices is
// not.
func TestTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "planted.md")
	bugs := []bug{
		{name: "a|b", source: "s", edits: one("p/f.go", "", "")},
		{name: "c", source: "s", edits: one("p/f.go", "", "")},
	}
	want := result{by: "p: TestX", seconds: 1.5, commit: "abc"}
	if err := writeTable(file, bugs, map[string]result{"a|b": want}); err != nil {
		t.Fatal(err)
	}
	rows, err := readTable(file)
	if err != nil || len(rows) != 1 || rows["a/b"] != want {
		t.Fatalf("%v, %v", rows, err)
	}
}
