package transfer

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Dir is a Source of one key per regular file below a directory: its path
// relative to the directory, with slashes. It yields them in no particular order.
type Dir struct{ root string }

// NewDir returns the directory at path; a link to a directory is followed.
func NewDir(path string) (*Dir, error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", path)
	}
	return &Dir{root: root}, nil
}

// Each yields the files. What can't be listed or is no regular file is yielded
// with its problem. A second walk counts the files meanwhile, for the progress;
// once the first has ended, its own count stands.
func (d *Dir) Each(ctx context.Context, live *Live, yield func(Item) error) error {
	counting, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := d.count(counting); err == nil {
			live.total.Store(n)
		}
	})
	n := uint64(0)
	err := d.walk(ctx, ".", func(name string, e fs.DirEntry, problem error) error {
		n++
		return yield(d.item(name, e, problem))
	})
	stop()
	wg.Wait()
	if err == nil {
		live.total.Store(n)
	}
	return err
}

// count counts what Each yields.
func (d *Dir) count(ctx context.Context) (uint64, error) {
	n := uint64(0)
	err := d.walk(ctx, ".", func(string, fs.DirEntry, error) error { n++; return nil })
	return n, err
}

// walk visits the files of one directory, and then those of the directories in
// it: only the names of these are kept meanwhile. It visits with the problem, and
// without an entry, what it can't list or must leave out.
func (d *Dir) walk(ctx context.Context, dir string, visit func(name string, e fs.DirEntry, problem error) error) error {
	f, err := os.Open(filepath.Join(d.root, dir))
	if err != nil {
		return visit(dir, nil, err)
	}
	var below []string
	var stop error
	err = eachEntry(f, func(e fs.DirEntry) error {
		name := filepath.Join(dir, e.Name())
		switch {
		case ctx.Err() != nil:
			stop = ctx.Err()
		case isStaging(e.Name()):
			stop = visit(name, nil, errLeftover)
		case e.IsDir():
			below = append(below, name)
		default:
			stop = visit(name, e, nil)
		}
		return stop
	})
	_ = f.Close() // it was only read
	switch {
	case stop != nil:
		return stop
	case err != nil:
		stop = visit(dir, nil, err)
	}
	for _, name := range below {
		if stop == nil {
			stop = d.walk(ctx, name, visit)
		}
	}
	return stop
}

func (d *Dir) item(name string, e fs.DirEntry, problem error) Item {
	it := Item{Name: filepath.Join(d.root, name), Key: []byte(filepath.ToSlash(name)), Problem: problem}
	if problem != nil {
		return it
	}
	if !e.Type().IsRegular() {
		it.Problem = errNotRegular
		return it
	}
	info, err := e.Info()
	if err != nil {
		it.Problem = err
		return it
	}
	it.Size = info.Size()
	it.Load = func() ([]byte, error) { return readBounded(it.Name) }
	return it
}

// readBounded reads a file, but no more than is needed to see that it is too
// large: it may have grown since it was listed.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, shardcfg.ValueBytesMax+1))
}
