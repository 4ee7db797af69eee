// Package logstoretest is the contract that every kind of log store passes.
//
// It is for tests only. It starts no goroutine.
package logstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/logstore"
)

// A Subject is one kind of log store under test.
type Subject struct {
	// Open opens a new, empty store.
	Open func(t *testing.T) logstore.LogStore
	// Crash opens a store on what a crash of s at this moment would leave
	// behind; s stays open.
	Crash func(t *testing.T, s logstore.LogStore) logstore.LogStore
}

// Run runs the whole contract.
func Run(t *testing.T, subject Subject) {
	t.Run("Log", subject.log)
	t.Run("DeleteRange", subject.deleteRange)
	t.Run("LongTruncation", subject.longTruncation)
	t.Run("Gap", subject.gap)
	t.Run("Slices", subject.slices)
	t.Run("UnsafeAppends", subject.unsafeAppends)
	t.Run("Values", subject.values)
	t.Run("Vote", subject.vote)
	t.Run("VoteCrash", subject.voteCrash)
	t.Run("UnsafeVotes", subject.unsafeVotes)
	t.Run("Crash", subject.crash)
}

// Entries makes the entries first to last of a term, with data that tells them
// apart.
func Entries(first, last, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := first; i <= last; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return logs
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expect checks that s holds exactly the given entries.
func expect(t *testing.T, s logstore.LogStore, want []*raft.Log) {
	t.Helper()
	first, err := s.FirstIndex()
	must(t, err)
	last, err := s.LastIndex()
	must(t, err)
	var wantFirst, wantLast uint64
	if len(want) > 0 {
		wantFirst, wantLast = want[0].Index, want[len(want)-1].Index
	}
	if first != wantFirst || last != wantLast {
		t.Fatalf("the log goes from %d to %d, want %d to %d", first, last, wantFirst, wantLast)
	}
	present := map[uint64]*raft.Log{}
	for _, log := range want {
		present[log.Index] = log
	}
	low := uint64(1)
	if wantFirst > 3 {
		low = wantFirst - 3
	}
	for i := low; i <= wantLast+3; i++ {
		var got raft.Log
		err := s.GetLog(i, &got)
		log, ok := present[i]
		if !ok {
			if !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("entry %d: got error %v, want %v", i, err, raft.ErrLogNotFound)
			}
			continue
		}
		must(t, err)
		if got.Index != i || !got.AppendedAt.Equal(log.AppendedAt) || got.Term != log.Term || !got.AppendedAt.Equal(log.AppendedAt) || got.Type != log.Type || !bytes.Equal(got.Data, log.Data) || !bytes.Equal(got.Extensions, log.Extensions) {
			t.Fatalf("entry %d is %+v, want %+v", i, got, *log)
		}
	}
}

// log: what is appended is read back, of every type and size, with its time.
func (s Subject) log(t *testing.T) {
	store := s.Open(t)
	expect(t, store, nil)
	must(t, store.StoreLogs(nil))
	logs := Entries(1, 5, 1)
	logs[1].Type, logs[2].Type = raft.LogNoop, raft.LogConfiguration
	logs[1].Data, logs[3].Extensions = nil, []byte("extension")
	logs[4].Data = bytes.Repeat([]byte{0xa5}, 1<<20)
	logs[4].AppendedAt = time.Now()
	must(t, store.StoreLog(logs[0]))
	must(t, store.StoreLogs(logs[1:]))
	expect(t, store, logs)
	must(t, store.DeleteRange(4, 5))
	must(t, store.StoreLogs(Entries(4, 6, 2)))
	expect(t, store, append(logs[:3:3], Entries(4, 6, 2)...))
}

// deleteRange: exactly the range goes, whether it is a prefix, a suffix, all, or
// reaches beyond the log.
func (s Subject) deleteRange(t *testing.T) {
	all := Entries(5, 14, 3)
	for _, c := range []struct {
		name    string
		lo, hi  uint64
		remains []*raft.Log
	}{
		{"prefix", 5, 8, all[4:]},
		{"prefix from zero", 0, 8, all[4:]},
		{"suffix", 9, 14, all[:4]},
		{"suffix beyond the end", 9, 99, all[:4]},
		{"one", 14, 14, all[:9]},
		{"all", 5, 14, nil},
		{"more than all", 0, 1 << 40, nil},
		{"before", 1, 4, all},
		{"behind", 15, 20, all},
		{"nothing", 9, 8, all},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := s.Open(t)
			must(t, store.StoreLogs(all))
			must(t, store.DeleteRange(c.lo, c.hi))
			expect(t, store, c.remains)
			expect(t, s.Crash(t, store), c.remains)
			if len(c.remains) == 0 {
				must(t, store.StoreLogs(Entries(100, 101, 4)))
				expect(t, store, Entries(100, 101, 4))
			}
		})
	}
	store := s.Open(t)
	must(t, store.DeleteRange(1, 10))
	expect(t, store, nil)
}

// longTruncation: a range of more than one transaction goes as a whole.
func (s Subject) longTruncation(t *testing.T) {
	const n = 10_000
	all := Entries(1, n, 1)
	for _, c := range []struct {
		lo, hi  uint64
		remains []*raft.Log
	}{{1, n - 3, all[n-3:]}, {4, n, all[:3]}} {
		store := s.Open(t)
		for i := 0; i < n; i += 1000 {
			must(t, store.StoreLogs(all[i:i+1000]))
		}
		must(t, store.DeleteRange(c.lo, c.hi))
		expect(t, store, c.remains)
	}
}

// gap: an append behind a gap is legal, and both sides of it are read.
func (s Subject) gap(t *testing.T) {
	store := s.Open(t)
	must(t, store.StoreLogs(Entries(1, 3, 1)))
	must(t, store.StoreLogs(Entries(10, 12, 2)))
	expect(t, store, append(Entries(1, 3, 1), Entries(10, 12, 2)...))
	must(t, store.DeleteRange(1, 9))
	expect(t, store, Entries(10, 12, 2))
}

// slices: the store keeps nothing of what it is given, and hands out nothing
// that it keeps.
func (s Subject) slices(t *testing.T) {
	store := s.Open(t)
	given := Entries(1, 1, 1)
	given[0].Extensions = []byte("extension")
	must(t, store.StoreLogs(given))
	if string(given[0].Extensions) != "extension" {
		t.Fatalf("the caller's entry was changed: %q", given[0].Extensions)
	}
	clear(given[0].Data)
	clear(given[0].Extensions)
	want := Entries(1, 1, 1)
	want[0].Extensions = []byte("extension")
	var got raft.Log
	must(t, store.GetLog(1, &got))
	clear(got.Data)
	expect(t, store, want)

	candidate := []byte("a:1")
	must(t, store.SetUint64(currentTerm, 1))
	must(t, store.SetUint64(lastVoteTerm, 1))
	must(t, store.Set(lastVoteCand, candidate))
	clear(candidate)
	read, err := store.Get(lastVoteCand)
	must(t, err)
	clear(read)
	expectBallot(t, store, Ballot{1, 1, "a:1"})
}

// unsafeAppends: a batch that is no run of a log is refused as a whole.
func (s Subject) unsafeAppends(t *testing.T) {
	store := s.Open(t)
	must(t, store.StoreLogs(Entries(1, 2, 5)))
	for name, batch := range map[string][]*raft.Log{
		"hole":        {Entries(3, 3, 5)[0], Entries(5, 5, 5)[0]},
		"backwards":   {Entries(4, 4, 5)[0], Entries(3, 3, 5)[0]},
		"twice":       {Entries(3, 3, 5)[0], Entries(3, 3, 5)[0]},
		"term falls":  {Entries(3, 3, 5)[0], Entries(4, 4, 4)[0]},
		"index zero":  Entries(0, 1, 5),
		"term zero":   Entries(3, 3, 0),
		"over others": Entries(2, 4, 5),
		"hole at end": append(Entries(3, 9, 5), Entries(11, 11, 5)...),
	} {
		if err := store.StoreLogs(batch); !errors.Is(err, logstore.ErrMisuse) {
			t.Errorf("%s: got %v, want %v", name, err, logstore.ErrMisuse)
		}
	}
	expect(t, store, Entries(1, 2, 5))
	must(t, store.StoreLogs(Entries(3, 5, 5)))
	if err := store.DeleteRange(2, 4); !errors.Is(err, logstore.ErrMisuse) {
		t.Errorf("deletion from the middle: got %v, want %v", err, logstore.ErrMisuse)
	}
	expect(t, store, Entries(1, 5, 5))
}

// values: a value that was never set is "not found", in the words that Raft looks
// for, and no others are kept than Raft's.
func (s Subject) values(t *testing.T) {
	store := s.Open(t)
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand", "other"} {
		if _, err := store.GetUint64([]byte(key)); err == nil || err.Error() != "not found" {
			t.Errorf("GetUint64(%s) of an empty store: %v", key, err)
		}
		if _, err := store.Get([]byte(key)); err == nil || err.Error() != "not found" {
			t.Errorf("Get(%s) of an empty store: %v", key, err)
		}
	}
	for what, err := range map[string]error{
		"a number": store.SetUint64([]byte("other"), 1), "bytes": store.Set([]byte("other"), []byte{1}),
	} {
		if !errors.Is(err, logstore.ErrMisuse) {
			t.Errorf("%s under another name: %v", what, err)
		}
	}
}

// crash: an append, a deletion and a value that were answered are there after a
// crash.
func (s Subject) crash(t *testing.T) {
	store := s.Open(t)
	must(t, store.StoreLogs(Entries(1, 10, 1)))
	must(t, store.SetUint64([]byte("CurrentTerm"), 7))
	after := s.Crash(t, store)
	must(t, store.StoreLogs(Entries(11, 20, 2)))
	expect(t, after, Entries(1, 10, 1))
	must(t, store.DeleteRange(15, 20))
	must(t, store.DeleteRange(1, 4))
	after = s.Crash(t, store)
	expect(t, after, append(Entries(5, 10, 1), Entries(11, 14, 2)...))
	must(t, after.StoreLogs(Entries(15, 15, 7)))
	if n, err := after.GetUint64([]byte("CurrentTerm")); err != nil || n != 7 {
		t.Fatalf("term %d, %v", n, err)
	}
}
