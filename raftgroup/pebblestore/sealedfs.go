package pebblestore

import (
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sealedFS is the file system that Pebble writes to. It lets nothing through
// once the store failed: Pebble repeats a flush that failed, at once and for
// ever, and a failed sync must not be repeated. Who tries is stopped where it
// is; the store's own calls do not wait for it (see failStop.write).
//
// A failure to write the log stops the writer in the same way. Pebble would
// panic while rotating the log, in a state that not even recover survives, and
// take the other replicas of the process down.
type sealedFS struct {
	vfs.FS
	stop *failStop
}

// logSuffix is how the names of Pebble's write-ahead logs end.
const logSuffix = ".log"

// pass returns if the store is sound.
func (fs *sealedFS) pass() {
	if fs.stop.err() != nil {
		select {}
	}
}

// judge returns err unless it concerns a log.
func (fs *sealedFS) judge(op, name string, err error) error {
	if err != nil && strings.HasSuffix(name, logSuffix) {
		_ = fs.stop.fail(fmt.Errorf("%s %s: %w", op, name, err))
		select {}
	}
	return err
}

// seal wraps a file that is written.
func (fs *sealedFS) seal(name string, f vfs.File, err error) (vfs.File, error) {
	if err := fs.judge("create", name, err); err != nil {
		return nil, err
	}
	return &sealedFile{File: f, fs: fs, name: name}, nil
}

// isManifest reports whether a path is that of a manifest.
func (fs *sealedFS) isManifest(name string) bool {
	return strings.HasPrefix(fs.PathBase(name), manifestPrefix)
}

// Create implements vfs.FS.
func (fs *sealedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.pass()
	f, err := fs.FS.Create(name, c)
	if err == nil && fs.isManifest(name) {
		f = &manifestFile{File: f, fs: fs.FS, name: name}
	}
	return fs.seal(name, f, err)
}

// OpenReadWrite implements vfs.FS.
func (fs *sealedFS) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	fs.pass()
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	return fs.seal(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (fs *sealedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.pass()
	f, err := fs.FS.ReuseForWrite(from, to, c)
	return fs.seal(to, f, err)
}

// OpenDir implements vfs.FS.
func (fs *sealedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.seal(name, f, err)
}

// Link implements vfs.FS.
func (fs *sealedFS) Link(from, to string) error {
	fs.pass()
	return fs.FS.Link(from, to)
}

// Remove implements vfs.FS.
func (fs *sealedFS) Remove(name string) error {
	fs.pass()
	return fs.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (fs *sealedFS) RemoveAll(name string) error {
	fs.pass()
	return fs.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (fs *sealedFS) Rename(from, to string) error {
	fs.pass()
	return fs.FS.Rename(from, to)
}

// MkdirAll implements vfs.FS.
func (fs *sealedFS) MkdirAll(dir string, perm os.FileMode) error {
	fs.pass()
	return fs.FS.MkdirAll(dir, perm)
}

// Unwrap implements vfs.FS.
func (fs *sealedFS) Unwrap() vfs.FS { return fs.FS }

// sealedFile is a file that Pebble writes, or a directory that it syncs.
type sealedFile struct {
	vfs.File
	fs   *sealedFS
	name string
}

// Write implements vfs.File.
func (f *sealedFile) Write(p []byte) (int, error) {
	f.fs.pass()
	n, err := f.File.Write(p)
	return n, f.fs.judge("write", f.name, err)
}

// WriteAt implements vfs.File.
func (f *sealedFile) WriteAt(p []byte, at int64) (int, error) {
	f.fs.pass()
	n, err := f.File.WriteAt(p, at)
	return n, f.fs.judge("write", f.name, err)
}

// Sync implements vfs.File.
func (f *sealedFile) Sync() error {
	f.fs.pass()
	return f.fs.judge("sync", f.name, f.File.Sync())
}

// SyncData implements vfs.File.
func (f *sealedFile) SyncData() error {
	f.fs.pass()
	return f.fs.judge("sync", f.name, f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f *sealedFile) SyncTo(length int64) (bool, error) {
	f.fs.pass()
	full, err := f.File.SyncTo(length)
	return full, f.fs.judge("sync", f.name, err)
}

// Close implements vfs.File.
func (f *sealedFile) Close() error {
	return f.fs.judge("close", f.name, f.File.Close())
}
