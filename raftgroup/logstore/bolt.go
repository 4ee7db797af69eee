package logstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// boltLockWait bounds the wait for the file's lock, which another process that
// uses the same data directory would hold.
const boltLockWait = time.Second

// bolt is raft-boltdb with the two options that matter for a log that grows at
// one end and shrinks at the other: the list of free pages is not written with
// each commit, and it is a map.
type bolt struct {
	*raftboltdb.BoltStore
	path string
	// indexes are those that the file had when it was opened.
	indexes []uint64
}

// openBolt opens the file at path, or creates it, as a whole or not at all. A file
// that is there is read to its last page before bbolt sees it: bbolt trusts what
// it reads, goes back to the transaction before if the newest one can't be read,
// and crashes on pages that make no sense.
func openBolt(path string, d disk) (*bolt, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = createBolt(path, d)
	}
	if err != nil {
		return nil, err
	}
	indexes, err := readBoltFile(path, boltLockWait)
	if err != nil {
		return nil, err
	}
	s, err := openRaftBolt(path, d)
	if err != nil {
		return nil, err
	}
	return &bolt{BoltStore: s, path: path, indexes: indexes}, nil
}

func openRaftBolt(path string, d disk) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path:   path,
		NoSync: d.noSync,
		BoltOptions: &bbolt.Options{
			Timeout:        boltLockWait,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
}

func createBolt(path string, d disk) error {
	temporary := path + temporarySuffix
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	s, err := openRaftBolt(temporary, d)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(d.sync(f), f.Close()); err != nil {
		return err
	}
	return d.rename(temporary, path)
}

// Indexes implements backend, for the store as it was opened.
func (b *bolt) Indexes() ([]uint64, error) { return b.indexes, nil }

// SizeBytes implements backend.
func (b *bolt) SizeBytes() (int64, error) {
	var sum int64
	for _, path := range []string{b.path, filepath.Join(filepath.Dir(b.path), hardStateFile)} {
		info, err := os.Stat(path)
		if err != nil {
			return 0, fmt.Errorf("size of log store: %w", err)
		}
		sum += info.Size()
	}
	return sum, nil
}

// StoreLog goes through StoreLogs, as in raft-boltdb.
func (b *bolt) StoreLog(log *raft.Log) error { return b.StoreLogs([]*raft.Log{log}) }

// GetLog implements backend. What raft-boltdb can't decode is damaged.
func (b *bolt) GetLog(index uint64, log *raft.Log) error {
	err := b.BoltStore.GetLog(index, log)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
