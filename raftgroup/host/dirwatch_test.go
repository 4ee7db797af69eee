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
	replace := func(dir string) error {
		if err := os.Rename(dir, dir+".old"); err != nil {
			return err
		}
		return os.CopyFS(dir, os.DirFS(dir+".old"))
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
			dir := filepath.Join(t.TempDir(), "data")
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
