package host

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// TestCloseUnderHangingReplica: stores are not closed under a replica that does
// not stop: its Raft may still be writing to them.
func TestCloseUnderHangingReplica(t *testing.T) {
	h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", nil)
	h.run(7, map[string]string{"1": h.Addr()})
	propose(t, "a", h)
	proposed := make(chan error, 1)
	go func() {
		_, err := h.replica.Propose(context.Background(), entry.Command{Kind: hangKind})
		proposed <- err
	}()
	r := h.running()
	eventually(t, "the command is committed", func() bool { return r.replica.Status().CommitIndex > r.replica.Status().AppliedIndex })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := r.close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close of a replica that hangs: %v", err)
	}
	if _, err := r.log.LastIndex(); err != nil {
		t.Errorf("the log under a running Raft: %v", err)
	}
	if err := r.store.Sync(); err != nil {
		t.Errorf("the store under a running Raft: %v", err)
	}
	close(h.hang)
	<-proposed
}

// TestDirectoryIsDurable: a new data directory is fsynced into every directory
// above it that is new, too, and into the one that was there.
func TestDirectoryIsDurable(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	synced := map[string]bool{}
	sync := func(d string) error { synced[d] = true; return nil }
	if err := createDir(dir, sync); err != nil {
		t.Fatal(err)
	}
	if !synced[root] || !synced[filepath.Join(root, "a")] || len(synced) != 2 {
		t.Fatalf("synced were %v", synced)
	}
	clear(synced)
	if err := createDir(dir, sync); err != nil || len(synced) != 0 {
		t.Fatalf("a directory that is there: %v, synced were %v", err, synced)
	}
	lock, err := lockDir(filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.release(); err != nil {
		t.Fatal(err)
	}
}
