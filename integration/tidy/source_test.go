package tidy

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	fileLinesMax     = 500
	functionLinesMax = 70
)

// A source is one Go file of the module.
type source struct {
	path      string // relative to the root, with slashes
	text      []byte
	file      *ast.File
	generated bool
	test      bool
}

var fset = token.NewFileSet()

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		all = append(all, source{path: filepath.ToSlash(rel), text: text, file: file,
			generated: ast.IsGenerated(file), test: strings.HasSuffix(path, "_test.go")})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A long file or function hides a missing noun.
func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		if n := bytes.Count(s.text, []byte("\n")); n > fileLinesMax && !s.test {
			t.Errorf("%s has %d lines, more than %d: which noun is missing?", s.path, n, fileLinesMax)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || s.test {
				continue
			}
			if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; n > functionLinesMax {
				t.Errorf("%s: %s has %d lines, more than %d: split it where it changes its subject", s.path, f.Name.Name, n, functionLinesMax)
			}
		}
	}
}

// Every package says what it is for; every exported name has a doc comment.
func TestComments(t *testing.T) {
	documented := map[string]bool{}
	dirs := map[string]string{}
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		dir := filepath.Dir(s.path)
		dirs[dir] = s.file.Name.Name
		if s.file.Doc != nil {
			documented[dir] = true
		}
		if s.test || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			checkDoc(t, s, d)
		}
	}
	for dir := range dirs {
		if !documented[dir] {
			t.Errorf("%s has no package comment: purpose, permitted imports, which goroutine owns what", dir)
		}
	}
}

// documentedElsewhere are methods whose contract is their interface's.
var documentedElsewhere = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "Kind": true}

func checkDoc(t *testing.T, s source, d ast.Decl) {
	missing := func(name string) {
		t.Errorf("%s: exported %s has no doc comment", s.path, name)
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !documentedElsewhere[d.Name.Name] {
			missing(d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
					missing(spec.Name.Name)
				}
			case *ast.ValueSpec:
				if spec.Names[0].IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					missing(spec.Names[0].Name)
				}
			}
		}
	}
}

// exportedReceiver is true for functions, and for methods of exported types.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	x := d.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	if index, ok := x.(*ast.IndexExpr); ok {
		x = index.X
	}
	name, ok := x.(*ast.Ident)
	return ok && name.IsExported()
}

// clocks are what a step machine may not use of package time.
var clocks = map[string]bool{"Now": true, "Since": true, "Until": true, "After": true, "AfterFunc": true,
	"Sleep": true, "Tick": true, "NewTimer": true, "NewTicker": true}

// Step machines start no goroutine, use no channel, and read no clock.
func TestStepMachinesArePure(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !isStepMachine(filepath.ToSlash(filepath.Dir(s.path))) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
				t.Errorf("%s: a step machine starts no goroutine and knows no channel", fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && clocks[n.Sel.Name] {
					t.Errorf("%s: a step machine reads no clock; time comes in as an argument", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// leftovers are things that a finished line doesn't have. The patterns are put
// together so that this file passes its own test.
var leftovers = []struct {
	pattern *regexp.Regexp
	tests   bool // looked for in tests only
	mend    string
}{
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`), false, "do it, or write it down in docs/"},
	{regexp.MustCompile(`(?i)\bfor ` + `now\b|not ` + `implemented\b`), false, "finish it"},
	{regexp.MustCompile(`\bt\.Sk` + `ip|\bb\.Sk` + `ip`), true, "a test that is skipped tests nothing"},
	{regexp.MustCompile(`"/wo` + `rk/|"/ro` + `ot/|/home/[a-z]`), false, "no path of one machine"},
}

// Nothing unfinished is left, and no test is skipped.
func TestLeftovers(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(s.text))
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			for _, l := range leftovers {
				if l.pattern.Match(lines.Bytes()) && (s.test || !l.tests) {
					t.Errorf("%s:%d: %q: %s", s.path, n, strings.TrimSpace(lines.Text()), l.mend)
				}
			}
		}
	}
}

var sleep = regexp.MustCompile(`\btime\.Sl` + `eep\(`)

// A test waits for conditions. A pause is either a beat of a loop that polls a
// condition, or part of the load; its line says which. Under synctest a sleep is
// a step of virtual time, and free.
func TestSleeps(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test || bytes.Contains(s.text, []byte(`"testing/synctest"`)) {
			continue
		}
		n := 0
		for line := range strings.Lines(string(s.text)) {
			n++
			if sleep.MatchString(line) && !strings.Contains(line, "// poll") && !strings.Contains(line, "// load") && !strings.Contains(line, "// virtual") {
				t.Errorf("%s:%d: %q: wait for a condition; the beat of a loop that polls says // poll, a pause of the load // load, a step of virtual time // virtual", s.path, n, strings.TrimSpace(line))
			}
		}
	}
}
