package logstore

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"
)

func openBoltTest(t *testing.T, dir string) LogStore {
	t.Helper()
	s, err := Open(KindBolt, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// memoryStore is a store on backend and slots that tests can damage.
func memoryStore(t *testing.T) (*checked, *memory, *slotMemory) {
	t.Helper()
	s, err := open(KindMemory, "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, s.b.(*memory), s.hard.slots.(*slotMemory)
}

// reopen opens a store on a backend and slots that another left behind.
func reopen(b *memory, slots *slotMemory) (*checked, error) {
	hard, _, err := openHardStates(slots)
	if err != nil {
		return nil, err
	}
	return newChecked(KindMemory, b, hard)
}

// TestFailedVoteWrite: after a write of the vote failed, nobody knows what is on
// disk, so the store answers nothing about votes any more.
func TestFailedVoteWrite(t *testing.T) {
	s, _, slots := memoryStore(t)
	if err := s.SetUint64([]byte(nameCurrentTerm), 3); err != nil {
		t.Fatal(err)
	}
	slots.Close()
	if err := s.SetUint64([]byte(nameCurrentTerm), 4); err == nil {
		t.Fatal("a failed write was answered as done")
	}
	slots.mu.closed = false
	if n, err := s.GetUint64([]byte(nameCurrentTerm)); err == nil {
		t.Fatalf("the store answers term %d after a failed write", n)
	}
	if err := s.SetUint64([]byte(nameCurrentTerm), 4); err == nil {
		t.Fatal("a failed write was retried")
	}
}

// TestFailedAppend: after an append or a deletion failed, the store takes no
// others: nobody knows where its log ends.
func TestFailedAppend(t *testing.T) {
	for name, do := range map[string]func(s *checked) error{
		"append":     func(s *checked) error { return s.StoreLog(&raft.Log{Index: 3, Term: 1}) },
		"truncation": func(s *checked) error { return s.DeleteRange(2, 2) },
		"cut":        func(s *checked) error { return s.DeleteRange(1, 1) },
	} {
		for _, of := range []string{"log", "hard state"} {
			s, b, slots := memoryStore(t)
			if err := s.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}}); err != nil {
				t.Fatal(err)
			}
			if of == "log" {
				b.Close()
			} else {
				slots.Close()
			}
			if err := do(s); !errors.Is(err, ErrClosed) {
				t.Errorf("%s, while the %s can't be written: %v", name, of, err)
			}
			b.mu.closed, slots.mu.closed = false, false
			if s.StoreLog(&raft.Log{Index: 3, Term: 1}) == nil || s.DeleteRange(1, 1) == nil && name != "cut" {
				t.Errorf("after the %s failed at the %s, the store took another write", name, of)
			}
		}
	}
}

// TestDamage: an entry that is not the one that was stored is found when it is
// read, in a store that runs as in one that is opened, and never handed to Raft:
// a changed bit, an entry that is gone, an older one of the same index.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(l *raft.Log, logs map[uint64]raft.Log){
		"data":       func(l *raft.Log, _ map[uint64]raft.Log) { l.Data = []byte("dat\x60") },
		"cut":        func(l *raft.Log, _ map[uint64]raft.Log) { l.Data = l.Data[:2] },
		"term":       func(l *raft.Log, _ map[uint64]raft.Log) { l.Term++ },
		"type":       func(l *raft.Log, _ map[uint64]raft.Log) { l.Type = raft.LogConfiguration },
		"time":       func(l *raft.Log, _ map[uint64]raft.Log) { l.AppendedAt = l.AppendedAt.Add(1) },
		"index":      func(l *raft.Log, _ map[uint64]raft.Log) { l.Index++ },
		"extensions": func(l *raft.Log, _ map[uint64]raft.Log) { l.Extensions[0]++ },
		"checksum":   func(l *raft.Log, _ map[uint64]raft.Log) { l.Extensions = nil },
		"older": func(l *raft.Log, _ map[uint64]raft.Log) {
			old, _ := seal(&raft.Log{Index: 7, Term: 2, Data: []byte("old")}, 77, 0)
			*l = *old
		},
		"gone":       func(_ *raft.Log, logs map[uint64]raft.Log) { delete(logs, 7) },
		"last gone":  func(_ *raft.Log, logs map[uint64]raft.Log) { delete(logs, 7); delete(logs, 8) },
		"all gone":   func(_ *raft.Log, logs map[uint64]raft.Log) { clear(logs) },
		"first gone": func(_ *raft.Log, logs map[uint64]raft.Log) { delete(logs, 6); delete(logs, 7) },
	} {
		s, b, slots := memoryStore(t)
		for i := uint64(6); i <= 8; i++ {
			entry := raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("x")}
			if err := s.StoreLog(&entry); err != nil {
				t.Fatal(err)
			}
		}
		damaged := b.clone()
		for _, of := range []*memory{b, damaged} {
			stored := of.mu.logs[7]
			log := copyLog(&stored)
			damage(&log, of.mu.logs)
			if _, there := of.mu.logs[7]; there {
				of.mu.logs[7] = log
			}
		}
		var got raft.Log
		if err := s.GetLog(7, &got); !errors.Is(err, ErrCorrupt) || got.Index != 0 || got.Data != nil {
			t.Errorf("%s: got %+v, %v, want %v", name, got, err, ErrCorrupt)
		}
		if _, err := reopen(damaged, slots.clone()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: opened: %v, want %v", name, err, ErrCorrupt)
		}
	}
}

// TestOpen: one process at a time has the store, and an unknown kind is named.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if exists, err := Exists(KindBolt, dir); err != nil || exists {
		t.Fatalf("an empty directory has a log store: %v, %v", exists, err)
	}
	s := openBoltTest(t, dir)
	if exists, err := Exists(KindBolt, dir); err != nil || !exists {
		t.Fatalf("the log store is not seen: %v, %v", exists, err)
	}
	if size, err := s.SizeBytes(); err != nil || size == 0 || s.Kind() != KindBolt {
		t.Fatalf("%s of %d bytes, %v", s.Kind(), size, err)
	}
	if _, err := Open(KindBolt, dir, Options{}); !errors.Is(err, bolterrors.ErrTimeout) {
		t.Fatalf("opened twice: %v", err)
	}
	if _, err := Open("tape", dir, Options{}); !errors.Is(err, ErrUnknownKind) {
		t.Fatalf("unknown kind: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 1, Term: 1}); err == nil {
		t.Fatal("a closed store took an entry")
	}
}
