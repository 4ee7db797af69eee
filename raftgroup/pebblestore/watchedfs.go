package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/stall"
)

// watchedFS is the file system below everything that the store does. A failure
// of the store is
//   - an operation that outlasts the limit, a read as well as a write. Pebble's own
//     checks of a disk's health watch no reads, and take a process that was paused
//     for a disk that stalls;
//   - a file that can't be created, or whose content can't be read, written or
//     synced, whoever asked: also while a checkpoint is sent, or a state received.
//
// Deleting whole directories is not watched: it may take long, and nothing waits
// for it.
type watchedFS struct {
	vfs.FS
	stop  *failStop
	limit time.Duration // not positive: no limit
}

// watch begins to watch one operation.
func (fs *watchedFS) watch(op, name string) *stall.Watch {
	return stall.Begin(fs.limit, func() {
		_ = fs.stop.fail(fmt.Errorf("disk stalled: %s of %s takes more than %v", op, name, fs.limit))
	})
}

// judge returns what was given to it, and fails the store for any error but the end
// of a file.
func (fs *watchedFS) judge(op, name string, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		_ = fs.stop.fail(fmt.Errorf("%s %s: %w", op, name, err))
	}
	return err
}

// file watches a file that was opened.
func (fs *watchedFS) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, fs: fs, name: name}, nil
}

// Create implements vfs.FS.
func (fs *watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer fs.watch("create", name).Done()
	f, err := fs.FS.Create(name, c)
	return fs.file(name, f, fs.judge("create", name, err))
}

// Open implements vfs.FS.
func (fs *watchedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	defer fs.watch("open", name).Done()
	f, err := fs.FS.Open(name, opts...)
	return fs.file(name, f, err)
}

// OpenReadWrite implements vfs.FS.
func (fs *watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	defer fs.watch("open", name).Done()
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	return fs.file(name, f, err)
}

// OpenDir implements vfs.FS.
func (fs *watchedFS) OpenDir(name string) (vfs.File, error) {
	defer fs.watch("open", name).Done()
	f, err := fs.FS.OpenDir(name)
	return fs.file(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (fs *watchedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer fs.watch("reuse", from).Done()
	f, err := fs.FS.ReuseForWrite(from, to, c)
	return fs.file(to, f, err)
}

// Link implements vfs.FS.
func (fs *watchedFS) Link(from, to string) error {
	defer fs.watch("link", to).Done()
	return fs.FS.Link(from, to)
}

// Remove implements vfs.FS.
func (fs *watchedFS) Remove(name string) error {
	defer fs.watch("removal", name).Done()
	return fs.FS.Remove(name)
}

// Rename implements vfs.FS.
func (fs *watchedFS) Rename(from, to string) error {
	defer fs.watch("rename", to).Done()
	return fs.FS.Rename(from, to)
}

// MkdirAll implements vfs.FS.
func (fs *watchedFS) MkdirAll(dir string, perm os.FileMode) error {
	defer fs.watch("creation", dir).Done()
	return fs.FS.MkdirAll(dir, perm)
}

// List implements vfs.FS.
func (fs *watchedFS) List(dir string) ([]string, error) {
	defer fs.watch("listing", dir).Done()
	return fs.FS.List(dir)
}

// Stat implements vfs.FS.
func (fs *watchedFS) Stat(name string) (vfs.FileInfo, error) {
	defer fs.watch("stat", name).Done()
	return fs.FS.Stat(name)
}

// Unwrap implements vfs.FS.
func (fs *watchedFS) Unwrap() vfs.FS { return fs.FS }

type watchedFile struct {
	vfs.File
	fs   *watchedFS
	name string
}

// Read implements vfs.File.
func (f *watchedFile) Read(p []byte) (int, error) {
	defer f.fs.watch("read", f.name).Done()
	n, err := f.File.Read(p)
	return n, f.fs.judge("read", f.name, err)
}

// ReadAt implements vfs.File.
func (f *watchedFile) ReadAt(p []byte, at int64) (int, error) {
	defer f.fs.watch("read", f.name).Done()
	n, err := f.File.ReadAt(p, at)
	return n, f.fs.judge("read", f.name, err)
}

// Write implements vfs.File.
func (f *watchedFile) Write(p []byte) (int, error) {
	defer f.fs.watch("write", f.name).Done()
	n, err := f.File.Write(p)
	return n, f.fs.judge("write", f.name, err)
}

// WriteAt implements vfs.File.
func (f *watchedFile) WriteAt(p []byte, at int64) (int, error) {
	defer f.fs.watch("write", f.name).Done()
	n, err := f.File.WriteAt(p, at)
	return n, f.fs.judge("write", f.name, err)
}

// Preallocate implements vfs.File.
func (f *watchedFile) Preallocate(at, length int64) error {
	defer f.fs.watch("preallocation", f.name).Done()
	return f.File.Preallocate(at, length)
}

// Sync implements vfs.File.
func (f *watchedFile) Sync() error {
	defer f.fs.watch("sync", f.name).Done()
	return f.fs.judge("sync", f.name, f.File.Sync())
}

// SyncData implements vfs.File.
func (f *watchedFile) SyncData() error {
	defer f.fs.watch("sync", f.name).Done()
	return f.fs.judge("sync", f.name, f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f *watchedFile) SyncTo(length int64) (bool, error) {
	defer f.fs.watch("sync", f.name).Done()
	full, err := f.File.SyncTo(length)
	return full, f.fs.judge("sync", f.name, err)
}

// Close implements vfs.File.
func (f *watchedFile) Close() error {
	defer f.fs.watch("close", f.name).Done()
	return f.File.Close()
}
