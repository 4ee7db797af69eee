package logstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/logstore/logstoretest"
)

// content is all that a store tells.
type content struct {
	ballot  logstoretest.Ballot
	entries []raft.Log
}

func contentOf(t *testing.T, s logstore.LogStore) (c content, err error) {
	t.Helper()
	c.ballot = logstoretest.ReadBallot(t, s)
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			continue
		} else if err != nil {
			return content{}, err
		}
		c.entries = append(c.entries, l)
	}
	return c, nil
}

// TestFlips: after a change of any one byte of any of its files, a store refuses
// to open, or shows exactly the log, the term and the vote that it had.
func TestFlips(t *testing.T) {
	for name, fill := range map[string]func(t *testing.T, s logstore.LogStore){
		"empty": func(*testing.T, logstore.LogStore) {},
		"short": func(t *testing.T, s logstore.LogStore) {
			logstoretest.Vote(t, s, 4, "a:1", nil)
			store(t, s, 1, 3, 4)
			logstoretest.Vote(t, s, 5, "b:1", nil)
		},
		"long": func(t *testing.T, s logstore.LogStore) {
			logstoretest.Vote(t, s, 4, "a:1", nil)
			for i := uint64(1); i <= 45; i++ {
				store(t, s, i, i, 4)
			}
			logstoretest.Vote(t, s, 5, "b:1", nil)
			store(t, s, 46, 46, 5)
		},
		"cut": func(t *testing.T, s logstore.LogStore) {
			logstoretest.Vote(t, s, 4, "a:1", nil)
			store(t, s, 1, 60, 4)
			if err := errors.Join(s.DeleteRange(41, 60), s.DeleteRange(1, 10)); err != nil {
				t.Fatal(err)
			}
			store(t, s, 70, 75, 5) // behind a gap
			if err := s.DeleteRange(75, 75); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openFast(t, dir)
			fill(t, s)
			want, err := contentOf(t, s)
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"raft.db", "hardstate"} {
				counts := flipAll(t, dir, file, want)
				t.Logf("%s: %v", file, counts)
			}
		})
	}
}

func store(t *testing.T, s logstore.LogStore, first, last, term uint64) {
	t.Helper()
	if err := s.StoreLogs(logstoretest.Entries(first, last, term)); err != nil {
		t.Fatal(err)
	}
}

// openFast opens without fsync: there is no crash in this test.
func openFast(t *testing.T, dir string) logstore.LogStore {
	t.Helper()
	s, err := logstore.Open(logstore.KindBolt, dir, logstore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// flipAll changes each byte of a file in turn, in three ways, and counts what came
// of it.
func flipAll(t *testing.T, dir, file string, want content) map[string]int {
	sound := map[string][]byte{}
	for _, name := range []string{"raft.db", "hardstate"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sound[name] = b
	}
	work, counts := t.TempDir(), map[string]int{}
	for _, at := range places(t, dir, file, sound[file]) {
		was := sound[file][at]
		for _, is := range []byte{was ^ 1<<(at%8), ^was, 0} {
			if is == was {
				continue
			}
			for name, b := range sound {
				if name == file {
					b = bytes.Clone(b)
					b[at] = is
				}
				if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			outcome, err := judge(t, work, want)
			if err != nil {
				t.Errorf("%s with byte %d changed from %02x to %02x: %v", file, at, was, is, err)
			}
			counts[outcome]++
		}
	}
	return counts
}

// places says which bytes of a file are changed: all, except that of what lies free
// (pages that no tree reaches, long runs of zeros) a sample is enough.
func places(t *testing.T, dir, file string, b []byte) (at []int) {
	used := func(int) bool { return true }
	if file == "raft.db" {
		var err error
		if used, err = logstore.BoltUses(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	const sample, run = 61, 32
	var zeros [run]byte
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(b); i++ {
		free := !used(i) || bytes.Equal(b[max(0, i-run/2):min(len(b), i+run/2)], zeros[:min(len(b), i+run/2)-max(0, i-run/2)])
		if free && i%sample == 0 || !free && i%step == 0 {
			at = append(at, i)
		}
	}
	return at
}

// judge opens a store that may be damaged.
func judge(t *testing.T, dir string, want content) (outcome string, err error) {
	s, err := logstore.Open(logstore.KindBolt, dir, logstore.Options{NoSync: true})
	if errors.Is(err, logstore.ErrCorrupt) {
		return "refused", nil
	}
	if err != nil {
		return "refused otherwise", fmt.Errorf("opened with %w", err)
	}
	defer s.Close()
	got, err := contentOf(t, s)
	if err != nil {
		return "refused late", fmt.Errorf("read with %w", err)
	}
	if !reflect.DeepEqual(got, want) {
		return "other", fmt.Errorf("%v with %d entries, want %v with %d", got.ballot, len(got.entries), want.ballot, len(want.entries))
	}
	return "the same", nil
}
