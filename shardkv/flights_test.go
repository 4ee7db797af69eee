package shardkv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// stamped makes a request of one write with its name.
func stamped(op *kvpb.Operation, sequence uint64, hold time.Duration) *kvpb.ExecuteRequest {
	op.Sequence = sequence
	return &kvpb.ExecuteRequest{TimeoutMs: uint32(hold.Milliseconds()), Operations: []*kvpb.Operation{op},
		Session: &kvpb.Session{Id: []byte("0123456789abcdef"), BirthMs: clockMs, AckedBelow: 1}}
}

// Claim: however much slower commits are than clients are patient, every write
// succeeds, and is proposed once: a retry joins the proposal that is under way.
func TestRetriesJoin(t *testing.T) {
	const clients, hold = 64, 800 * time.Millisecond
	for _, commit := range []time.Duration{900 * time.Millisecond, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, f := newFake(t, Limits{})
			f.commit, f.proposed = commit, 0
			begun := time.Now()
			var all sync.WaitGroup
			for i := range clients {
				all.Go(func() {
					for attempts := 1; ; attempts++ {
						o := executeNow(t, s, stamped(putOp(fmt.Sprint("k", i), "v"), uint64(i+1), hold))[0]
						switch {
						case o.GetCode() == kvpb.Code_OK:
							if took := time.Since(begun); took != commit {
								t.Errorf("write %d succeeded after %v and %d attempts, a commit takes %v", i, took, attempts, commit)
							}
							return
						case o.GetCode() != kvpb.Code_OUTCOME_UNKNOWN || time.Since(begun) > commit:
							t.Errorf("attempt %d of write %d: %v", attempts, i, o)
							return
						}
					}
				})
			}
			all.Wait()
			if f.proposed != clients {
				t.Errorf("%d commands were proposed for %d writes", f.proposed, clients)
			}
			if n := s.node.Load().flights.count(); n != 0 {
				t.Errorf("%d writes are still known as under way", n)
			}
			if got, want := s.respond(nil, 0).GetPatienceMs(), milliseconds(commit); got != want {
				t.Errorf("patience is %d ms, want %d", got, want)
			}
		})
	}
}

// Claim: a retry joins only what it names: another sequence number, another
// session, another shard, and a write without a number begin anew.
func TestOnlyTheSameWriteJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newFake(t, Limits{})
		f.commit, f.proposed = time.Second, 0
		var all sync.WaitGroup
		send := func(r *kvpb.ExecuteRequest) {
			all.Go(func() {
				if o := executeNow(t, s, r)[0]; o.GetCode() != kvpb.Code_OK {
					t.Error(o)
				}
			})
		}
		other := stamped(putOp(keyIn(0), "v"), 1, 0)
		other.Session.Id = []byte("fedcba9876543210")
		for range 2 {
			send(stamped(putOp(keyIn(0), "v"), 1, 0))
			send(stamped(putOp(keyIn(0), "v"), 2, 0))
			send(stamped(putOp(keyIn(1), "v"), 1, 0))
			send(other)
			send(&kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(keyIn(0), "v")}})
			synctest.Wait()
		}
		// A request may have both: writes that join, and others.
		mixed := stamped(putOp(keyIn(0), "v"), 1, 0)
		mixed.Operations = append(mixed.Operations, stamped(putOp(keyIn(0), "v"), 3, 0).Operations...)
		send(mixed)
		all.Wait()
		if f.proposed != 4+2+1 {
			t.Errorf("%d commands were proposed, want 4 named ones, 2 without a name, and a new one", f.proposed)
		}
	})
}

// Claim: a retry that says so is answered from the applied state, in any shard
// that is served, without a proposal; what is not remembered is proposed.
func TestRetryIsRecalled(t *testing.T) {
	s, f := newFake(t, Limits{})
	first := executeNow(t, s, stamped(appendOp(keyIn(0), "v"), 1, 0))[0]
	f.proposed = 0
	again := stamped(appendOp(keyIn(0), "v"), 1, 0)
	again.Operations[0].Retry = true
	again.Operations = append(again.Operations, stamped(appendOp(keyIn(0), "w"), 2, 0).Operations...)
	outcomes := executeNow(t, s, again)
	if o := outcomes[0]; o.GetCode() != kvpb.Code_OK || o.GetVersion() != first.GetVersion() || o.GetLength() != 1 {
		t.Errorf("the retry: %v, want %v", o, first)
	}
	if o := outcomes[1]; o.GetCode() != kvpb.Code_OK || o.GetLength() != 2 || f.proposed != 1 {
		t.Errorf("the write beside it: %v; %d commands proposed, want 1", o, f.proposed)
	}
	f.propose(t, &kvfsm.RaiseFloor{Shard: 0, Floor: clockMs})
	f.clock = clockMs + 1
	f.propose(t, &kvfsm.RaiseFloor{Shard: 0, Floor: clockMs + 1})
	if o := executeNow(t, s, again)[0]; o.GetCode() != kvpb.Code_SESSION_EXPIRED {
		t.Errorf("once the session has expired: %v", o)
	}
}

func appendOp(key, value string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Append{Append: &kvpb.Append{Value: []byte(value)}}}
}

// Claim: writes whose effects do not fit into one entry are all done, in several
// entries, and a client does not notice.
func TestLargeEffectsTakeSeveralEntries(t *testing.T) {
	s, f := newFake(t, Limits{})
	keys := putIn(t, s, 0, 40, shardcfg.ValueBytesMax-1)
	f.proposed = 0
	before := f.index
	r := &kvpb.ExecuteRequest{}
	for _, key := range keys {
		r.Operations = append(r.Operations, appendOp(key, "x"))
	}
	r.Operations = append(r.Operations, putOp(keyIn(1), "small"))
	for i, o := range executeNow(t, s, r) {
		if o.GetCode() != kvpb.Code_OK {
			t.Errorf("write %d: %v", i, o)
		}
	}
	if entries := f.index - before; entries < 2 || f.proposed > 3*len(keys) {
		t.Errorf("%d entries with %d commands for %d writes", entries, f.proposed, len(r.Operations))
	}
}

// A queuedReplica keeps what is submitted until it is withdrawn.
type queuedReplica struct {
	*fakeReplica
	withdrawn chan error
}

func (q queuedReplica) Submit(commands []entry.Command) (submission, error) {
	return &queuedSubmission{fakeSubmission{done: make(chan struct{}), results: make([]any, len(commands))}, q.withdrawn}, nil
}

type queuedSubmission struct {
	fakeSubmission
	withdrawn chan error
}

func (s *queuedSubmission) Withdraw(reason error) {
	s.settle([]any{&raftgroup.ProposalError{Err: fmt.Errorf("%w: %w", raftgroup.ErrNotDone, reason)}})
	s.withdrawn <- reason
}

// Claim: what is still queued is withdrawn when the last request that waits for it
// gives up, and then is not done; not before.
func TestQueuedWritesAreWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newFake(t, Limits{})
		withdrawn := make(chan error, 2)
		s.node.Load().replica = queuedReplica{f, withdrawn}
		codes := make(chan kvpb.Code, 2)
		for _, hold := range []time.Duration{time.Second, 2 * time.Second} {
			go func() { codes <- executeNow(t, s, stamped(putOp("k", "v"), 1, hold))[0].GetCode() }()
		}
		time.Sleep(1500 * time.Millisecond) // virtual
		if code := <-codes; code != kvpb.Code_OUTCOME_UNKNOWN || len(withdrawn) != 0 {
			t.Errorf("the first gives up: %v, %d withdrawn; the other still waits", code, len(withdrawn))
		}
		if code := <-codes; code != kvpb.Code_UNAVAILABLE {
			t.Errorf("the second gives up: %v, want UNAVAILABLE: not done", code)
		}
		if err := <-withdrawn; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n := s.node.Load().flights.count(); n != 0 {
			t.Errorf("%d writes are still known as under way", n)
		}
	})
}

// Claim: a refusal for overload says when to try again.
func TestBusySaysWhen(t *testing.T) {
	s, f := newFake(t, Limits{})
	f.fail = &raftgroup.BusyError{Wait: 1500 * time.Microsecond}
	o := executeNow(t, s, stamped(putOp("k", "v"), 1, 0))[0]
	if o.GetCode() != kvpb.Code_BUSY || o.GetWaitMs() != 2 || strings.TrimSpace(o.GetMessage()) == "" {
		t.Errorf("%v, want BUSY for 2 ms", o)
	}
}
