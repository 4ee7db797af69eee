package host

import (
	"context"
	"errors"
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
