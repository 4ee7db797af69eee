package logstore

import (
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
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
}

func openBolt(path string, o Options) (backend, error) {
	s, err := raftboltdb.New(raftboltdb.Options{
		Path:   path,
		NoSync: o.NoSync,
		BoltOptions: &bbolt.Options{
			Timeout:        boltLockWait,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, err
	}
	return &bolt{BoltStore: s, path: path}, nil
}

// GetUint64 is raft-boltdb's, without its panic on a value of another length.
func (b *bolt) GetUint64(key []byte) (uint64, error) {
	v, err := b.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: %q is no number", ErrCorrupt, key)
	}
	return b.BoltStore.GetUint64(key)
}

// StoreLog goes through StoreLogs, as in raft-boltdb.
func (b *bolt) StoreLog(log *raft.Log) error { return b.StoreLogs([]*raft.Log{log}) }

func (b *bolt) SizeBytes() (int64, error) {
	info, err := os.Stat(b.path)
	if err != nil {
		return 0, fmt.Errorf("size of log store: %w", err)
	}
	return info.Size(), nil
}
