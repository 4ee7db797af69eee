package host

import (
	"context"
	"errors"
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
type dirWatch struct {
	host *Host
	log  string // kind of the log store
}

// run looks until ctx ends. A disk that hangs does not hold it up.
func (w *dirWatch) run(ctx context.Context) {
	ticker := time.NewTicker(dirWatchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		looked := make(chan string, 1)
		go func() { looked <- w.look() }()
		select {
		case <-ctx.Done():
			return
		case problem := <-looked:
			if problem != "" {
				w.host.fatal(&formation.DamagedError{Path: w.host.opts.DataDir, Problem: problem})
				return
			}
		}
	}
}

// look says what is wrong with the directory; empty: nothing. An error of the disk
// is left to those who write to it.
func (w *dirWatch) look() string {
	dir := w.host.opts.DataDir
	held, err := w.host.lock.file.Stat()
	if err != nil {
		return ""
	}
	found, err := os.Stat(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "the data directory was removed while the replica was running"
	case err == nil && !os.SameFile(held, found):
		return "the data directory was replaced by another while the replica was running"
	}
	for _, name := range []string{formation.FileName, formation.StateDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return name + " was removed while the replica was running"
		}
	}
	if w.log == logstore.KindMemory {
		return ""
	}
	if exists, err := logstore.Exists(w.log, dir); err == nil && !exists {
		return "the log store (" + w.log + ") was removed while the replica was running"
	}
	return ""
}
