package shardkv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/session"
)

// write executes writes and fills in their outcomes: from the applied state, where
// they are retries that it remembers; by joining the execution that is under way;
// else as one list of commands. It returns when all of them have ended or ctx has.
func (n *node) write(ctx context.Context, m *message, writes []int) {
	if writes = n.recall(m, writes); len(writes) == 0 {
		return
	}
	w := n.flights.board(m.attempts(writes), m.writeCommands(writes), n.start)
	w.wait(ctx)
	for k, i := range writes {
		switch result := w.result(k).(type) {
		case nil:
			m.fail(i, lateWrite)
		case error:
			n.failWrite(m, i, result)
		default:
			n.writeOutcome(m, i, result)
		}
	}
}

// start hands commands to the replica, unless it has enough to do.
func (n *node) start(commands []entry.Command) (submission, error) {
	if n.lagging.Load() {
		return nil, errLagging
	}
	return n.replica.Submit(commands)
}

var errLagging = fmt.Errorf("the replica applies its log more slowly than it grows: %w", raftgroup.ErrBusy)

// failWrite answers a write that was not executed, as far as is known.
func (n *node) failWrite(m *message, i int, err error) {
	m.fail(i, n.faultOf(err))
	if busy := (*raftgroup.BusyError)(nil); errors.As(err, &busy) {
		m.outcomes[i].WaitMs = milliseconds(busy.Wait)
	}
}

// recall answers the retries among writes that the applied state remembers, and
// returns the others. They need no entry of the log: under load, when most retries
// are made, it is the log that is short.
func (n *node) recall(m *message, writes []int) (others []int) {
	retry := func(i int) bool { op := m.request.Operations[i]; return op.GetRetry() && op.GetSequence() != 0 }
	if !slices.ContainsFunc(writes, retry) {
		return writes
	}
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return writes // applying them will meet that too
	}
	defer snapshot.Close()
	stamp := stampOf(m.request.GetSession())
	for _, i := range writes {
		if retry(i) {
			stamp.Sequence = m.request.Operations[i].GetSequence()
			if out, ok, err := kvfsm.Recall(snapshot, m.steps[i].shard, stamp); ok && err == nil {
				n.writeOutcome(m, i, out)
				continue
			}
		}
		others = append(others, i)
	}
	return others
}

// attempts names writes; those without a sequence number have no name.
func (m *message) attempts(writes []int) []attempt {
	stamp := stampOf(m.request.GetSession())
	list := make([]attempt, len(writes))
	for k, i := range writes {
		if seq := m.request.Operations[i].GetSequence(); seq != 0 {
			list[k] = attempt{shard: m.steps[i].shard, session: stamp.Key, sequence: seq}
		}
	}
	return list
}

// stampOf reads a session, which was validated.
func stampOf(s *kvpb.Session) session.Stamp {
	if s == nil {
		return session.Stamp{}
	}
	id, _ := shardcfg.To128[shardcfg.SessionID](s.GetId())
	return session.Stamp{Key: session.Key{Birth: s.GetBirthMs(), ID: id}, AckedBelow: s.GetAckedBelow()}
}

// commandOverheadBytes is about what encoding adds to a write's key and value.
const commandOverheadBytes = 64

// writeCommands encodes writes, which were validated, into one buffer.
func (m *message) writeCommands(writes []int) []entry.Command {
	stamp := stampOf(m.request.GetSession())
	commands := make([]entry.Command, len(writes))
	buffer := make([]byte, 0, m.size+int64(len(writes))*commandOverheadBytes)
	for k, i := range writes {
		op := m.request.Operations[i]
		w := kvfsm.Write{Key: op.GetKey(), Value: valueOf(op)}
		switch op.GetKind().(type) {
		case *kvpb.Operation_Put:
			w.Op = kvfsm.OpPut
		case *kvpb.Operation_Append:
			w.Op = kvfsm.OpAppend
		case *kvpb.Operation_Delete:
			w.Op = kvfsm.OpDelete
		}
		if version, ok := conditionOf(op); ok {
			w.Condition = kvfsm.Condition{Set: true, Version: shardcfg.Revision(version)}
		}
		if op.GetSequence() != 0 {
			w.Stamp = stamp
			w.Stamp.Sequence = op.GetSequence()
		}
		start := len(buffer)
		buffer = w.Append(buffer)
		commands[k] = entry.Command{Kind: kvfsm.KindWrite, Body: buffer[start:len(buffer):len(buffer)]}
	}
	return commands
}

// writeOutcome turns the result of a write into its outcome, or leaves it open
// where it met a shard that it should wait for, or an entry that had no room for
// its effects.
func (n *node) writeOutcome(m *message, i int, result any) {
	r, ok := result.(kvfsm.Outcome)
	if !ok {
		m.fail(i, fault{kvpb.Code_OUTCOME_UNKNOWN, fmt.Sprintf("the replicated machine answered with a %T", result)})
		return
	}
	if r.Code == kvfsm.CodeWrongGroup {
		p := n.places.from(r.Where)
		if p.Here {
			return // it began to be served here in between: look again
		}
		n.misplaced(m, i, p)
		return
	}
	if r.Why == kvfsm.ReasonEntryFull {
		m.crowded++ // it belongs into another entry
		return
	}
	o := m.answer(i)
	o.Code, o.Version, o.Length = kvpb.Code(r.Code), uint64(r.Version), r.Length
	if !r.Code.Done() {
		m.clock = max(m.clock, r.Floor)
		o.Message = refusalText(r)
	}
}

// refusalText says why a write was refused, for people.
func refusalText(r kvfsm.Outcome) string {
	switch r.Code {
	case kvfsm.CodeSessionExpired:
		return "the session is older than the shard remembers: open a new one; whether an earlier attempt of this write was executed can't be told any more"
	case kvfsm.CodeSessionAhead:
		return "the session's birth is too far in the future of the cluster's clock"
	case kvfsm.CodeStaleSequence:
		return "the sequence number was acknowledged before"
	}
	if r.Why != kvfsm.ReasonNone {
		return r.Why.String()
	}
	return r.Code.String()
}
