package logstore_test

import (
	"os"
	"path/filepath"
	"testing"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/logstore/logstoretest"
)

// TestBolt: the bolt log store passes the contract; a crash is a copy of its
// files at that moment.
func TestBolt(t *testing.T) {
	dirs := map[logstore.LogStore]string{}
	open := func(t *testing.T, dir string) logstore.LogStore {
		s, err := logstore.Open(logstore.KindBolt, dir, logstore.Options{})
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
			for _, name := range []string{"raft.db", "hardstate"} {
				copyFile(t, filepath.Join(dirs[s], name), filepath.Join(dir, name))
			}
			return open(t, dir)
		},
	})
}

// TestMemory: so does the one in memory.
func TestMemory(t *testing.T) {
	logstoretest.Run(t, logstoretest.Subject{
		Open: func(t *testing.T) logstore.LogStore {
			s, err := logstore.Open(logstore.KindMemory, t.TempDir(), logstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Crash: func(t *testing.T, s logstore.LogStore) logstore.LogStore {
			crashed, err := logstore.CrashMemory(s)
			if err != nil {
				t.Fatal(err)
			}
			return crashed
		},
	})
}

// TestPlainStoreTearsVotes shows the fault that the contract guards against:
// raft-boltdb as it is, crashed between the two writes of a vote, comes back
// with the old candidate in the new term, so that a repeated request of that
// candidate is granted without a look at its log.
func TestPlainStoreTearsVotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	open := func(path string) *raftboltdb.BoltStore {
		s, err := raftboltdb.NewBoltStore(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open(path)
	logstoretest.Vote(t, s, 3, "old:1", nil)
	crashed := filepath.Join(t.TempDir(), "raft.db")
	logstoretest.Vote(t, s, 4, "new:1", func() { copyFile(t, path, crashed) })
	if got, torn := logstoretest.ReadBallot(t, open(crashed)), (logstoretest.Ballot{Term: 4, VoteTerm: 4, Candidate: "old:1"}); got != torn {
		t.Fatalf("the plain store came back with %+v; if it is atomic now, the containment can go", got)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
