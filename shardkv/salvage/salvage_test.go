package salvage_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/salvage"
)

const shards = 4

var self, other = shardcfg.Incarnation{1}, shardcfg.Incarnation{2}

func identity(gid shardcfg.GroupID) formation.Identity {
	member := formation.Member{Label: "a", ServerID: "a.00112233445566778899aabbccddeeff", Address: "127.0.0.1:1"}
	return formation.Identity{Format: 1, Cluster: shardcfg.ClusterID{9}, Group: gid, Incarnation: self, ShardCount: shards,
		Label: member.Label, ServerID: member.ServerID, Founders: []formation.Member{member}, LogStore: logstore.KindDefault}
}

// keyIn returns a key of a shard.
func keyIn(t *testing.T, shard shardcfg.ShardID) []byte {
	t.Helper()
	for b := range 256 {
		if key := []byte{'k', byte(b)}; shardcfg.ShardOf(key, shards) == shard {
			return key
		}
	}
	t.Fatalf("no key of shard %d", shard)
	return nil
}

// entries are a group's life: by config it owns shards 0 to 2; it creates 0 and 1,
// freezes 1 for another group, and never gets as far as creating 2.
func entries(t *testing.T) []kvfsm.Command {
	config := func(num shardcfg.ConfigNum, owners ...shardcfg.GroupID) *kvfsm.Adopt {
		return &kvfsm.Adopt{Cluster: shardcfg.ClusterID{9}, Config: &shardcfg.Config{Num: num, Shards: owners,
			Groups: map[shardcfg.GroupID]shardcfg.Group{
				1: {Incarnation: self, Replicas: []string{"127.0.0.1:1"}, Weight: 1, State: shardcfg.GroupMember},
				2: {Incarnation: other, Replicas: []string{"127.0.0.1:2"}, Weight: 1, State: shardcfg.GroupMember},
			}, Pins: map[shardcfg.ShardID]shardcfg.Pin{}}}
	}
	put := func(shard shardcfg.ShardID, value string) *kvfsm.Write {
		return &kvfsm.Write{Op: kvfsm.OpPut, Key: keyIn(t, shard), Value: []byte(value)}
	}
	return []kvfsm.Command{
		config(1, 1, 1, 1, 2), &kvfsm.Create{Shard: 0, Claimer: self}, &kvfsm.Create{Shard: 1, Claimer: self},
		put(0, "old"), put(1, "frozen"), config(2, 1, 2, 1, 2), &kvfsm.Start{Shard: 1, Handoff: 2},
		&kvfsm.Freeze{Shard: 1, Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2}, put(0, "last"),
	}
}

// makeDir makes the directory of a stopped replica whose state stands behind all but
// the last tail entries of its log.
func makeDir(t *testing.T, gid shardcfg.GroupID, tail int) string {
	t.Helper()
	dir := t.TempDir()
	log, err := logstore.Open(logstore.KindDefault, dir, logstore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := pebblestore.Open(pebblestore.Options{Dir: filepath.Join(dir, formation.StateDir)})
	if err != nil {
		t.Fatal(err)
	}
	all := entries(t)
	for i, c := range all {
		e := entry.Entry{Feature: 1, Clock: uint64(1000 + i), Commands: []entry.Command{kvfsm.Encode(c)}}
		if err := log.StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Type: raft.LogCommand, Data: e.Append(nil)}); err != nil {
			t.Fatal(err)
		}
		if i == len(all)-1-tail {
			machine := kvfsm.New(kvfsm.Config{Group: 1, Incarnation: self, ShardCount: shards})
			if _, err := raftgroup.Replay(st, machine, log); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(st.Close(), log.Close(), formation.Take(dir, identity(gid))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files reads all files of a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = info.ModTime().String() + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func scan(t *testing.T, s *salvage.Salvage, frozen bool) map[string]string {
	t.Helper()
	found := map[string]string{}
	if err := s.Reader(frozen).Scan(context.Background(), nil, false, func(key, value []byte) error {
		found[string(key)] = string(value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// Claim: a directory is salvaged up to the end of its log, or with the state alone,
// and is not changed; shards are told apart that were served, that were frozen, and
// whose data is lacking though the group was to serve them.
func TestSalvage(t *testing.T) {
	all := uint64(len(entries(t)))
	for tail := range 3 {
		for _, link := range []bool{false, true} {
			dir := makeDir(t, 1, tail)
			before := files(t, dir)
			for _, stateOnly := range []bool{false, true} {
				s, err := salvage.Open(salvage.Options{Dir: dir, Copy: filepath.Join(t.TempDir(), "copy"), Link: link, StateOnly: stateOnly})
				if err != nil {
					t.Fatal(err)
				}
				f := s.Found()
				wantIndex, wantValue, wantTail := all, "last", tail
				if stateOnly {
					wantIndex, wantTail = all-uint64(tail), 0
					if tail > 0 {
						wantValue = "old"
					}
				}
				if f.StateIndex != all-uint64(tail) || f.AppliedIndex != wantIndex || f.Entries != wantTail || f.Clock != 999+wantIndex || f.Config != 2 {
					t.Errorf("tail %d, state only %v: %+v", tail, stateOnly, f)
				}
				frozen := stateOnly && tail == 2 // not yet
				wantServed, wantFrozen := []shardcfg.ShardID{0}, []shardcfg.ShardID{1}
				if frozen {
					wantServed, wantFrozen = []shardcfg.ShardID{0, 1}, nil
				}
				if !slices.Equal(f.Served, wantServed) || !slices.Equal(f.Frozen, wantFrozen) || !slices.Equal(f.Lacking, []shardcfg.ShardID{2}) {
					t.Errorf("tail %d, state only %v: served %v, frozen %v, lacking %v", tail, stateOnly, f.Served, f.Frozen, f.Lacking)
				}
				want := map[string]string{string(keyIn(t, 0)): wantValue}
				if frozen {
					want[string(keyIn(t, 1))] = "frozen"
				}
				if got := scan(t, s, false); !maps.Equal(got, want) {
					t.Errorf("tail %d, state only %v: keys %q, want %q", tail, stateOnly, got, want)
				}
				want[string(keyIn(t, 1))] = "frozen"
				if got := scan(t, s, true); !maps.Equal(got, want) {
					t.Errorf("tail %d, state only %v, with frozen ones: keys %q, want %q", tail, stateOnly, got, want)
				}
				if err := errors.Join(s.Check(), s.Close()); err != nil {
					t.Error(err)
				}
			}
			if !maps.Equal(before, files(t, dir)) {
				t.Errorf("tail %d, link %v: the directory was changed", tail, link)
			}
		}
	}
}

// Claim: a reformed directory is that of another group, whose shards are frozen for
// the one that was destroyed, and that shares nothing with the old directory.
func TestReform(t *testing.T) {
	dir := makeDir(t, 1, 1)
	fresh := filepath.Join(t.TempDir(), "new")
	s, err := salvage.Open(salvage.Options{Dir: dir, Copy: fresh})
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Reform(7, "b", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	read, err := formation.Read(fresh)
	if err != nil || read.Incarnation != id.Incarnation || id.Incarnation == self || id.Group != 7 || id.Label != "b" ||
		id.Cluster != (shardcfg.ClusterID{9}) || len(id.Founders) != 1 || id.Founders[0].Address != "127.0.0.1:9" {
		t.Errorf("identity %+v, on disk %+v, %v", id, read, err)
	}
	// Once the store is open it removes files of its own accord.
	entries, err := os.ReadDir(fresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "salvaged-log" {
			t.Error("the old log was left behind")
		}
	}
	for path := range files(t, fresh) {
		if info, err := os.Stat(path); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("%s is shared, or gone: %v", path, err)
		}
	}
	st, err := pebblestore.Open(pebblestore.Options{Dir: filepath.Join(fresh, formation.StateDir)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	records, err := kvfsm.ReadRecords(st)
	if err != nil || len(records) != 2 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, r := range records {
		if r.Phase != kvfsm.PhaseFrozen || r.To != (kvfsm.Peer{Incarnation: self, Group: 1}) {
			t.Errorf("shard %d is %v for %v", r.Shard, r.Phase, r.To)
		}
	}
}

// Claim: what is no stopped replica of a group is refused, and nothing is left of the
// attempt.
func TestRefusals(t *testing.T) {
	inUse := makeDir(t, 1, 0)
	lock, err := os.Create(filepath.Join(inUse, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	damaged := makeDir(t, 1, 0)
	if err := os.WriteFile(filepath.Join(damaged, formation.FileName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	stateless := makeDir(t, 1, 0)
	if err := os.RemoveAll(filepath.Join(stateless, formation.StateDir)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir  string
		want func(error) bool
	}{
		"in use":           {inUse, func(err error) bool { return errors.As(err, new(*host.LockedError)) }},
		"a controller's":   {makeDir(t, 0, 0), func(err error) bool { return errors.As(err, new(*salvage.RefusedError)) }},
		"damaged identity": {damaged, formation.Refused},
		"no state":         {stateless, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
		"nothing":          {t.TempDir(), func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
	} {
		to := filepath.Join(t.TempDir(), "copy")
		if _, err := salvage.Open(salvage.Options{Dir: c.dir, Copy: to}); err == nil || !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(to); !os.IsNotExist(err) {
			t.Errorf("%s: something is left: %v", name, err)
		}
	}
	taken := t.TempDir()
	if _, err := salvage.Open(salvage.Options{Dir: makeDir(t, 1, 0), Copy: taken}); !errors.Is(err, os.ErrExist) {
		t.Errorf("into a directory that is there: %v", err)
	}
}
