package pebblestore

import (
	"math/rand/v2"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// crashingFS is a file system that takes a crash clone of itself just before
// one of the steps that change names or make something durable.
type crashingFS struct {
	*vfs.MemFS
	r  *rand.Rand
	mu sync.Mutex

	countdown int // steps to go; negative: not armed
	clone     *vfs.MemFS
}

// arm lets the crash happen n steps from now.
func (fs *crashingFS) arm(n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.countdown = n
}

// crashed returns the clone, nil if the steps were too few, and disarms.
func (fs *crashingFS) crashed() *vfs.MemFS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.countdown = -1
	return fs.clone
}

func (fs *crashingFS) step() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.countdown == 0 {
		fs.clone = crashClone(fs.MemFS, fs.r)
	}
	fs.countdown = max(-1, fs.countdown-1)
}

func (fs *crashingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.step()
	f, err := fs.MemFS.Create(name, c)
	return fs.wrap(f), err
}

func (fs *crashingFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.MemFS.OpenDir(name)
	return fs.wrap(f), err
}

func (fs *crashingFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	fs.step()
	f, err := fs.MemFS.ReuseForWrite(from, to, c)
	return fs.wrap(f), err
}

func (fs *crashingFS) Rename(from, to string) error {
	fs.step()
	return fs.MemFS.Rename(from, to)
}

func (fs *crashingFS) Remove(name string) error {
	fs.step()
	return fs.MemFS.Remove(name)
}

func (fs *crashingFS) RemoveAll(name string) error {
	fs.step()
	return fs.MemFS.RemoveAll(name)
}

func (fs *crashingFS) MkdirAll(name string, perm os.FileMode) error {
	fs.step()
	return fs.MemFS.MkdirAll(name, perm)
}

func (fs *crashingFS) wrap(f vfs.File) vfs.File {
	if f == nil {
		return nil
	}
	return &crashingFile{File: f, fs: fs}
}

type crashingFile struct {
	vfs.File
	fs *crashingFS
}

func (f *crashingFile) Sync() error {
	f.fs.step()
	return f.File.Sync()
}

func (f *crashingFile) SyncData() error {
	f.fs.step()
	return f.File.SyncData()
}
