package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// appendEntriesMax bounds the entries of one message and of one batch of the
// store.
const appendEntriesMax = 64

// An engine is one life of Raft within the replica.
type engine struct {
	node      *raft.Raft
	drainStop chan struct{}
	drainDone chan struct{}
	drainOnce sync.Once

	once   sync.Once
	future raft.Future // of the shutdown
}

// shutdown tells Raft to stop, and does not wait.
func (e *engine) shutdown() {
	e.once.Do(func() { e.future = e.node.Shutdown() })
}

// stopDrain ends the goroutine that receives changes of leadership, and waits
// for it.
func (e *engine) stopDrain() {
	e.drainOnce.Do(func() { close(e.drainStop) })
	<-e.drainDone
}

// ended returns a channel that is closed once Raft's goroutines have ended.
func (e *engine) ended() <-chan struct{} {
	e.shutdown()
	done := make(chan struct{})
	go func() {
		e.future.Error()
		close(done)
	}()
	return done
}

// raftConfig has one timeout for heartbeat, election and lease. Snapshots are
// taken by upkeep alone, by bytes; the guard keeps the trailing entries, and 1
// makes Raft's cut of the log always a proper prefix. Idle followers learn the
// commit index after one to two CommitTimeouts: only leaders serve reads, so that
// it costs nothing but messages to make it shorter.
func (r *Replica) raftConfig(changes chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.o.Identity.ServerID)
	c.HeartbeatTimeout = r.o.Timeout
	c.ElectionTimeout = r.o.Timeout
	c.LeaderLeaseTimeout = r.o.Timeout
	c.CommitTimeout = max(r.o.Timeout/2, time.Millisecond)
	c.MaxAppendEntries = appendEntriesMax
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.TrailingLogs = 1
	c.SnapshotInterval = 24 * time.Hour
	c.SnapshotThreshold = math.MaxUint64
	c.NotifyCh = changes
	c.Logger = r.o.Logger
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	return c
}

// rpcTimeout bounds one message and its answer. A follower that is busy with its
// disk for longer gets the message again.
func (r *Replica) rpcTimeout() time.Duration { return max(4*r.o.Timeout, 2*time.Second) }

// startRaft starts Raft's first or next life.
func (r *Replica) startRaft() (err error) {
	defer func() {
		// Raft panics if its term can't be written.
		if p := recover(); p != nil {
			err = fmt.Errorf("start: %v", p)
		}
	}()
	changes := make(chan bool)
	node, err := raft.NewRaft(r.raftConfig(changes), r.fsm, r.guard, r.guard, r.snapshots, r.transport)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	e := &engine{node: node, drainStop: make(chan struct{}), drainDone: make(chan struct{})}
	r.mu.Lock()
	r.mu.engine = e
	unwanted := r.mu.failure != nil || r.mu.closing
	r.mu.Unlock()
	go func() {
		defer close(e.drainDone)
		r.drain(node, changes, e.drainStop)
	}()
	if unwanted {
		e.shutdown() // the replica ended while there was nothing to shut down
	}
	return nil
}

func (r *Replica) engine() *engine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.engine
}

func (r *Replica) node() *raft.Raft { return r.engine().node }

// stopEngine ends one life of Raft and answers for what it leaves open. It fails
// if Raft's goroutines do not end before ctx does. What they still want to send
// is not sent: otherwise each message to a peer that is cut off would keep them.
func (r *Replica) stopEngine(ctx context.Context, e *engine, reason error) error {
	ended := e.ended()
	r.transport.Suspend()
	e.stopDrain()
	r.lost()
	err := ends(ctx, ended, "raft")
	r.packer.abandon(reason)
	return err
}

// Close stops the replica: it admits nothing more, lets what was admitted finish,
// hands leadership to another replica if it can, and stops Raft. Every waiter has
// ended when it returns; log and store may then be closed. Only if ctx ends too
// early, because a disk, the machine or a loop of the leader hangs, may some part
// of it still be using them, which the error says.
func (r *Replica) Close(ctx context.Context) error {
	r.mu.Lock()
	again := r.mu.closing
	r.mu.closing = true
	r.mu.Unlock()
	if again {
		select {
		case <-r.closed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer close(r.closed)
	r.packer.shut(ErrClosed)
	r.stopLoops()
	close(r.upkeepStop)
	err := ends(ctx, r.upkeepDone, "the cut of its log")
	if r.failed() == nil {
		r.drainProposals(ctx)
		r.handOver(ctx)
	}
	e := r.engine()
	e.shutdown()
	err = errors.Join(err, r.transport.Shut(), r.stopEngine(ctx, e, ErrClosed))
	r.stopOnce.Do(func() { close(r.stopped) })
	r.packer.refuseAll(ErrClosed)
	r.packer.close()
	loops := make(chan struct{})
	go func() {
		defer close(loops)
		r.reader.close()
		r.leads.running.Wait()
	}()
	err = errors.Join(err, ends(ctx, loops, "a loop of the leader"))
	r.snapshots.discard()
	return err
}

// ends waits until done is closed, because what is named has ended, or for ctx.
func ends(ctx context.Context, done <-chan struct{}, what string) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", what, ctx.Err())
	}
}

// drainProposals gives what was admitted two timeouts to finish: without a
// quorum, the leadership ends within them.
func (r *Replica) drainProposals(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*r.o.Timeout)
	defer cancel()
	select {
	case <-r.packer.drained():
	case <-r.stopped:
	case <-ctx.Done():
	}
}

// handOver moves leadership away, so that the group need not wait for timeouts.
func (r *Replica) handOver(ctx context.Context) {
	lead := r.leading()
	if lead == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*r.o.Timeout)
	defer cancel()
	if err := r.Transfer(ctx, ""); err != nil {
		r.o.Logger.Info("leadership was not handed over", "error", err)
		return
	}
	select {
	case <-lead.ctx.Done():
	case <-ctx.Done():
	}
}
