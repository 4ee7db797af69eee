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
		strings.Repeat("n", 255):         nil,
		"":                               ErrNotAPath,
		"/":                              ErrEscapes,
		"/etc/passwd":                    ErrEscapes,
		"..":                             ErrEscapes,
		"../a":                           ErrEscapes,
		"a/../../b":                      ErrEscapes,
		"a/..":                           ErrEscapes,
		".":                              ErrNotAPath,
		"./a":                            ErrNotAPath,
		"a/./b":                          ErrNotAPath,
		"a//b":                           ErrNotAPath,
		"a/":                             ErrNotAPath,
		"a\x00b":                         ErrNotAPath,
		strings.Repeat("n", 256):         ErrNotAPath,
		strings.Repeat("n/", 2000) + "n": ErrNotAPath,
	} {
		if err := CheckPath([]byte(key)); !errors.Is(err, want) {
			t.Errorf("%.40q: %v; want %v", key, err, want)
		}
	}
}

// Two keys collide where one is the directory of the other, in whichever order
// they come, however deep, and where the file system takes their names for one.
func TestPlanFindsCollisions(t *testing.T) {
	for _, c := range []struct {
		keys string
		fold bool
		want int
	}{
		{keys: "a b c/d c/e c/f/g", want: 0},
		{keys: "a a/b", want: 1},
		{keys: "a/b a", want: 1},
		{keys: "a/b/c/d a/b/c/e a/b", want: 1},
		{keys: "a a/b a/c", want: 1}, // one key to mend
		{keys: "a a/b a/b/c", want: 2},
		{keys: "a/b ab a.b", want: 0},
		{keys: "a a", want: 0}, // one key, met twice
		{keys: "A a", want: 0},
		{keys: "A a", fold: true, want: 1},
		{keys: "Dir/x dir", fold: true, want: 1},
		{keys: "a .. a/b /", want: 3},
	} {
		p := newPlan()
		p.fold = c.fold
		for key := range strings.FieldsSeq(c.keys) {
			p.add([]byte(key))
		}
		if p.count != c.want || (p.err() != nil) != (c.want > 0) {
			t.Errorf("%s: %d problems: %v; want %d", c.keys, p.count, p.err(), c.want)
		}
	}
}

// An error names the first problems and counts the others.
func TestRefusedErrorIsBounded(t *testing.T) {
	p := newPlan()
	for range 100 {
		p.add([]byte("../x"))
	}
	text := p.err().Error()
	if strings.Count(text, "\n") != problemsListed+1 || !strings.Contains(text, "files: 100;") || !strings.Contains(text, "and 80 more") {
		t.Errorf("error is:\n%s", text)
	}
	if !errors.Is(p.err(), ErrEscapes) {
		t.Error("does not match its problems' kind")
	}
}
