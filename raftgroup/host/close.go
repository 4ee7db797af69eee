package host

import (
	"context"
	"errors"
	"time"
)

const (
	// transferWait bounds how long Close tries to hand leadership over.
	transferWait = 2 * time.Second
	// graceful is how long calls in flight may take when ctx has no deadline.
	graceful = 5 * time.Second
	// stopWait bounds the stop of Raft, which no context of a caller may cut
	// short: the stores must not close under it.
	stopWait = 30 * time.Second
)

// Close drains the host and undoes Serve, Replica and New: it reports itself as
// not serving, hands leadership to another replica, lets calls in flight finish
// until ctx ends, stops Raft, and closes stores, connections and the listener.
// The first call does it, later ones return its result.
func (h *Host) Close(ctx context.Context) error {
	h.closeOnce.Do(func() { h.closeErr = h.close(ctx) })
	return h.closeErr
}

func (h *Host) close(ctx context.Context) error {
	h.mu.Lock()
	h.mu.closed = true
	serving := h.mu.serving
	h.mu.Unlock()
	close(h.draining)
	h.reportHealth()
	if serving {
		<-h.report.done
	}
	h.starting.Wait() // it gives up, and closes what it opened
	r := h.running()
	if r != nil {
		h.handOver(ctx, r)
	}
	var errs []error
	h.stopGRPC(ctx, serving)
	if r != nil {
		// Not ctx: it may have ended, and an abandoned Raft would write to
		// closed stores.
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
		errs = append(errs, r.close(stopCtx))
		cancel()
	}
	h.cancel()
	errs = append(errs, h.pool.close(), h.mux.close())
	if h.web != nil {
		errs = append(errs, h.web.close(ctx))
	}
	return errors.Join(append(errs, h.lock.release())...)
}

// handOver moves leadership away, if this replica has it and somebody else can
// take it. It failing costs an election, nothing else.
func (h *Host) handOver(ctx context.Context, r *runningReplica) {
	_, self := r.replica.Leader()
	if _, members := r.replica.Members(); !self || len(members) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, transferWait)
	defer cancel()
	if err := r.replica.Transfer(ctx, ""); err != nil {
		h.log.Info("leadership could not be handed over", "error", err)
	}
}

// stopGRPC lets calls in flight finish until ctx ends, then cuts them off.
func (h *Host) stopGRPC(ctx context.Context, serving bool) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, graceful)
		defer cancel()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.grpc.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		h.grpc.Stop()
		<-stopped
	}
	if serving {
		<-h.served
	}
}
