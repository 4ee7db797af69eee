package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

const (
	// entryCommandsMax bounds the commands of one entry.
	entryCommandsMax = 512
	// window is how many entries are in flight: one in the log, one on its way.
	window = 2
)

// A packer makes entries out of commands. Commands that arrive while the window
// is full become one entry, so that one fsync, one message for each follower and
// one batch of the store serve many callers; a lone command leaves at once, for
// there is no timer.
//
// One goroutine, run, encodes entries and hands them to Raft, so that their
// clocks and the order of their commands follow the queue. A further goroutine
// for each entry in flight waits for Raft's future. Callers never wait for a
// future: Raft loses some when it shuts down (hashicorp/raft#498), and then
// abandon answers for them.
type packer struct {
	r    *Replica
	wake chan struct{} // buffered 1
	stop chan struct{}
	done chan struct{} // run has ended

	mu struct {
		sync.Mutex
		queue    queue
		bytes    [classCount]int // of the queue and of what is in flight, by class
		inflight map[*batch]struct{}
		idle     chan struct{} // closed when nothing is queued or in flight; nil while nobody waits
		pace     pace
		leading  bool
		closed   error // why nothing more is admitted, or nil
	}
}

// A class says before whom a call's commands come.
type class uint8

const (
	foreground class = iota
	// urgent is the group's own work that clients wait for: in turn with theirs, but
	// admitted whatever they have queued.
	urgent
	// background yields to the others.
	background
	// first is for the first command of a leadership: before all, whatever waits.
	first
	classCount
)

// ownShare is which part of the clients' budget each class of the group's own work
// has, beside theirs: neither can use up the room of the other.
const ownShare = 4

// A call is one Propose, ProposeAll, ProposeUrgent or ProposeBackground. Guarded by
// packer.mu until done.
type call struct {
	commands []*pending // nil once left is 0
	results  []any
	left     int
	done     chan struct{} // closed when left is 0
	class    class
}

// A pending is one command of a call.
type pending struct {
	command entry.Command
	call    *call
	slot    int
	settled bool   // it has its result; Raft's answer comes too late
	batch   *batch // nil: it has not left the queue, or was withdrawn from it
}

func (q *pending) isSettled() bool { return q.settled }

// A batch is an entry in flight.
type batch struct {
	pendings   []*pending
	background bool          // some of its commands are background
	paced      bool          // some are not: how long it takes says what clients have to wait
	sent       time.Time     // when it was cut from the queue
	encoded    chan struct{} // closed when the commands' bodies are no longer needed
}

func newPacker(r *Replica) *packer {
	p := &packer{r: r, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	p.mu.inflight = make(map[*batch]struct{})
	go p.run()
	return p
}

// sizeOfCommand is what a command takes in an entry.
func sizeOfCommand(c entry.Command) int { return entry.CommandOverheadBytes + len(c.Body) }

// pendingBytes is about what a command takes in memory besides its body: pending,
// result, and its share of a call.
const pendingBytes = 192

// sizeInQueue is what a command takes of the budget.
func sizeInQueue(c entry.Command) int { return pendingBytes + len(c.Body) }

// submit admits all of the commands, in this order and next to each other, or
// none of them.
func (p *packer) submit(commands []entry.Command, class class) (*call, error) {
	bytes := 0
	for _, c := range commands {
		if len(c.Body) > p.r.o.CommandBytesMax {
			return nil, ErrTooLarge
		}
		bytes += sizeInQueue(c)
	}
	all := make([]*pending, len(commands))
	c := &call{commands: all, results: make([]any, len(commands)), left: len(commands), done: make(chan struct{}), class: class}
	for i, command := range commands {
		all[i] = &pending{command: command, call: c, slot: i}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.closed != nil:
		return nil, notDone(p.mu.closed)
	case !p.mu.leading:
		return nil, p.r.notLeader()
	case p.mu.bytes[class] > 0 && p.mu.bytes[class]+bytes > p.bytesMax(class) && class != first:
		p.r.counters.busy.Add(uint64(len(commands)))
		return nil, &BusyError{Wait: p.mu.pace.entry}
	case class == foreground && p.waitLocked() > p.r.o.QueueTimeMax:
		p.r.counters.busy.Add(uint64(len(commands)))
		return nil, &BusyError{Wait: p.waitLocked() / 2}
	}
	p.mu.bytes[class] += bytes
	p.mu.queue.add(all, class == first)
	p.countLocked(all, 1)
	p.r.counters.proposals.Add(uint64(len(commands)))
	poke(p.wake)
	return c, nil
}

// bytesMax is the budget of a class. What is larger is admitted when it is alone.
func (p *packer) bytesMax(c class) int {
	if c == foreground {
		return p.r.o.QueueBytesMax
	}
	return p.r.o.QueueBytesMax / ownShare
}

// releaseLocked gives back the budget of a command that has left.
func (p *packer) releaseLocked(q *pending) { p.mu.bytes[q.call.class] -= sizeInQueue(q.command) }

// wait returns when every command has its result. If ctx ends first, commands
// that are still queued are withdrawn, and the others are unknown.
func (p *packer) wait(ctx context.Context, c *call) ([]any, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		p.give(ctx, c)
	}
	var first error
	for _, result := range c.results {
		if failed, ok := result.(*ProposalError); ok && first == nil {
			first = failed.Err
		}
	}
	return c.results, first
}

// give settles everything of a call that is not settled yet, and returns when
// nobody reads the commands' bodies any more.
func (p *packer) give(ctx context.Context, c *call) {
	p.mu.Lock()
	p.withdrawLocked(c, ctx.Err())
	var encoding []chan struct{}
	for _, q := range c.commands { // what is left of them is on its way
		p.settleLocked(q, &ProposalError{Err: outcomeUnknown(ctx.Err())})
		if q.batch != nil {
			encoding = append(encoding, q.batch.encoded)
		}
	}
	p.idleLocked()
	p.mu.Unlock()
	for _, encoded := range encoding {
		<-encoded
	}
}

// withdrawLocked settles what is still queued of a call as not done.
func (p *packer) withdrawLocked(c *call, reason error) {
	for _, q := range c.commands {
		if q.batch == nil && !q.settled {
			p.leaveLocked(q, notDone(reason))
			p.mu.queue.leave(q)
		}
	}
}

// leaveLocked settles a command that leaves the queue without an entry.
func (p *packer) leaveLocked(q *pending, err error) {
	p.releaseLocked(q)
	p.countLocked([]*pending{q}, -1)
	q.command = entry.Command{} // its place in the queue may outlive it
	p.settleLocked(q, &ProposalError{Err: err})
}

// countLocked keeps the pace's count of what is queued before clients: everything
// but background.
func (p *packer) countLocked(all []*pending, n int) {
	for _, q := range all {
		if q.call.class != background {
			p.mu.pace.count(q.command, p.r.o.EntryBytesMax, n)
		}
	}
}

func (p *packer) settleLocked(q *pending, result any) {
	if q.settled {
		return
	}
	q.settled = true
	q.call.results[q.slot] = result
	if q.call.left--; q.call.left == 0 {
		q.call.commands = nil
		close(q.call.done)
	}
}

// run is the packer's goroutine.
func (p *packer) run() {
	defer close(p.done)
	for {
		for b := p.take(); b != nil; b = p.take() {
			p.send(b)
		}
		select {
		case <-p.wake:
		case <-p.stop:
			return
		}
	}
}

// take cuts the next entry from the queue, if the window has room for it.
func (p *packer) take() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.inflight) >= window || p.mu.queue.empty() {
		return nil
	}
	busy := false
	for b := range p.mu.inflight {
		busy = busy || b.background
	}
	b := &batch{pendings: p.mu.queue.cut(p.r.o.EntryBytesMax, busy), encoded: make(chan struct{}), sent: time.Now()}
	if len(b.pendings) == 0 {
		return nil
	}
	for _, q := range b.pendings {
		b.background = b.background || q.call.class == background
		b.paced = b.paced || q.call.class != background
		q.batch = b
	}
	p.countLocked(b.pendings, -1)
	p.mu.inflight[b] = struct{}{}
	return b
}

// send encodes an entry and hands it to Raft, whose queue has room for more
// than the window.
func (p *packer) send(b *batch) {
	now := p.r.o.Clock()
	e := entry.Entry{
		Clock:    p.r.clock.next(now),
		Feature:  p.r.fsm.position().feature,
		Commands: make([]entry.Command, len(b.pendings)),
	}
	if p.r.o.unsafe.rawClock {
		e.Clock = uint64(now.UnixMilli())
	}
	for i, q := range b.pendings {
		e.Commands[i] = q.command
	}
	data := e.Append(make([]byte, 0, e.Size()))
	close(b.encoded)
	if !p.admits(b) {
		return
	}
	p.r.counters.entries.Add(1)
	p.r.counters.entryBytes.Add(uint64(len(data)))
	future := p.r.node().Apply(data, 0)
	go func() {
		err := future.Error()
		p.finish(b, future, err)
	}()
}

// admits refuses an entry whose leadership has ended before it reached Raft: a
// Raft that is shut down may take it and never answer.
func (p *packer) admits(b *batch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.leading {
		return true
	}
	err := p.r.notLeader()
	for _, q := range b.pendings {
		p.settleLocked(q, &ProposalError{Err: err})
	}
	p.dropLocked(b)
	return false
}

// finish settles the commands of an entry that Raft has answered.
func (p *packer) finish(b *batch, future raft.ApplyFuture, err error) {
	var results []any
	if err == nil {
		var ok bool
		if results, ok = future.Response().([]any); !ok || len(results) != len(b.pendings) {
			err = fmt.Errorf("%T for the results of %d commands", future.Response(), len(b.pendings))
		}
	}
	if err != nil {
		err = p.classify(future, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && b.paced {
		p.mu.pace.measure(time.Since(b.sent))
	}
	for i, q := range b.pendings {
		if err != nil {
			p.settleLocked(q, &ProposalError{Err: err})
		} else {
			p.settleLocked(q, results[i])
		}
	}
	p.dropLocked(b)
}

func (p *packer) dropLocked(b *batch) {
	if _, ok := p.mu.inflight[b]; !ok {
		return
	}
	delete(p.mu.inflight, b)
	for _, q := range b.pendings {
		p.releaseLocked(q)
	}
	p.idleLocked()
	poke(p.wake)
}

// classify puts Raft's error into a family. Certain is only what Raft refused
// before it gave the entry an index; a store that failed on the leader may have
// kept the entry all the same.
func (p *packer) classify(future raft.ApplyFuture, err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return p.r.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return notDone(err)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		p.r.transferSeen()
		return ErrTransferring
	case errors.Is(err, raft.ErrRaftShutdown) && future.Index() == 0:
		return notDone(ErrClosed)
	case errors.Is(err, raft.ErrRaftShutdown):
		return outcomeUnknown(ErrClosed)
	default:
		return outcomeUnknown(err)
	}
}

// setLeading opens or shuts admission. Shut, it refuses what is queued; what is
// in flight is answered by Raft, which knows more.
func (p *packer) setLeading(leading bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.leading = leading
	if !leading {
		p.refuseLocked(p.r.notLeader())
	}
}

func (p *packer) refuseLocked(err error) {
	for _, q := range p.mu.queue.takeAll() {
		p.leaveLocked(q, err)
	}
	p.idleLocked()
}

// shut ends admission, for the reason given.
func (p *packer) shut(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed == nil {
		p.mu.closed = reason
	}
}

// refuseAll ends admission and refuses what is queued.
func (p *packer) refuseAll(reason error) {
	p.shut(reason)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuseLocked(notDone(p.mu.closed))
}

// abandon answers for whatever is in flight: Raft was stopped, and may never do
// it. An answer that comes yet is dropped. The leadership has ended, so that
// nothing more comes into flight. It waits for what is being encoded, since the
// callers may reuse their buffers then.
func (p *packer) abandon(reason error) {
	if p.r.o.unsafe.waitForFuture {
		return
	}
	p.mu.Lock()
	var encoding []chan struct{}
	for b := range p.mu.inflight {
		encoding = append(encoding, b.encoded)
	}
	p.mu.Unlock()
	for _, encoded := range encoding {
		<-encoded
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := range p.mu.inflight {
		for _, q := range b.pendings {
			p.settleLocked(q, &ProposalError{Err: outcomeUnknown(reason)})
		}
		p.dropLocked(b)
	}
}

func (p *packer) idleLocked() {
	if p.mu.idle != nil && p.mu.queue.empty() && len(p.mu.inflight) == 0 {
		close(p.mu.idle)
		p.mu.idle = nil
	}
}

// drained is closed once nothing is queued or in flight.
func (p *packer) drained() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.idle == nil {
		p.mu.idle = make(chan struct{})
	}
	idle := p.mu.idle
	p.idleLocked()
	return idle
}

// close ends run. Nothing is admitted any more.
func (p *packer) close() {
	close(p.stop)
	<-p.done
}

// poke wakes the receiver of a channel that is buffered by one; the wake-up
// carries no data.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
