package pebblestore

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// privateFS is the disk, with files and directories that their owner alone may
// read: Pebble leaves that to the umask. A file is empty while it is anybody's.
type privateFS struct{ vfs.FS }

const (
	privateFile os.FileMode = 0o600
	privateDir  os.FileMode = 0o700
)

// private takes a file that was just opened away from the others.
func private(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, privateFile); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Create implements vfs.FS.
func (fs privateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return private(name, f, err)
}

// OpenReadWrite implements vfs.FS.
func (fs privateFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	return private(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (fs privateFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(old, name, c)
	return private(name, f, err)
}

// MkdirAll implements vfs.FS.
func (fs privateFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.FS.MkdirAll(dir, perm&privateDir)
}

// Lock implements vfs.FS.
func (fs privateFS) Lock(name string) (io.Closer, error) {
	l, err := fs.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, privateFile); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Unwrap implements vfs.FS.
func (fs privateFS) Unwrap() vfs.FS { return fs.FS }
