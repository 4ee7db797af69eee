package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/stall"
)

// errBounced is what is told to those whose entries were in flight when Raft was
// restarted.
var errBounced = errors.New("raft was restarted")

// upkeep cuts the log when enough was appended, and restarts Raft when a
// transfer of leadership never ends.
func (r *Replica) upkeep() {
	defer close(r.upkeepDone)
	for {
		select {
		case <-r.compact:
			r.cutLog()
		case <-r.suspect:
			r.watchTransfer()
		case <-r.stopped:
			return
		case <-r.upkeepStop:
			return
		}
	}
}

// cutLog has Raft make the store durable and forget what it need not keep.
func (r *Replica) cutLog() {
	index := r.fsm.position().index
	err := r.node().Snapshot().Error()
	if err == nil {
		r.counters.snapshots.Add(1)
		r.guard.wasCut(index)
		return
	}
	if !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		r.o.Logger.Info("the log was not cut", "error", err)
	}
	// The next append will ask again.
	r.pause(r.o.Timeout)
}

// pause waits, and reports whether the replica goes on.
func (r *Replica) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.upkeepStop:
	case <-r.stopped:
	}
	return false
}

// transferSeen is called when Raft refuses an entry for a transfer in progress.
func (r *Replica) transferSeen() { poke(r.suspect) }

// watchTransfer restarts Raft if a transfer of leadership outlasts three
// timeouts: its end is bounded by two, so that then the flag is stuck, and would
// outlive elections (hashicorp/raft#696).
func (r *Replica) watchTransfer() {
	if r.o.unsafe.noBounce {
		return
	}
	const looks = 12 // counted, since the clock runs on while the process is paused
	for range looks {
		if !r.pause(r.o.Timeout/4) || !r.transferring() {
			return
		}
	}
	r.o.Logger.Warn("a transfer of leadership does not end, raft is restarted")
	if err := r.bounce(); err != nil {
		r.fatal(err)
	}
}

// transferring reports whether a no-op is refused for a transfer.
func (r *Replica) transferring() bool {
	ctx, cancel := context.WithTimeout(context.Background(), r.o.Timeout)
	defer cancel()
	_, err := r.commitNoop(ctx)
	select {
	case <-r.suspect: // our own doing
	default:
	}
	return errors.Is(err, ErrTransferring)
}

// bounce restarts Raft on the same stores and the same transport.
func (r *Replica) bounce() error {
	ctx, cancel := stall.Context(context.Background(), r.o.StallLimit)
	defer cancel()
	// Raft never answers for what is in its queue when it is told to stop, and
	// whoever waits for that would wait forever: let nothing more in, and the queue
	// run empty.
	e := r.engine()
	e.stopDrain()
	r.lost()
	r.drainProposals(ctx)
	if err := r.stopEngine(ctx, e, errBounced); err != nil {
		return err
	}
	if err := r.guard.fit(r.fsm.position()); err != nil {
		return err
	}
	r.transport.Resume()
	if err := r.startRaft(); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	r.counters.bounces.Add(1)
	return nil
}
