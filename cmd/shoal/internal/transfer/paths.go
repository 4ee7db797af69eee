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

// problemsListed bounds the problems that a RefusedError keeps, and problemsMax
// those that an export looks for.
const (
	problemsListed = 20
	problemsMax    = 1000
)

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
	Count    int     // of all; problemsMax: or more
}

// Error lists the problems, a line each.
func (e *RefusedError) Error() string {
	var b strings.Builder
	count := strconv.Itoa(e.Count)
	if e.Count >= problemsMax {
		count += " or more"
	}
	fmt.Fprintf(&b, "keys that can't be exported as files: %s; nothing was written (lines of JSON take every key: 'shoal scan -o json', or 'shoal salvage' to a .jsonl file)", count)
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
		case isStaging(part):
			return fail(ErrNotAPath, fmt.Sprintf("%q is a name that exports use for files on their way", part))
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

// problems collects why an export is refused. It is not safe for concurrent use.
type problems struct {
	count int
	first []error
}

// add records a problem; false: there are so many that it is not worth looking
// for more.
func (p *problems) add(err error) bool {
	p.count++
	if len(p.first) < problemsListed {
		p.first = append(p.first, err)
	}
	return p.count < problemsMax
}

// err is a *RefusedError if there was a problem.
func (p *problems) err() error {
	if p.count == 0 {
		return nil
	}
	// The keys came in no particular order.
	slices.SortFunc(p.first, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return &RefusedError{Problems: p.first, Count: p.count}
}

func quote(key []byte) string {
	if len(key) > 80 {
		return strconv.Quote(string(key[:80])) + "..."
	}
	return strconv.Quote(string(key))
}
