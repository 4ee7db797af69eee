package logstore

import (
	"bytes"
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

// TestFailedVoteWrite: after a write of the vote failed, nobody knows what is on
// disk, so the store answers nothing about votes any more.
func TestFailedVoteWrite(t *testing.T) {
	b := newMemory()
	s, err := newChecked(KindMemory, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte(nameCurrentTerm), 3); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := s.SetUint64([]byte(nameCurrentTerm), 4); err == nil {
		t.Fatal("a failed write was answered as done")
	}
	b.mu.closed = false
	if n, err := s.GetUint64([]byte(nameCurrentTerm)); err == nil {
		t.Fatalf("the store answers term %d after a failed write", n)
	}
	if err := s.SetUint64([]byte(nameCurrentTerm), 4); err == nil {
		t.Fatal("a failed write was retried")
	}
}

// TestDamage: one changed bit in an entry or in the vote is found when it is
// read, and never handed to Raft.
func TestDamage(t *testing.T) {
	b := newMemory()
	s, err := newChecked(KindMemory, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte(nameCurrentTerm), 3); err != nil {
		t.Fatal(err)
	}
	entry := raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("x")}
	if err := s.StoreLog(&entry); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(*raft.Log){
		"data":       func(l *raft.Log) { l.Data = []byte("dat\x60") },
		"cut":        func(l *raft.Log) { l.Data = l.Data[:2] },
		"term":       func(l *raft.Log) { l.Term++ },
		"type":       func(l *raft.Log) { l.Type = raft.LogConfiguration },
		"index":      func(l *raft.Log) { l.Index++ },
		"extensions": func(l *raft.Log) { l.Extensions = bytes.Clone(l.Extensions); l.Extensions[0]++ },
		"checksum":   func(l *raft.Log) { l.Extensions = nil },
	} {
		d := b.clone()
		log := d.mu.logs[7]
		log.Data = bytes.Clone(log.Data)
		damage(&log)
		d.mu.logs[7] = log
		damaged, err := newChecked(KindMemory, d)
		if err != nil {
			t.Fatal(err)
		}
		var got raft.Log
		if err := damaged.GetLog(7, &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want %v", name, err, ErrCorrupt)
		}
		if got.Index != 0 || got.Data != nil {
			t.Errorf("%s: a damaged entry was handed out: %+v", name, got)
		}
	}
	vote := b.mu.values[string(keyVoteRecord)]
	for i := range vote {
		d := b.clone()
		changed := bytes.Clone(vote)
		changed[i] ^= 0x10
		d.mu.values[string(keyVoteRecord)] = changed
		if _, err := newChecked(KindMemory, d); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d of the vote: got %v, want %v", i, err, ErrCorrupt)
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
