package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// An ExportResult says what an export wrote.
type ExportResult struct {
	Keys    uint64  `json:"keys"`
	Bytes   uint64  `json:"bytes"` // of the values
	Seconds float64 `json:"seconds"`
	// Leftovers are directories in DIR that earlier exports left behind, because
	// they were killed. They may be removed, unless such an export still runs.
	Leftovers []string `json:"leftovers,omitempty"`
}

// Export writes every key with the prefix to a file below dir, which it makes
// if need be. If a key can't be a file below dir, or two need the same name, or
// dir already has something else in their place, it returns a *RefusedError and
// has written nothing. Then each file appears with its whole content, replacing
// an older one; other files are left alone. No link in dir leads it outside.
// When it returns without an error, all files are on the disk, and so are their
// names.
//
// Its memory does not grow with the number of keys. It looks at all keys first,
// for what can be seen from each alone; then it writes all files to a hidden
// directory in dir, where the file system itself finds the names that collide,
// and moves them into place. An error in that last step may leave some files in
// place; the export may be repeated.
func Export(ctx context.Context, from Scanner, prefix []byte, dir string, live *Live) (ExportResult, error) {
	e := &export{from: from, prefix: prefix, dir: dir, live: live}
	start := time.Now()
	err := e.run(ctx)
	result := ExportResult{Seconds: time.Since(start).Seconds(), Leftovers: e.leftovers}
	if err == nil {
		result.Keys, result.Bytes = live.Keys(), live.Bytes()
	}
	return result, err
}

// An export is one Export in progress.
type export struct {
	from      Scanner
	prefix    []byte
	dir       string
	live      *Live
	leftovers []string
	// synced sees each file and directory before it is fsynced; nil, but in tests.
	synced func(*os.File)
}

func (e *export) run(ctx context.Context) error {
	if err := e.survey(ctx); err != nil {
		return err
	}
	made, err := makeDirs(e.dir)
	if err == nil {
		err = e.write(ctx)
	}
	for _, dir := range slices.Backward(made) {
		if err != nil {
			_ = os.Remove(dir) // unless something is in it by now
		} else {
			err = syncDir(filepath.Dir(dir), e.synced)
		}
	}
	return err
}

// write writes all files to a staging directory, and then places them.
func (e *export) write(ctx context.Context) error {
	s, err := newStaging(e.dir, e.live)
	if err != nil {
		return err
	}
	s.synced = e.synced
	err = s.fill(ctx, func(ctx context.Context, put func(record) error) error {
		return e.from.Scan(ctx, e.prefix, false, func(key, value []byte) error { return put(record{string(key), value}) })
	})
	if err == nil {
		if err = s.place(ctx, "."); err != nil {
			err = fmt.Errorf("some files are in place already, others are not; repeat the export: %w", err)
		}
	}
	return errors.Join(err, s.close())
}

// survey reads all keys, and refuses those that can't be files or are in the way
// of what dir holds. It counts them, for the progress.
func (e *export) survey(ctx context.Context) error {
	there, err := lookInto(e.dir)
	if err != nil {
		return err
	}
	defer there.close()
	e.leftovers = there.leftovers
	var found problems
	keys := uint64(0)
	err = e.from.Scan(ctx, e.prefix, true, func(key, _ []byte) error {
		keys++
		if why := refusal(there.root, string(key)); why != nil && !found.add(why) {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	e.live.total.Store(keys)
	return found.err()
}

// errEnough ends a scan that found problemsMax problems.
var errEnough = errors.New("enough problems")

// A target is a directory as an export finds it.
type target struct {
	root      *os.Root // nil: there is none
	leftovers []string
}

func lookInto(dir string) (*target, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &target{}, nil
	}
	if err != nil {
		return nil, err
	}
	t := &target{root: root}
	f, err := root.Open(".")
	if err == nil {
		err = eachEntry(f, func(e fs.DirEntry) error {
			if e.IsDir() && isStaging(e.Name()) {
				t.leftovers = append(t.leftovers, e.Name())
			}
			return nil
		})
		_ = f.Close() // it was only read
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *target) close() {
	if t.root != nil {
		_ = t.root.Close() // it was only read
	}
}

// refusal says why a key can't be a file below a directory as it is: for the key
// itself, or for what is in the place of its file, or of a directory that it
// needs, and is no file or no directory.
func refusal(root *os.Root, key string) error {
	if err := CheckPath([]byte(key)); err != nil || root == nil {
		return err
	}
	at, info := obstacle(root, ".", key)
	switch {
	case info == nil, at == key && !info.IsDir():
		return nil
	case at == key:
		return fmt.Errorf("key %s %w: a directory of that name is there", quote([]byte(key)), ErrCollision)
	}
	return fmt.Errorf("key %s %w: %q is there and no directory", quote([]byte(key)), ErrCollision, at)
}

// obstacle returns what is below dir in the place of key, or of the first of its
// parents that is no directory; nil: nothing is.
func obstacle(root *os.Root, dir, key string) (at string, info fs.FileInfo) {
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '/' {
			continue
		}
		info, err := root.Lstat(path.Join(dir, key[:i]))
		switch {
		case err != nil:
			return "", nil // nor is anything below it
		case i == len(key), !info.IsDir():
			return key[:i], info
		}
	}
	return "", nil
}

// makeDirs makes a directory and those above it, and returns the ones that it
// made, from the top.
func makeDirs(dir string) (made []string, err error) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, at)
	}
	slices.Reverse(made)
	return made, os.MkdirAll(dir, 0o777)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string, synced func(*os.File)) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncFile(f, synced), f.Close())
}

func syncFile(f *os.File, synced func(*os.File)) error {
	if synced != nil {
		synced(f)
	}
	return f.Sync()
}
