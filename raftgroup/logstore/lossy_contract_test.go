//go:build lossydisk

package logstore_test

import (
	"testing"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/logstore/logstoretest"
)

// Claim: the contract holds on a disk that loses what was not synced.
func TestLossyContract(t *testing.T) {
	disk := logstore.NewLossyDisk()
	dirs := map[logstore.LogStore]string{}
	open := func(t *testing.T, dir string) logstore.LogStore {
		s, err := disk.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		dirs[s] = dir
		return s
	}
	logstoretest.Run(t, logstoretest.Subject{
		Open: func(t *testing.T) logstore.LogStore { return open(t, t.TempDir()) },
		Crash: func(t *testing.T, s logstore.LogStore) logstore.LogStore {
			dir := t.TempDir()
			disk.Crash(dirs[s], dir)
			return open(t, dir)
		},
	})
}
