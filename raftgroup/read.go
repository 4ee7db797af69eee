package raftgroup

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// A reader runs read rounds: ReadIndex (Ongaro's thesis, section 6.4) with the
// proof that Raft's VerifyLeader lacks.
//
// A round notes the number of a new round of acknowledgements first and the
// commit index after it, asks Raft to send heartbeats at once, and passes when a
// quorum of voters has answered, in this leader's term, messages that were sent
// after the number was drawn; this replica itself counts among them only while
// its own term is still that. No newer leader can have committed anything before
// the round began, then. At last the machine must have applied that index.
//
// One round serves every read that is waiting when it begins. A goroutine runs
// rounds while there are reads, and ends with the last.
type reader struct {
	r *Replica

	mu struct {
		sync.Mutex
		next    *round // collects reads; nil: none
		running bool
		closed  bool
	}
	idle sync.WaitGroup
}

type round struct {
	reads uint64
	done  chan struct{}
	err   error // set before done is closed
}

// barrier joins the next round.
func (q *reader) barrier(ctx context.Context) error {
	q.mu.Lock()
	if q.mu.closed {
		q.mu.Unlock()
		return notDone(ErrClosed)
	}
	if q.mu.next == nil {
		q.mu.next = &round{done: make(chan struct{})}
	}
	mine := q.mu.next
	mine.reads++
	if !q.mu.running {
		q.mu.running = true
		q.idle.Go(q.run)
	}
	q.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return notDone(ctx.Err())
	}
}

func (q *reader) run() {
	for {
		q.mu.Lock()
		current := q.mu.next
		q.mu.next = nil
		q.mu.running = current != nil
		q.mu.Unlock()
		if current == nil {
			return
		}
		current.err = q.round()
		if current.err == nil {
			q.r.counters.reads.Add(current.reads)
		}
		q.r.counters.readRounds.Add(1)
		close(current.done)
	}
}

// round runs one round. It ends with the leadership at the latest.
func (q *reader) round() error {
	lead := q.r.leading()
	if lead == nil {
		return q.r.notLeader()
	}
	if !q.r.o.unsafe.noNoop {
		select {
		case <-lead.ready:
		case <-lead.ctx.Done():
			return q.r.notLeader()
		}
	}
	number := q.r.transport.BeginRound()
	index := lead.node.CommitIndex()
	if q.r.o.unsafe.raftAppliedIdx {
		index = min(index, lead.node.AppliedIndex())
	}
	if err := q.confirm(lead, number); err != nil {
		return err
	}
	if q.r.o.unsafe.raftAppliedIdx {
		return nil
	}
	if err := q.r.fsm.wait(lead.ctx, q.r.stopped, index); err != nil {
		return q.r.notLeader()
	}
	return nil
}

// confirm waits for the quorum.
func (q *reader) confirm(lead *leadership, number uint64) error {
	if q.r.o.unsafe.verifyOnly {
		return lead.node.VerifyLeader().Error()
	}
	kicked := false
	for {
		if lead.ctx.Err() != nil {
			return q.r.notLeader()
		}
		if q.quorum(lead, number) {
			return nil
		}
		if !kicked {
			// It makes Raft send heartbeats now. Its answer proves nothing, and is
			// not waited for.
			lead.node.VerifyLeader()
			kicked = true
			continue
		}
		select {
		case <-q.r.transport.Changed():
		case <-lead.ctx.Done():
		}
	}
}

// quorum reports whether a majority of the voters, this replica among them if it
// is one, acknowledged the round in the leadership's term.
func (q *reader) quorum(lead *leadership, number uint64) bool {
	voters, acknowledged := 0, 0
	for _, s := range lead.node.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			if q.r.o.unsafe.countLearners && q.r.acknowledged(lead, s.ID, number) {
				acknowledged++
			}
			continue
		}
		voters++
		if q.r.acknowledged(lead, s.ID, number) {
			acknowledged++
		}
	}
	return voters > 0 && acknowledged > voters/2
}

// acknowledged reports whether the member, this replica or another, stood by the
// leadership's term after the round began. This replica's own voice counts by its
// term as well: Raft raises the term before it votes for a successor, and tells
// of the leadership's end only after that.
func (r *Replica) acknowledged(lead *leadership, id raft.ServerID, number uint64) bool {
	if string(id) == r.o.Identity.ServerID {
		return lead.node.CurrentTerm() == lead.term()
	}
	return r.transport.Acknowledged(id, lead.term(), number)
}

// close refuses new reads and waits for the rounds to end, which they do when
// the leadership has ended.
func (q *reader) close() {
	q.mu.Lock()
	q.mu.closed = true
	q.mu.Unlock()
	q.idle.Wait()
}
