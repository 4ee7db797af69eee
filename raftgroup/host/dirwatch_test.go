package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// Claim: a replica stops, and says why, when its data directory is removed under it,
// as a whole or in part, or replaced by another: its writes succeed, and would not be
// there after a restart.
func TestDirectoryIsRemovedUnderReplica(t *testing.T) {
	// In one step: between two of them the directory would be away.
	replace := func(dir string) error {
		link := filepath.Dir(dir)
		other := link + ".other"
		if err := os.MkdirAll(filepath.Join(other, filepath.Base(dir)), 0o700); err != nil {
			return err
		}
		return errors.Join(os.Symlink(other, link+".new"), os.Rename(link+".new", link))
	}
	part := func(name string) func(dir string) error {
		return func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
	}
	for name, c := range map[string]struct {
		remove func(dir string) error
		says   string
	}{
		"all": {os.RemoveAll, "removed"}, "replaced": {replace, "replaced"},
		"log": {part("raft.db"), "log store"}, "votes": {part("hardstate"), "log store"},
		"state": {part(formation.StateDir), formation.StateDir}, "identity": {part(formation.FileName), formation.FileName},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(t.TempDir(), link); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(link, "data")
			h := newTestHost(t, "1", dir, "127.0.0.1:0", nil)
			h.run(7, map[string]string{"1": h.Addr()})
			propose(t, "a", h)
			if err := c.remove(dir); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it stops", func() bool { return h.Fatal() != nil })
			var damaged *formation.DamagedError
			if err := h.Fatal(); !errors.As(err, &damaged) || !formation.Refused(err) {
				t.Fatalf("it stopped with %v", err)
			}
			if !strings.Contains(damaged.Problem, c.says) {
				t.Errorf("it says %q, want %q in it", damaged.Problem, c.says)
			}
		})
	}
}

// Claim: a replica whose file lock was removed, by somebody who took it for left over,
// or replaced, stops, since another process could start on its directory; it says so,
// and that it may be started again, which it may. Nobody is told to empty a directory
// that has everything.
func TestLockIsRemovedUnderReplica(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			h := newTestHost(t, "1", dir, "127.0.0.1:0", nil)
			h.run(7, map[string]string{"1": h.Addr()})
			propose(t, "a", h)
			if err := harm(filepath.Join(dir, lockFile)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it stops", func() bool { return h.Fatal() != nil })
			if err := h.Fatal(); formation.Refused(err) || !errors.Is(err, errLockLost) {
				t.Fatalf("it stopped with %v", err)
			}
			h.close()
			again := newTestHost(t, "1", dir, h.Addr(), nil)
			again.run(7, nil)
			expectLog(t, again, "a")
		})
	}
}
