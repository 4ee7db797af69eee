// Package raftgroup is one replica of one replicated machine: linearizable
// proposals and reads, leadership, membership and snapshots, over
// hashicorp/raft.
//
// It adds no consensus of its own. It contains what the library leaves to its
// users, and what is wrong in it, so that the layers above may rely on this:
//
//   - A proposal that returned without an error is applied, here, and fsynced on
//     a majority. One that returned an error says truly whether it is not done
//     or of unknown outcome.
//   - A read barrier that returned without an error orders the state that is
//     visible afterwards behind every write that was acknowledged, by whichever
//     leader, before the barrier began. No clock takes part.
//   - State, applied index, term, configuration, clock and feature level change
//     in one batch of the store. The store is synced before Raft may forget an
//     entry; until then, whatever a loss of power takes from the store is applied
//     again from the log. So a batch needs no fsync of its own.
//   - A replica that met an error of its disk, a stall, a damaged entry or a
//     command that it does not know stops, and never answers again.
//
// Files: packer.go proposals; read.go read barriers; leader.go leadership;
// fsm.go and position.go applying; snapshot.go and sink.go snapshots;
// limp.go and appendtimes.go a leader that limps; failstop.go and logtail.go the
// log store's guard; holds.go what the log keeps; members.go membership;
// replacement.go who replaces whom; address.go and renumber.go who is where;
// upkeep.go cutting the log and restarting Raft. Package transport stamps what
// is acknowledged.
//
// Row 3 of the layers: it may use hashicorp/raft and hclog, the clock through
// Options.Clock, and nothing that knows a machine.
//
// Goroutines, besides Raft's: the packer's and the upkeep's, from Open to Close;
// one that drains Raft's changes of leadership; one per leadership, one per
// loop of the leader; one while reads wait; one for each entry in flight; one
// while a snapshot is sent or received. Close waits for all of them, except
// those that wait for a future that Raft lost.
package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/transport"
)

// A Replica is one replica of one replicated machine; the package comment says
// what it promises. All methods may be called concurrently.
//
// Raft may be restarted inside a Replica: engine is its present life, and what
// must outlive it (packer, reader, guard, transport) belongs to the Replica.
type Replica struct {
	o         Options
	clock     entryClock
	fsm       *fsm
	snapshots *snapshots
	holds     *holds
	guard     *guard
	transport *transport.Transport
	packer    *packer
	reader    *reader
	leads     leads
	limping   limping
	counters  counters

	compact    chan struct{} // buffered 1: enough log was appended
	suspect    chan struct{} // buffered 1: a transfer of leadership refused an entry
	stopped    chan struct{} // closed when the replica failed, or at the end of Close
	stopOnce   sync.Once
	upkeepStop chan struct{}
	upkeepDone chan struct{}

	mu struct {
		sync.Mutex
		engine  *engine // Raft's present life; nil before Raft was started
		failure error   // why the replica stopped for good; nil: it did not
		closing bool    // Close was called: a life that begins now ends at once
	}
	closed chan struct{} // closed at the end of the first Close
}

// counters are Counters in the making.
type counters struct {
	proposals, entries, entryBytes, busy atomic.Uint64
	reads, readRounds                    atomic.Uint64
	applied, batches                     atomic.Uint64
	snapshots, snapshotsSent, installed  atomic.Uint64
	leaderGained, bounces, handovers     atomic.Uint64
}

// Open starts the replica. A replica whose log and store are empty, and which is
// one of the founders of its identity, bootstraps the group; every founder does
// it with the same configuration.
//
// It fails if log and store do not fit: a log that begins above the machine, or
// one that has forgotten its term. A replica must not be started again on such
// disks, but be replaced.
func Open(o Options) (*Replica, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Replica{
		o:          o,
		compact:    make(chan struct{}, 1),
		suspect:    make(chan struct{}, 1),
		stopped:    make(chan struct{}),
		upkeepStop: make(chan struct{}),
		upkeepDone: make(chan struct{}),
		closed:     make(chan struct{}),
	}
	r.fsm = &fsm{r: r, swap: make(chan struct{}, 1)}
	r.snapshots, r.holds = newSnapshots(r), newHolds(r)
	r.reader = &reader{r: r}
	if err := r.openState(); err != nil {
		return nil, r.closeStreams(err)
	}
	if err := r.openTransport(); err != nil {
		return nil, r.closeStreams(err)
	}
	err := r.checkAddress(r.latest())
	if err == nil {
		err = r.bootstrap()
	}
	if err == nil {
		r.packer = newPacker(r)
		err = r.startRaft()
		if err != nil {
			r.packer.close()
		}
	}
	if err != nil {
		return nil, errors.Join(err, r.transport.Shut())
	}
	r.guard.running.Store(true)
	go r.upkeep()
	return r, nil
}

// closeStreams frees what a replica owns that did not get as far as a transport.
func (r *Replica) closeStreams(err error) error {
	if r.o.Streams != nil {
		err = errors.Join(err, r.o.Streams.Close())
	}
	return err
}

// openState reads where the machine stands, and makes the log fit it.
func (r *Replica) openState() (err error) {
	if err := r.fsm.load(r.o.Store); err != nil {
		return err
	}
	if err := r.o.Machine.Reset(r.o.Store); err != nil {
		return fmt.Errorf("reset the machine: %w", err)
	}
	if r.guard, err = newGuard(r); err != nil {
		return err
	}
	at := r.fsm.position()
	term, err := r.o.Log.GetUint64([]byte("CurrentTerm"))
	if err != nil && err.Error() != "not found" {
		return fmt.Errorf("read the term: %w", err)
	}
	if term < at.term {
		return fmt.Errorf("the log store has forgotten its term: it says %d, the machine has applied term %d", term, at.term)
	}
	return r.guard.fit(at)
}

func (r *Replica) openTransport() (err error) {
	var inner raft.Transport
	if r.o.Transport != nil {
		inner = r.o.Transport()
	} else {
		inner = transport.Network(r.o.Streams, r.rpcTimeout(), r.o.Logger)
	}
	r.transport, err = transport.Wrap(inner, transport.Options{
		Advertise:      r.o.Advertise,
		Resolve:        r.o.Resolve,
		AppendBytesMax: r.o.AppendBytesMax,
		SilenceMax:     3 * r.o.Timeout,
		Appended:       r.limping.answered,
	})
	return err
}

// bootstrap writes the first entry of a new group's log.
func (r *Replica) bootstrap() error {
	exists, err := raft.HasExistingState(r.guard, r.guard, r.snapshots)
	if err != nil {
		return fmt.Errorf("look for a log: %w", err)
	}
	founder := func(m formation.Member) bool { return m.ServerID == r.o.Identity.ServerID }
	if !slices.ContainsFunc(r.o.Identity.Founders, founder) {
		return nil
	}
	first := r.founders()
	if exists {
		return r.mendBootstrap(first)
	}
	if err := raft.BootstrapCluster(r.raftConfig(nil), r.guard, r.guard, r.snapshots, r.transport, first); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// mendBootstrap writes the first entry if a crash cut raft.BootstrapCluster off
// behind its first write, which is term 1: Raft would take that for a life of its
// own, without members, and a group of one replica would never have a leader.
// Elections begin at term 2, so that a replica of term 1 has neither voted nor
// acknowledged anything.
func (r *Replica) mendBootstrap(first raft.Configuration) error {
	term, err := r.guard.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return fmt.Errorf("read the term: %w", err)
	}
	last, err := r.guard.LastIndex()
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if term != 1 || last != 0 || r.fsm.position().index != 0 {
		return nil
	}
	if err := r.guard.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(first)}); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Propose commits a command and returns the machine's result for it. The command
// is applied, on this replica, when it returns nil.
//
// An error belongs to one of the families ErrNotDone (NotLeaderError, ErrBusy,
// ErrTooLarge, ErrTransferring, ErrClosed, an ended ctx while the command was
// still queued) and ErrOutcomeUnknown (leadership lost, a failing disk, ErrClosed,
// an ended ctx once the command was on its way). The body may be reused when
// Propose returns.
func (r *Replica) Propose(ctx context.Context, command entry.Command) (any, error) {
	results, err := r.ProposeAll(ctx, []entry.Command{command})
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// ProposeAll commits several commands, which enter the queue together and in
// their order. They may travel in several entries, of which some may be applied
// and others not; other callers' commands never come between commands of one
// entry, but may come between the entries.
//
// Results has one element for each command: the machine's result, or a
// *ProposalError for a command that is not known to be applied. The error is that
// of the first such command, or nil if all were applied. If none was admitted,
// results is nil. An earlier command may fail and a later one be applied: a
// sequence that must not have holes belongs into one command.
func (r *Replica) ProposeAll(ctx context.Context, commands []entry.Command) (results []any, err error) {
	return r.propose(ctx, commands, foreground)
}

// ProposeUrgent is ProposeAll for the group's own work that clients wait for, such
// as the end of a handoff: its commands take turns with the clients', and are
// admitted whatever those have queued.
func (r *Replica) ProposeUrgent(ctx context.Context, commands []entry.Command) (results []any, err error) {
	return r.propose(ctx, commands, urgent)
}

// ProposeBackground is ProposeAll for work that nobody waits for, such as the
// copying of a shard: its commands take the room that others leave in the
// entries, and at least every fifth entry.
func (r *Replica) ProposeBackground(ctx context.Context, commands []entry.Command) (results []any, err error) {
	return r.propose(ctx, commands, background)
}

func (r *Replica) propose(ctx context.Context, commands []entry.Command, class class) ([]any, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, notDone(err)
	}
	c, err := r.packer.submit(commands, class)
	if err != nil {
		return nil, err
	}
	return r.packer.wait(ctx, c)
}

// ReadBarrier returns nil once the visible state contains every write that was
// acknowledged before the call, by any leader. Only the leader can promise it;
// the others return a NotLeaderError. Every error is ErrNotDone.
//
// It costs one round of messages, shared by all barriers that wait for it, and
// nothing on disk.
func (r *Replica) ReadBarrier(ctx context.Context) error { return r.reader.barrier(ctx) }

// Store returns the store that the machine writes to. Readers take snapshots of
// it, and close them soon.
func (r *Replica) Store() store.Store { return r.o.Store }

// Clock returns the newest entry clock that was applied, received or proposed
// here, in ms since 1970.
func (r *Replica) Clock() uint64 { return r.clock.ms.Load() }

// Now returns the clock that an entry would have which is proposed now, in ms since
// 1970: Clock, and the time that has passed since.
func (r *Replica) Now() uint64 { return r.clock.at(r.o.Clock()) }

// Leader returns the leader's address as far as it is known, and whether it is
// this replica.
func (r *Replica) Leader() (address string, self bool) {
	if r.leading() != nil {
		return r.o.Advertise, true
	}
	known, id := r.node().LeaderWithID()
	if string(id) == r.o.Identity.ServerID {
		return "", false
	}
	return string(known), false
}

func (r *Replica) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.failure
}

// fatal stops the replica, for good: nothing is admitted, every waiter ends, and
// Raft is told to shut down. It does not wait, since Raft's own goroutines call
// it.
func (r *Replica) fatal(err error) {
	r.mu.Lock()
	first := r.mu.failure == nil && err != nil
	if first {
		r.mu.failure = err
	}
	engine := r.mu.engine
	r.mu.Unlock()
	if !first {
		return
	}
	r.o.Logger.Error("the replica stops", "error", err)
	if engine != nil {
		r.transport.Mute()
		engine.shutdown()
		r.lost()
		r.packer.refuseAll(err)
		r.packer.abandon(err)
	}
	r.stopOnce.Do(func() { close(r.stopped) })
	go r.o.OnFatal(err)
}
