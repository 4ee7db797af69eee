//go:build lossydisk

package logstore

// These tests run on a disk that loses what was not synced. They need bbolt to tell
// of its syncs, which it does in the build of TestDurability alone.

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// A lossyDisk knows what of the files in directories of the operating system would
// be there after a loss of power: of a file its content at its last sync, and any
// of the blocks that were written since; of a directory its names at its last sync.
type lossyDisk struct {
	mu    sync.Mutex
	files map[uint64][]byte            // by inode
	names map[string]map[string]uint64 // by directory
	// ignored are parts of paths whose syncs do nothing.
	ignored string
	// before, if set, is called before a sync takes effect.
	before func(path string)
}

func newLossyDisk() *lossyDisk {
	d := &lossyDisk{files: map[uint64][]byte{}, names: map[string]map[string]uint64{}, ignored: os.Getenv("LOSSY_IGNORED")}
	bbolt.SyncHook = d.synced
	return d
}

// options open a store on the disk.
func (d *lossyDisk) options() Options {
	return Options{NoSync: d.ignored == "all", synced: d.synced}
}

func inode(path string) (uint64, bool) {
	info, err := os.Stat(path)
	if err != nil {
		panic(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino, info.IsDir()
}

func (d *lossyDisk) synced(path string) {
	if d.before != nil {
		d.before(path)
	}
	if d.ignored != "" && strings.Contains(filepath.Base(path), d.ignored) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, isDir := inode(path)
	if !isDir {
		b, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		d.files[n] = b
		return
	}
	if d.ignored == "names" {
		return
	}
	names := map[string]uint64{}
	for name := range listed(path) {
		names[name], _ = inode(filepath.Join(path, name))
	}
	d.names[path] = names
}

func listed(dir string) map[string]bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names
}

// crash makes in to what a loss of power now would leave of dir. r decides which
// of the unsynced blocks were written; nil: none.
func (d *lossyDisk) crash(dir, to string, r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := map[uint64][]byte{}
	for name := range listed(dir) {
		n, _ := inode(filepath.Join(dir, name))
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			panic(err)
		}
		now[n] = b
	}
	for name, n := range d.names[dir] {
		block := 512 // what a disk writes at once, or not at all
		if strings.HasPrefix(name, hardStateFile) {
			block = 16 // the hard state asks for less
		}
		b := torn(d.files[n], now[n], block, r)
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			panic(err)
		}
		// What is there after a crash is what a disk has.
		m, _ := inode(filepath.Join(to, name))
		d.files[m] = b
	}
	if d.names[dir] != nil {
		names := map[string]uint64{}
		for name := range listed(to) {
			names[name], _ = inode(filepath.Join(to, name))
		}
		d.names[to] = names
	}
}

// torn is the durable content with some of the blocks that were written since.
func torn(durable, now []byte, block int, r *rand.Rand) []byte {
	b := bytes.Clone(durable)
	if r == nil {
		return b
	}
	share := r.IntN(3) // none, some, all
	for at := 0; at < len(now); at += block {
		end := min(at+block, len(now))
		if end <= len(durable) && bytes.Equal(durable[at:end], now[at:end]) {
			continue
		}
		if share == 2 || share == 1 && r.IntN(2) == 0 {
			if len(b) < end {
				b = append(b, make([]byte, end-len(b))...)
			}
			copy(b[at:end], now[at:end])
		}
	}
	return b
}

// A history is what a store was told and has answered.
type history struct {
	log  map[uint64]raft.Log
	vote hardState
}

func (h history) clone() history { return history{log: maps.Clone(h.log), vote: h.vote} }

// matches reports whether a store shows just this.
func (h history) matches(s *checked) error {
	indexes := slices.Sorted(maps.Keys(h.log))
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if len(indexes) == 0 {
		if first != 0 || last != 0 {
			return fmt.Errorf("the log goes from %d to %d, want none", first, last)
		}
	} else if first != indexes[0] || last != indexes[len(indexes)-1] {
		return fmt.Errorf("the log goes from %d to %d, want %d to %d", first, last, indexes[0], indexes[len(indexes)-1])
	}
	for _, i := range indexes {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil || l.Term != h.log[i].Term || !bytes.Equal(l.Data, h.log[i].Data) {
			return fmt.Errorf("entry %d is %+v, %v", i, l, err)
		}
	}
	if state, err := s.hard.get(); err != nil || !state.sameVote(h.vote) {
		return fmt.Errorf("term and vote are %d, %d %s (%v), want %d, %d %s", state.term, state.voteTerm, state.candidate, err,
			h.vote.term, h.vote.voteTerm, h.vote.candidate)
	}
	return nil
}

// A change is one thing that Raft does to a store.
type change struct {
	name  string
	do    func(s *checked) error
	after history
}

// randomChange draws what Raft might do next.
func randomChange(r *rand.Rand, h history) change {
	next := h.clone()
	indexes := slices.Sorted(maps.Keys(h.log))
	var last uint64
	if len(indexes) > 0 {
		last = indexes[len(indexes)-1]
	}
	switch kind := r.IntN(10); {
	case kind < 5 || len(indexes) < 2 && kind < 8:
		first := last + 1
		if r.IntN(10) == 0 {
			first += uint64(r.IntN(5)) // a snapshot was received
		}
		next.vote.term = max(next.vote.term, 1)
		var logs []*raft.Log
		for i := range 1 + r.IntN(4) {
			l := raft.Log{Index: first + uint64(i), Term: next.vote.term, Data: make([]byte, r.IntN(900))}
			for j := range l.Data {
				l.Data[j] = byte(r.Uint32())
			}
			logs, next.log[l.Index] = append(logs, &l), l
		}
		next.vote.term = h.vote.term
		return change{"append", func(s *checked) error { return s.StoreLogs(logs) }, next}
	case kind < 8:
		i := r.IntN(len(indexes))
		low, high := indexes[0], indexes[i]
		if kind == 7 {
			low, high = indexes[i], last
		}
		maps.DeleteFunc(next.log, func(i uint64, _ raft.Log) bool { return low <= i && i <= high })
		return change{fmt.Sprintf("delete %d to %d", low, high), func(s *checked) error { return s.DeleteRange(low, high) }, next}
	case kind == 8 || h.vote.voteTerm == h.vote.term:
		next.vote.term++
		return change{"term", func(s *checked) error { return s.SetUint64([]byte(nameCurrentTerm), next.vote.term) }, next}
	}
	next.vote.voteTerm, next.vote.candidate = h.vote.term, []byte{byte('a' + r.IntN(3)), ':', '1'}
	return change{"vote", func(s *checked) error {
		if err := s.SetUint64([]byte(nameLastVoteTerm), next.vote.voteTerm); err != nil {
			return err
		}
		return s.Set([]byte(nameLastVoteCand), next.vote.candidate)
	}, next}
}

// Claim: whenever power is lost, between and within writes of any of the files, the
// store opens, and shows what it had answered, with the change that was under way
// or without it; and it shows the same again when it is opened again.
func TestLossyPowerCuts(t *testing.T) {
	d := newLossyDisk()
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		told := history{log: map[uint64]raft.Log{}}
		var s *checked
		pending := change{name: "creation", after: told}
		cuts := 0
		d.before = func(path string) {
			if filepath.Dir(path) != dir && path != dir || r.IntN(3) > 0 {
				return
			}
			before := d.before
			d.before = nil // a store that is opened after the crash is not cut again
			defer func() { d.before = before }()
			cuts++
			checkCrash(t, d, dir, r, told, pending)
		}
		for range 2 { // two lives of the store
			var err error
			if s, err = open(KindBolt, dir, d.options()); err != nil {
				t.Fatal(err)
			}
			for range 25 {
				pending = randomChange(r, told)
				if err := pending.do(s); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, pending.name, err)
				}
				told = pending.after
				if err := told.matches(s); err != nil {
					t.Fatalf("seed %d: after %s: %v", seed, pending.name, err)
				}
			}
			pending = change{name: "nothing", after: told}
			s.Close()
		}
		if cuts < 30 {
			t.Fatalf("seed %d: power was cut only %d times", seed, cuts)
		}
	}
}

func checkCrash(t *testing.T, d *lossyDisk, dir string, r *rand.Rand, told history, pending change) {
	t.Helper()
	crashed, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(crashed)
	d.crash(dir, crashed, r)
	for opening := range 2 {
		s, err := open(KindBolt, crashed, d.options())
		if err != nil {
			t.Fatalf("a crash within %s: %v", pending.name, err)
		}
		without, with := told.matches(s), pending.after.matches(s)
		s.Close()
		shown := pending.after
		if without == nil {
			shown = told
		}
		if left, err := readBoltFile(filepath.Join(crashed, boltFileName), 0); err != nil || !slices.Equal(left, slices.Sorted(maps.Keys(shown.log))) {
			t.Fatalf("a crash within %s leaves the entries %v in the file (%v), shown are %d", pending.name, left, err, len(shown.log))
		}
		switch {
		case without == nil:
			pending.after = told
		case with == nil:
			told = pending.after
		default:
			t.Fatalf("opening %d after a crash within %s: %v; %v", opening, pending.name, without, with)
		}
	}
}

// LossyDisk is a lossyDisk for the contract.
type LossyDisk struct{ d *lossyDisk }

func NewLossyDisk() LossyDisk { return LossyDisk{newLossyDisk()} }

func (l LossyDisk) Open(dir string) (LogStore, error) { return Open(KindBolt, dir, l.d.options()) }

func (l LossyDisk) Crash(dir, to string) { l.d.crash(dir, to, nil) }
