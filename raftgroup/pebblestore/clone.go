package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Clone copies the store in dir, which no process may be using, to the new
// directory to, and changes nothing in dir. The copy is durable when it returns.
// With link, files that are never written to again are linked rather than copied,
// where that is possible: for a copy that is deleted soon, on the same disk.
func Clone(dir, to string, link bool) error {
	s := &Store{fs: vfs.Default, opts: Options{Dir: dir}}
	p, err := s.readPointer()
	if err != nil {
		return fmt.Errorf("pebblestore: clone %s: %w", dir, err)
	}
	if p.number == 0 || p.status != statusActive {
		return fmt.Errorf("pebblestore: clone %s: %w: it has no state", dir, fs.ErrNotExist)
	}
	state := stateName(p.number)
	if err := cloneTree(filepath.Join(dir, state), filepath.Join(to, state), link); err != nil {
		return fmt.Errorf("pebblestore: clone: %w", err)
	}
	if err := cloneFile(filepath.Join(dir, pointerName), filepath.Join(to, pointerName)); err != nil {
		return fmt.Errorf("pebblestore: clone: %w", err)
	}
	return syncDir(vfs.Default, to)
}

func cloneTree(from, to string, link bool) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			err = cloneTree(source, target, link)
		case link && neverWritten(e.Name()) && os.Link(source, target) == nil:
		default:
			err = cloneFile(source, target)
		}
		if err != nil {
			return err
		}
	}
	return syncDir(vfs.Default, to)
}

// neverWritten reports whether a file of Pebble's, once it is there, only ever gets
// deleted.
func neverWritten(name string) bool {
	ext := filepath.Ext(name)
	return ext == ".sst" || ext == ".blob"
}

func cloneFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
