package transfer

import (
	"errors"
	"strings"
	"testing"
)

// A key is a path only if its file is below the directory under exactly that
// name.
func TestCheckPath(t *testing.T) {
	for key, want := range map[string]error{
		"a": nil, "a/b/c": nil, "a b/ü.txt": nil, ".hidden": nil, "...": nil, "a..b": nil, "..a/b": nil,
		"\xff\xfe": nil, "-rf": nil, `back\slash`: nil, "new\nline": nil,
		strings.Repeat("n", 255): nil,
		"":                       ErrNotAPath,
		"/":                      ErrEscapes,
		"/etc/passwd":            ErrEscapes,
		"..":                     ErrEscapes,
		"../a":                   ErrEscapes,
		"a/../../b":              ErrEscapes,
		"a/..":                   ErrEscapes,
		".":                      ErrNotAPath,
		"./a":                    ErrNotAPath,
		"a/./b":                  ErrNotAPath,
		"a//b":                   ErrNotAPath,
		"a/":                     ErrNotAPath,
		"a\x00b":                 ErrNotAPath,
		"a/.shoal-export-ABCDEFGHIJKLMNOPQRSTUVWXYZ/b": ErrNotAPath,
		".shoal-export-notes":                          nil,
		strings.Repeat("n", 256):                       ErrNotAPath,
		strings.Repeat("n/", 2000) + "n":               ErrNotAPath,
	} {
		if err := CheckPath([]byte(key)); !errors.Is(err, want) {
			t.Errorf("%.40q: %v; want %v", key, err, want)
		}
	}
}

// An error names the first problems and counts the others, up to a bound.
func TestRefusedErrorIsBounded(t *testing.T) {
	var p problems
	for range 100 {
		p.add(CheckPath([]byte("../x")))
	}
	text := p.err().Error()
	if strings.Count(text, "\n") != problemsListed+1 || !strings.Contains(text, "files: 100;") || !strings.Contains(text, "and 80 more") {
		t.Errorf("error is:\n%s", text)
	}
	if !errors.Is(p.err(), ErrEscapes) {
		t.Error("does not match its problems' kind")
	}
	for p.add(CheckPath([]byte("/x"))) {
	}
	if text := p.err().Error(); !strings.Contains(text, "files: 1000 or more;") {
		t.Errorf("error is:\n%s", text)
	}
}
