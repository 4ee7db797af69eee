package tidy

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/integration/paste"
)

// documents returns the project's Markdown files, their text by their path from
// the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	docs := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			text, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(root, p)
			if err != nil {
				t.Fatal(err)
			}
			docs[filepath.ToSlash(rel)] = string(text)
		}
	}
	return docs
}

// names returns what the group of a pattern matches, in all Go sources that keep.
func names(t *testing.T, pattern string, keep func(source) bool) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, s := range sources(t) {
		if !keep(s) {
			continue
		}
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(s.text, -1) {
			found[string(m[1])] = true
		}
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

// What a document links to is there.
func TestLinks(t *testing.T) {
	for doc, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path.Join(path.Dir(doc), m[1])
			if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(target))); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc, m[1])
			}
		}
	}
}

// No block for a shell has a comment: zsh, unlike bash, takes one that is pasted
// for arguments. What a command does stands around the block, or in a table.
func TestBlocksHaveNoComments(t *testing.T) {
	blocks, err := paste.Blocks(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		for line := range strings.Lines(b.Text) {
			if b.Language == "sh" && (strings.HasPrefix(line, "#") || strings.Contains(line, " #")) {
				t.Errorf("%s:%d: take the comment out of the block: %q", b.Doc, b.Line, line)
			}
		}
	}
}

// Tests, commands, make targets and packages that a document names are there. A
// test may be named by the beginning of its name.
func TestNamesInDocuments(t *testing.T) {
	tests := names(t, `(?m)^func (Test\w+)\(`, func(s source) bool { return s.test })
	commands := names(t, `Use:\s+"([a-z]+)`, func(s source) bool { return strings.HasPrefix(s.path, "cmd/shoal/") })
	commands["completion"], commands["help"] = true, true // cobra's own
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	for _, check := range []struct {
		what, pattern string
		exists        func(name string) bool
	}{
		{"test", `\b(Test[A-Z]\w+)`, func(name string) bool {
			for test := range tests {
				if strings.HasPrefix(test, name) {
					return true
				}
			}
			return false
		}},
		{"command", "(?m)(?:^|`)(?:bin/)?shoal ([a-z]+)", func(name string) bool { return commands[name] }},
		{"make target", "(?m)(?:^|`)make ([a-z]+)", func(name string) bool { return targets[name] }},
		{"package", `go (?:run|test|build)(?: -\w+)* \./([\w/]+)`, func(name string) bool {
			info, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(name)))
			return err == nil && info.IsDir()
		}},
	} {
		for doc, text := range documents(t) {
			for _, m := range regexp.MustCompile(check.pattern).FindAllStringSubmatch(text, -1) {
				if !check.exists(strings.TrimSuffix(m[1], "/")) {
					t.Errorf("%s names the %s %s, which does not exist", doc, check.what, m[1])
				}
			}
		}
	}
}

// docs/operations.md lists every metric, and no other: in code, as name{labels},
// without the prefix that its row names.
func TestMetrics(t *testing.T) {
	exported := names(t, `"shoal_((?:raft|kv|controller)_\w+)"`, func(s source) bool { return !s.test })
	for name := range names(t, `newGauge\("(\w+)"`, func(s source) bool { return !s.test }) {
		exported["raft_"+name] = true
	}
	if len(exported) == 0 {
		t.Fatal("no metric is found in the sources")
	}
	listed := map[string]bool{}
	for line := range strings.Lines(documents(t)["docs/operations.md"]) {
		row := regexp.MustCompile("^\\|[^|]*`shoal_(raft|kv|controller)_` \\|(.*)").FindStringSubmatch(line)
		if row == nil {
			for _, m := range regexp.MustCompile(`\bshoal_((?:raft|kv|controller)_\w*[a-z])`).FindAllStringSubmatch(line, -1) {
				if !exported[m[1]] {
					t.Errorf("docs/operations.md names shoal_%s, which is not exported", m[1])
				}
			}
			continue
		}
		for _, m := range regexp.MustCompile("`(\\w+)(?:\\{[a-z,]*\\})?`").FindAllStringSubmatch(row[2], -1) {
			listed[row[1]+"_"+m[1]] = true
		}
	}
	for name := range exported {
		if !listed[name] {
			t.Errorf("shoal_%s is exported; list it in docs/operations.md", name)
		}
	}
	for name := range listed {
		if !exported[name] {
			t.Errorf("docs/operations.md lists shoal_%s, which is not exported", name)
		}
	}
}

// Decisions are numbered without gaps, and each says what and why.
func TestDecisions(t *testing.T) {
	var numbers []string
	for doc, text := range documents(t) {
		name, ok := strings.CutPrefix(doc, "docs/decisions/")
		if !ok {
			continue
		}
		numbers = append(numbers, name[:4])
		for _, part := range []string{"# " + name[:4] + ": ", "**Decision.**", "**Why.**"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q", doc, part)
			}
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if want := fmt.Sprintf("%04d", i+1); n != want {
			t.Errorf("docs/decisions has %s where %s is due", n, want)
		}
	}
}
