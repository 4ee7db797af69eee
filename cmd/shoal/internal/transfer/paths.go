package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// componentBytesMax is the longest name that common file systems can store.
const componentBytesMax = 255

// pathBytesMax leaves room for the directory in the system's limit of 4096.
const pathBytesMax = 3800

// problemsListed bounds the problems that a RefusedError keeps.
const problemsListed = 20

// Reasons for which a key can't be a path.
var (
	ErrEscapes   = errors.New("would escape the directory")
	ErrNotAPath  = errors.New("is not a path")
	ErrCollision = errors.New("collides as a path")
)

// A RefusedError says that an export would not be faithful or safe. Nothing
// was written.
type RefusedError struct {
	Problems []error // the first ones
	Count    int     // of all
}

// Error lists the problems, a line each.
func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "keys that can't be exported as files: %d; nothing was written", e.Count)
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Error())
	}
	if n := e.Count - len(e.Problems); n > 0 {
		fmt.Fprintf(&b, "\n  and %d more", n)
	}
	return b.String()
}

// Unwrap returns the problems.
func (e *RefusedError) Unwrap() []error { return e.Problems }

// CheckPath returns why key can't be the path of a file below a directory: it
// matches ErrEscapes or ErrNotAPath.
func CheckPath(key []byte) error {
	fail := func(kind error, why string) error {
		return fmt.Errorf("key %s %w: %s", quote(key), kind, why)
	}
	switch {
	case len(key) == 0:
		return fail(ErrNotAPath, "it is empty")
	case len(key) > pathBytesMax:
		return fail(ErrNotAPath, fmt.Sprintf("longer than %d bytes", pathBytesMax))
	case bytes.IndexByte(key, 0) >= 0:
		return fail(ErrNotAPath, "it has a zero byte")
	case key[0] == '/':
		return fail(ErrEscapes, "it is absolute")
	}
	for part := range strings.SplitSeq(string(key), "/") {
		switch {
		case part == "":
			return fail(ErrNotAPath, "it has an empty component")
		case part == "..":
			return fail(ErrEscapes, "it has a component ..")
		case part == ".":
			return fail(ErrNotAPath, "it has a component .")
		case len(part) > componentBytesMax:
			return fail(ErrNotAPath, fmt.Sprintf("a component is longer than %d bytes", componentBytesMax))
		}
	}
	// What remains depends on the system: backslashes, colons, device names.
	if local, err := filepath.Localize(asUTF8(key)); err != nil || !filepath.IsLocal(local) {
		return fail(ErrEscapes, "it is no local path on "+runtime.GOOS)
	}
	return nil
}

// asUTF8 replaces what is not UTF-8, which filepath.Localize rejects although
// file names on unix are any bytes.
func asUTF8(key []byte) string { return strings.ToValidUTF8(string(key), "_") }

// A plan is the set of files and directories that an export would make.
type plan struct {
	fold  bool              // the file system does not tell upper from lower case
	files map[string]string // path as compared -> key
	dirs  map[string]string // path as compared -> a key below it
	// blamed are the files that were found to be directories too: each is one
	// problem, however many keys are below it.
	blamed map[string]bool
	count  int
	first  []error
}

func newPlan() *plan {
	return &plan{
		fold:  runtime.GOOS == "darwin" || runtime.GOOS == "windows",
		files: map[string]string{}, dirs: map[string]string{}, blamed: map[string]bool{},
	}
}

// add adds a key, or records why it can't be a file beside the others: because
// it is no path, or because another key needs the same name.
func (p *plan) add(key []byte) {
	if err := CheckPath(key); err != nil {
		p.problem(err)
		return
	}
	path := p.compared(string(key))
	if other, taken := p.files[path]; taken && other != string(key) {
		p.problem(fmt.Errorf("key %s %w: with key %s", quote(key), ErrCollision, quote([]byte(other))))
		return
	}
	if below, taken := p.dirs[path]; taken {
		p.blame(path, string(key), below)
	}
	p.files[path] = string(key)
	for i := strings.LastIndexByte(path, '/'); i >= 0; i = strings.LastIndexByte(path[:i], '/') {
		dir := path[:i]
		if file, taken := p.files[dir]; taken {
			p.blame(dir, file, string(key))
		}
		if _, known := p.dirs[dir]; known {
			return // and so are all above it
		}
		p.dirs[dir] = string(key)
	}
}

// blame records that the key of a file is the directory of another key.
func (p *plan) blame(path, key, below string) {
	if p.blamed[path] {
		return
	}
	p.blamed[path] = true
	p.problem(fmt.Errorf("key %s %w: it is a directory of key %s", quote([]byte(key)), ErrCollision, quote([]byte(below))))
}

// has reports whether the key was planned.
func (p *plan) has(key []byte) bool {
	planned, ok := p.files[p.compared(string(key))]
	return ok && planned == string(key)
}

// err is a *RefusedError if there was a problem.
func (p *plan) err() error {
	if p.count == 0 {
		return nil
	}
	// The keys came in no particular order.
	slices.SortFunc(p.first, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return &RefusedError{Problems: p.first, Count: p.count}
}

func (p *plan) compared(path string) string {
	if p.fold {
		return strings.ToLower(path)
	}
	return path
}

func (p *plan) problem(err error) {
	p.count++
	if len(p.first) < problemsListed {
		p.first = append(p.first, err)
	}
}

func quote(key []byte) string {
	if len(key) > 80 {
		return strconv.Quote(string(key[:80])) + "..."
	}
	return strconv.Quote(string(key))
}
