package shardkv

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

func putOp(key, value string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Put{Put: &kvpb.Put{Value: []byte(value)}}}
}

func getOp(key string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Get{Get: &kvpb.Get{}}}
}

// keyIn returns a key of a shard.
func keyIn(s shardcfg.ShardID) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("key", i); shardcfg.ShardOf([]byte(key), fakeShards) == s {
			return key
		}
	}
}

func executeNow(t *testing.T, s *Server, r *kvpb.ExecuteRequest) []*kvpb.Outcome {
	t.Helper()
	response, err := s.Execute(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return response.GetOutcomes()
}

func codesOf(outcomes []*kvpb.Outcome) []kvpb.Code {
	codes := make([]kvpb.Code, len(outcomes))
	for i, o := range outcomes {
		codes[i] = o.GetCode()
	}
	return codes
}

// Claim: operations that meet a frozen shard wait, do not hold back the others
// of their message, and are redirected once the shard was passed on.
func TestFrozenShardParks(t *testing.T) {
	s, f := newFake(t, Limits{})
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(2, 2)})
	f.freeze(t, 0)
	m := newMessage(&kvpb.ExecuteRequest{Operations: []*kvpb.Operation{
		putOp(keyIn(0), "frozen"), putOp(keyIn(1), "free"), getOp(keyIn(0)), getOp(keyIn(2))}}, 100)
	parts := make(chan []uint32, 10)
	done := make(chan struct{})
	go func() {
		s.execute(context.Background(), m, func(indexes []uint32) { parts <- indexes })
		close(done)
	}()
	if first := <-parts; fmt.Sprint(first) != "[1 3]" {
		t.Fatalf("first part has the outcomes %v, want [1 3]", first)
	}
	for s.parking.count() == 0 {
		time.Sleep(time.Millisecond) // poll
	}
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	<-done
	want := "[WRONG_GROUP OK WRONG_GROUP NOT_FOUND]"
	if got := fmt.Sprint(codesOf(m.outcomes)); got != want {
		t.Errorf("outcomes %s, want %s", got, want)
	}
	r := m.outcomes[0].GetRedirect()
	if r.GetGid() != 2 || fmt.Sprint(r.GetReplicas()) != "[there:1]" || r.GetEpoch().GetNum() != 2 {
		t.Errorf("redirect %v, want group 2 at there:1, epoch 2", r)
	}
	if s.parking.count() != 0 {
		t.Errorf("%d requests are still parked", s.parking.count())
	}
}

// Claim: parking is bounded in time and in number.
func TestParkingIsBounded(t *testing.T) {
	s, f := newFake(t, Limits{Parked: 1})
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(2, 2)})
	f.freeze(t, 0)
	request := &kvpb.ExecuteRequest{TimeoutMs: 50, Operations: []*kvpb.Operation{getOp(keyIn(0))}}
	long, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = s.Execute(long, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp(keyIn(0))}})
	}()
	for s.parking.count() == 0 {
		time.Sleep(time.Millisecond) // poll
	}
	if o := executeNow(t, s, request)[0]; o.GetCode() != kvpb.Code_BUSY || o.GetMessage() != busyParked.message {
		t.Errorf("with a full parking: %v", o)
	}
	cancel()
	<-ended
	if o := executeNow(t, s, request)[0]; o.GetCode() != kvpb.Code_BUSY || o.GetMessage() != busyShard(0).message {
		t.Errorf("after the deadline: %v", o)
	}
}

// Claim: each failure of the group is reported in its family.
func TestFaultFamilies(t *testing.T) {
	s, f := newFake(t, Limits{})
	request := &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp("a", "v"), getOp("a")}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{raftgroup.ErrBusy, "[BUSY BUSY]"},
		{fmt.Errorf("x: %w", raftgroup.ErrNotDone), "[UNAVAILABLE UNAVAILABLE]"},
		{&raftgroup.NotLeaderError{Leader: "b:1"}, "[NOT_LEADER NOT_LEADER]"},
		{&raftgroup.NotLeaderError{}, "[UNAVAILABLE UNAVAILABLE]"},
		{raftgroup.ErrOutcomeUnknown, "[OUTCOME_UNKNOWN UNAVAILABLE]"},
		{errors.New("of no family"), "[OUTCOME_UNKNOWN UNAVAILABLE]"},
		{nil, "[OK OK]"},
	} {
		f.fail = c.err
		if c.err == nil { // one after the other: the two operations are independent
			executeNow(t, s, &kvpb.ExecuteRequest{Operations: request.Operations[:1]})
		}
		if got := fmt.Sprint(codesOf(executeNow(t, s, request))); got != c.want {
			t.Errorf("%v: outcomes %s, want %s", c.err, got, c.want)
		}
	}
	f.follow = "b:1"
	if got := fmt.Sprint(codesOf(executeNow(t, s, request))); got != "[NOT_LEADER NOT_LEADER]" {
		t.Errorf("a follower says %s", got)
	}
	s.node.Store(nil)
	if got := fmt.Sprint(codesOf(executeNow(t, s, request))); got != "[UNAVAILABLE UNAVAILABLE]" {
		t.Errorf("a server that is not ready says %s", got)
	}
}

// Claim: a receiver sends clients to the holder while that still serves, lets
// them wait while it is frozen, and never says that a key is absent.
func TestReceiverPlacesShards(t *testing.T) {
	s, f := newFake(t, Limits{})
	n := s.node.Load()
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(2, 2)})
	f.freeze(t, 0)
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfig(3, 1)})
	holder := kvfsm.Peer{Incarnation: fakeOther, Group: 2}
	if at := n.places.of(0); at.Wait || at.Here || at.Next != holder {
		t.Errorf("ours again, passed on before: %+v, want the group it was passed to", at)
	}
	mark := kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 2}, Handoff: 3}
	n.places.invite(0, placement.Invitation{From: holder, Mark: mark, Phase: kvfsm.PhaseLeaving})
	if at := n.places.of(0); at.Wait || at.Next != holder || at.Epoch != mark.Epoch {
		t.Errorf("the holder is leaving: %+v, want a redirect to it", at)
	}
	n.places.invite(0, placement.Invitation{From: holder, Mark: mark, Phase: kvfsm.PhaseFrozen})
	if at := n.places.of(0); !at.Wait {
		t.Errorf("the holder is frozen: %+v, want wait", at)
	}
	if n.places.invite(0, placement.Invitation{From: holder, Mark: kvfsm.Mark{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 9}, Phase: kvfsm.PhaseLeaving}) {
		t.Error("an older invitation was taken for news")
	}
	// A new group: the shard is to be created, unless somebody holds it.
	fresh := newPlaces(kvfsm.Peer{Incarnation: fakeSelf, Group: 1}, fakeShards)
	if at := fresh.of(1); !at.Wait {
		t.Errorf("before the first config: %+v, want wait", at)
	}
	fresh.now.Store(&placed{config: fakeConfig(3, 1), records: make([]*kvfsm.Record, fakeShards)})
	if at := fresh.of(1); !at.Wait {
		t.Errorf("to be created here: %+v, want wait", at)
	}
	fresh.takeHints([]placement.Hint{{Shard: 1, Holder: holder, Epoch: shardcfg.Epoch{Num: 5}}})
	if at := fresh.of(1); at.Wait || at.Next != holder {
		t.Errorf("held elsewhere by report: %+v, want a redirect", at)
	}
}

// Claim: a shard whose session floor was raised by a clock far ahead of this
// group's still takes writes: the refusal tells a time at which a new session
// can be born, and that is admitted.
func TestFloorAheadOfClock(t *testing.T) {
	const day = 24 * 3600 * 1000
	s, f := newFake(t, Limits{})
	key := keyIn(0)
	f.clock = clockMs + day // a leader whose clock is wrong
	f.propose(t, &kvfsm.RaiseFloor{Shard: 0, Floor: clockMs + day})
	f.clock = clockMs // as at another group that the shard came to
	birth := uint64(clockMs)
	for _, want := range []kvpb.Code{kvpb.Code_SESSION_EXPIRED, kvpb.Code_OK} {
		op := putOp(key, "v")
		op.Sequence = 1
		r, err := s.Execute(t.Context(), &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{op},
			Session: &kvpb.Session{Id: []byte("0123456789abcdef"), BirthMs: birth}})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.GetOutcomes()[0].GetCode(); got != want {
			t.Fatalf("a session born at %d: %v, want %v", birth, got, want)
		}
		birth = r.GetClockMs()
	}
}

// Claim: the values of one response are bounded, and a single value of any
// legal size fits.
func TestResponseIsBounded(t *testing.T) {
	s, _ := newFake(t, Limits{})
	value := string(make([]byte, shardcfg.ValueBytesMax))
	var reads []*kvpb.Operation
	for i := range 4 {
		key := fmt.Sprint("large", i)
		if o := executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(key, value)}})[0]; o.GetCode() != kvpb.Code_OK {
			t.Fatal(o)
		}
		reads = append(reads, getOp(key))
	}
	if got := fmt.Sprint(codesOf(executeNow(t, s, &kvpb.ExecuteRequest{Operations: reads}))); got != "[OK OK BUSY BUSY]" {
		t.Errorf("four of the largest values: %s, want [OK OK BUSY BUSY]", got)
	}
}

// Claim: the values that wait for slow clients are bounded, as a whole: what is
// beyond is refused, definitely not done, and what was sent frees its room.
func TestValuesInFlightAreBounded(t *testing.T) {
	const value = 1 << 10
	s, _ := newFake(t, Limits{Bytes: 4 * value})
	executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp("a", string(make([]byte, value)))}})
	read := func() *message {
		m := newMessage(&kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp("a")}}, 100, s.total)
		if !s.total.take(m.size) {
			t.Fatal("a small request was not admitted")
		}
		s.execute(t.Context(), m, nil)
		return m
	}
	var waiting []*message
	for range 3 {
		m := read()
		if m.outcomes[0].GetCode() != kvpb.Code_OK {
			t.Fatal(m.outcomes[0])
		}
		waiting = append(waiting, m)
	}
	refused := read()
	if o := refused.outcomes[0]; o.GetCode() != kvpb.Code_BUSY || len(o.GetValue()) > 0 {
		t.Errorf("beyond the budget: %v", o.GetCode())
	}
	for _, m := range append(waiting, refused) {
		m.release()
		s.total.give(m.size)
	}
	if n, bytes := s.total.inFlight(); n != 0 || bytes != 0 {
		t.Errorf("%d requests and %d bytes are left in flight", n, bytes)
	}
	if o := executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp("a")}})[0]; o.GetCode() != kvpb.Code_OK {
		t.Errorf("when all was sent: %v", o)
	}
}

// Claim: gets read little more than the response has room for.
func TestGetsReadWhatTheySend(t *testing.T) {
	s, f := newFake(t, Limits{})
	var reads []*kvpb.Operation
	for _, key := range putIn(t, s, 0, 24, shardcfg.ValueBytesMax) {
		reads = append(reads, getOp(key))
	}
	read := 0
	f.store = countingStore{f.store, &read}
	sent := 0
	for _, o := range executeNow(t, s, &kvpb.ExecuteRequest{Operations: reads}) {
		sent += len(o.GetValue())
	}
	if sent == 0 || read > sent+shardcfg.ValueBytesMax+1<<20 {
		t.Errorf("%d bytes were read to send %d", read, sent)
	}
}

// Claim: a unary response fits into a message though it is made in several rounds.
func TestResponseOfSeveralRoundsIsBounded(t *testing.T) {
	s, f := newFake(t, Limits{})
	for shard := range shardcfg.ShardID(3) {
		executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(keyIn(shard), string(largeValue))}})
	}
	// Shard 0 is frozen for group 2 and comes back, by a repair, while the message
	// waits.
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(2, 1, fakeShards, 0)})
	f.freeze(t, 0)
	answer := make(chan *kvpb.ExecuteResponse)
	go func() {
		r, _ := s.Execute(context.Background(), &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{
			getOp(keyIn(0)), getOp(keyIn(1)), getOp(keyIn(2))}})
		answer <- r
	}()
	for s.parking.count() == 0 {
		time.Sleep(time.Millisecond) // poll
	}
	c := fakeConfigOf(3, 1, fakeShards)
	delete(c.Groups, 2)
	c.Retired = []shardcfg.Incarnation{fakeOther}
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: c})
	f.propose(t, &kvfsm.Thaw{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}, Gen: 1})
	r := <-answer
	fits(t, "the response", proto.Size(r), shardcfg.MessageBytesMax)
	if got := fmt.Sprint(codesOf(r.GetOutcomes())); got != "[BUSY OK OK]" {
		t.Errorf("outcomes %s, want [BUSY OK OK]", got)
	}
}
