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
// relative to the directory, with slashes. It yields them in lexical order.
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
	wg.Go(func() { d.count(counting, live) })
	n := uint64(0)
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && e.IsDir():
			return nil
		}
		n++
		if err != nil {
			return yield(Item{Name: path, Problem: err})
		}
		return yield(d.item(path, e))
	})
	stop()
	wg.Wait()
	if err == nil {
		live.total.Store(n)
	}
	return err
}

func (d *Dir) item(path string, e fs.DirEntry) Item {
	it := Item{Name: path}
	rel, err := filepath.Rel(d.root, path)
	if err != nil {
		it.Problem = err
		return it
	}
	it.Key = []byte(filepath.ToSlash(rel))
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
	it.Load = func() ([]byte, error) { return readBounded(path) }
	return it
}

// count sets the progress's total to the number of files.
func (d *Dir) count(ctx context.Context, live *Live) {
	n := uint64(0)
	err := filepath.WalkDir(d.root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			n++
		}
		return ctx.Err()
	})
	if err == nil {
		live.total.Store(n)
	}
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
