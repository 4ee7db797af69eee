package shardkv

import (
	"fmt"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A message is one request being executed. One goroutine owns it, except while
// its reads run beside its writes: the two touch disjoint operations.
type message struct {
	request *kvpb.ExecuteRequest
	size    int64 // of keys and values, in bytes
	// outcomes has one element for each operation, in their order. Until an
	// operation is answered its outcome is the zero value.
	outcomes []*kvpb.Outcome
	steps    []step // by operation
	open     []int  // operations that are not answered, in ascending order
	slowed   bool   // its writes have already been throttled
	// again: operations stayed open that need not wait for their shard. burst is how
	// many writes are proposed at once, 0: all; crowded are those of the present
	// round that their entry had no room for.
	again          bool
	burst, crowded int
	writing        bool   // it has a write
	clock          uint64 // the newest floor that expired one of its writes, in ms

	// budgets are those that admitted the message; held is what its answers hold
	// of them until they are sent, in bytes.
	budgets []*budget
	held    int64
	// room is what the response that is being made has room for yet beside the
	// outcomes themselves, in bytes: of values, and of redirects. full is set once
	// something did not fit: nothing more is read for it.
	room atomic.Int64
	full atomic.Bool
}

// A step is how far one operation is.
type step struct {
	shard    shardcfg.ShardID
	write    bool
	answered bool
	sent     bool // its outcome went out in a part
}

// newMessage returns a request that was admitted by budgets.
func newMessage(r *kvpb.ExecuteRequest, size int64, budgets ...*budget) *message {
	n := len(r.GetOperations())
	m := &message{request: r, size: size, outcomes: make([]*kvpb.Outcome, n),
		steps: make([]step, n), open: make([]int, n), budgets: budgets}
	backing := make([]kvpb.Outcome, n)
	for i := range backing {
		m.outcomes[i] = &backing[i]
		m.open[i] = i
	}
	m.refill()
	return m
}

// refill makes room for a new response: the one before was sent.
func (m *message) refill() {
	m.room.Store(int64(min(shardcfg.ResponseBytesMax, shardcfg.MessageBytesMax-outcomeBytesMax*len(m.steps))))
	m.full.Store(false)
}

// fits takes n bytes of the response, or reports false.
func (m *message) fits(n int) bool {
	if m.room.Add(int64(-n)) >= 0 {
		return true
	}
	m.room.Add(int64(n))
	m.full.Store(true)
	return false
}

// check validates the operations and finds their shards. It answers the bad
// ones.
func (m *message) check(shardCount int) {
	session := m.request.GetSession()
	var sequences sequenceSet
	for i, op := range m.request.GetOperations() {
		f := checkOperation(op, session)
		if !f.bad() && op.GetSequence() != 0 && !sequences.add(op.GetSequence(), len(m.steps)) {
			f = invalid("sequence number %d occurs twice in the request", op.GetSequence())
		}
		if f.bad() {
			m.fail(i, f)
			continue
		}
		m.steps[i].shard = shardcfg.ShardOf(op.GetKey(), shardCount)
		if op.GetGet() == nil {
			m.steps[i].write = true
			m.writing = true
		}
	}
	m.compact()
}

// answer marks operation i as answered; its outcome is filled in by the caller.
func (m *message) answer(i int) *kvpb.Outcome {
	m.steps[i].answered = true
	return m.outcomes[i]
}

// hold counts n bytes of an answer against the budgets, or reports false: a
// client that asks for much and reads nothing must not fill the memory.
func (m *message) hold(n int64) bool {
	for i, b := range m.budgets {
		if !b.grow(n) {
			for _, grown := range m.budgets[:i] {
				grown.shrink(n)
			}
			return false
		}
	}
	m.held += n
	return true
}

// release returns what hold counted, once all answers that there are were sent.
func (m *message) release() {
	for _, b := range m.budgets {
		b.shrink(m.held)
	}
	m.held = 0
}

// fail answers operation i with a fault.
func (m *message) fail(i int, f fault) {
	o := m.answer(i)
	o.Code, o.Message = f.code, clip(f.message)
}

// clip shortens a text to what an outcome has room for.
func clip(text string) string {
	if len(text) <= textBytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:textBytesMax-3], "") + "..."
}

// failOpen answers every open operation with the same fault.
func (m *message) failOpen(f fault) {
	for _, i := range m.open {
		if !m.steps[i].answered {
			m.fail(i, f)
		}
	}
	m.open = m.open[:0]
}

// compact drops the answered operations from open.
func (m *message) compact() {
	kept := m.open[:0]
	for _, i := range m.open {
		if !m.steps[i].answered {
			kept = append(kept, i)
		}
	}
	m.open = kept
}

// openShards returns the shards of the open operations.
func (m *message) openShards() []shardcfg.ShardID {
	shards := make([]shardcfg.ShardID, 0, len(m.open))
	for _, i := range m.open {
		if s := m.steps[i].shard; len(shards) == 0 || shards[len(shards)-1] != s {
			shards = append(shards, s)
		}
	}
	return shards
}

// unsent returns, and marks as sent, the answered operations whose outcomes did
// not go out yet.
func (m *message) unsent() []uint32 {
	var indexes []uint32
	for i := range m.steps {
		if st := &m.steps[i]; st.answered && !st.sent {
			st.sent = true
			indexes = append(indexes, uint32(i))
		}
	}
	m.refill()
	return indexes
}

// pick returns the outcomes of some operations.
func (m *message) pick(indexes []uint32) []*kvpb.Outcome {
	outcomes := make([]*kvpb.Outcome, len(indexes))
	for k, i := range indexes {
		outcomes[k] = m.outcomes[i]
	}
	return outcomes
}

// hand returns the outcomes of a part, which is about to be sent. The message keeps no
// value of them: the rest of it may have to wait for long.
func (m *message) hand(indexes []uint32) []*kvpb.Outcome {
	outcomes := make([]*kvpb.Outcome, len(indexes))
	for k, i := range indexes {
		o := &kvpb.Outcome{}
		m.outcomes[i].ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			o.ProtoReflect().Set(field, v)
			return true
		})
		outcomes[k], m.outcomes[i].Value = o, nil
	}
	return outcomes
}

// A sequenceSet finds duplicates. Sequence numbers mostly come in ascending
// order, which needs no map.
type sequenceSet struct {
	last uint64
	seen map[uint64]struct{}
	all  []uint64
}

// add reports whether seq is new. sizeHint is the number of operations.
func (s *sequenceSet) add(seq uint64, sizeHint int) bool {
	if s.seen == nil {
		if seq > s.last {
			s.last = seq
			s.all = append(s.all, seq)
			return true
		}
		s.seen = make(map[uint64]struct{}, sizeHint)
		for _, old := range s.all {
			s.seen[old] = struct{}{}
		}
	}
	if _, dup := s.seen[seq]; dup {
		return false
	}
	s.seen[seq] = struct{}{}
	return true
}

// Faults that are the same every time.
var (
	busyServer = fault{kvpb.Code_BUSY, "the server has as many requests in flight as it may; try again a little later"}
	busyStream = fault{kvpb.Code_BUSY, "the stream has as many requests in flight as it may; wait for answers before sending more"}
	busyParked = fault{kvpb.Code_BUSY, "too many requests are waiting for shards that are moving; try again a little later"}
	busyFull   = fault{kvpb.Code_BUSY, "the response is full; ask for fewer keys at once"}
	busyValues = fault{kvpb.Code_BUSY, "the server holds as many values for its clients as it may; read the answers, or try again a little later"}
	busyTurn   = fault{kvpb.Code_BUSY, "the operation did not get its turn in the time that the request may be held"}
	lateWrite  = fault{kvpb.Code_OUTCOME_UNKNOWN, "the write is under way, and was not committed in the time that the request may be held; a retry joins it"}
	starting   = fault{kvpb.Code_UNAVAILABLE, "the replica is starting or stopping"}
)

func busyShard(s shardcfg.ShardID) fault {
	return fault{kvpb.Code_BUSY, fmt.Sprintf("shard %d is moving and did not become free in time", s)}
}
