package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/logstore"
)

// dirWatchEvery is how often the data directory is looked at.
const dirWatchEvery = time.Second

// A dirWatch notices that the data directory was removed, or replaced by another,
// under a running replica. The files stay open, so that every write succeeds, and
// nothing of it will be there after a restart: such a replica must not acknowledge
// anything more.
//
// If it is only the file of the lock, nothing is lost: the replica stops as well, for
// another process could start on the directory, and may be started again.
type dirWatch struct {
	host *Host
	log  string // kind of the log store
}

// run looks until ctx ends. A disk that hangs does not hold it up.
func (w *dirWatch) run(ctx context.Context) {
	ticker := time.NewTicker(dirWatchEvery)
	defer ticker.Stop()
	unlocked := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		looked := make(chan error, 1)
		go func() { looked <- w.look() }()
		select {
		case <-ctx.Done():
			return
		case err := <-looked:
			// Who removes a directory may begin with the lock.
			if errors.Is(err, errLockLost) && !unlocked {
				unlocked = true
				continue
			}
			if err != nil {
				w.host.fatal(err)
				return
			}
			unlocked = false
		}
	}
}

// errLockLost says that the directory is as it was, but for the file of its lock.
var errLockLost = errors.New("its file " + lockFile + " was removed while the replica was running, so that another process could use the directory: start the replica again")

// look says what is wrong with the directory, as a *formation.DamagedError, unless it
// is errLockLost. An error of the disk is left to those who write to it.
func (w *dirWatch) look() error {
	dir, lock := w.host.opts.DataDir, w.host.lock
	damaged := func(problem string) error {
		return &formation.DamagedError{Path: dir, Problem: problem + " while the replica was running"}
	}
	switch found, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return damaged("the data directory was removed")
	case err == nil && !os.SameFile(lock.dir, found):
		return damaged("the data directory was replaced by another")
	}
	for _, name := range []string{formation.FileName, formation.StateDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return damaged(name + " was removed")
		}
	}
	if w.log != logstore.KindMemory {
		if exists, err := logstore.Exists(w.log, dir); err == nil && !exists {
			return damaged("the log store (" + w.log + ") was removed")
		}
	}
	held, err := lock.file.Stat()
	if err != nil {
		return nil
	}
	if found, err := os.Stat(filepath.Join(dir, lockFile)); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(held, found) {
		return fmt.Errorf("data directory %s: %w", dir, errLockLost)
	}
	return nil
}
