package shardkv

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Claim: whatever bytes a client sends, every operation of it gets an outcome of
// a known code, and nothing panics.
func FuzzExecute(f *testing.F) {
	s, _ := newFake(f, Limits{})
	session := &kvpb.Session{Id: make([]byte, 16), BirthMs: clockMs, AckedBelow: 1}
	session.Id[0] = 1
	for _, r := range []*kvpb.ExecuteRequest{
		{},
		{Operations: []*kvpb.Operation{putOp("a", "v"), getOp("a"), {}}},
		{Session: session, Operations: []*kvpb.Operation{{Key: []byte("a"), Sequence: 1, Kind: &kvpb.Operation_Append{Append: &kvpb.Append{Value: []byte("x")}}}}},
		{Cluster: []byte{1}, TimeoutMs: 1, Operations: []*kvpb.Operation{{Key: []byte("a"), Kind: &kvpb.Operation_Delete{Delete: &kvpb.Delete{Condition: &kvpb.Condition{Version: 3}}}}}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &kvpb.ExecuteRequest{}
		if proto.Unmarshal(b, r) != nil {
			return
		}
		r.TimeoutMs = 1
		response, err := s.Execute(context.Background(), r)
		if err != nil || len(response.GetOutcomes()) != len(r.GetOperations()) {
			t.Fatalf("%v is answered by %v, %v", r, response, err)
		}
		for _, o := range response.GetOutcomes() {
			if _, known := kvpb.Code_name[int32(o.GetCode())]; !known || o.GetCode() >= kvpb.Code_WRONG_GROUP && o.GetMessage() == "" {
				t.Fatalf("%v has the outcome %v", r, o)
			}
		}
	})
}

// Claim: whatever bytes another group sends, Invite and Fetch answer or refuse,
// and nothing panics.
func FuzzHandoff(f *testing.F) {
	s, _ := newFake(f, Limits{})
	invite, err := proto.Marshal(&kvpb.InviteRequest{From: fakeOther[:], To: fakeSelf[:], Shards: []*kvpb.Invitation{{Shard: 1, Phase: kvpb.Phase_LEAVING}}})
	if err != nil {
		f.Fatal(err)
	}
	fetch, err := proto.Marshal(&kvpb.FetchRequest{From: fakeSelf[:], To: fakeOther[:], Shards: []*kvpb.Want{{Shard: 1, Cursor: &kvpb.Cursor{Key: []byte{0x90}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(invite)
	f.Add(fetch)
	f.Fuzz(func(t *testing.T, b []byte) {
		i, w, r := &kvpb.InviteRequest{}, &kvpb.FetchRequest{}, &kvpb.FetchReply{}
		if proto.Unmarshal(b, i) == nil {
			i.To, i.WaitMs = fakeSelf[:], 0
			if reply, err := s.Invite(context.Background(), i); err == nil {
				if _, err := toInviteReply(reply, fakeShards); err != nil {
					t.Fatalf("%v is answered by %v: %v", i, reply, err)
				}
			}
		}
		if proto.Unmarshal(b, w) == nil {
			w.From, w.WaitMs = fakeSelf[:], 0
			if reply, err := s.Fetch(context.Background(), w); err == nil {
				if _, err := toPages(reply, fakeShards); err != nil {
					t.Fatalf("%v is answered by %v: %v", w, reply, err)
				}
			}
		}
		if proto.Unmarshal(b, r) == nil {
			_, _ = toPages(r, fakeShards)
		}
	})
}

// Claim: an invitation makes a group remember and look at no more than a group can
// have said: beyond that it is refused, and leaves nothing.
func TestInvitationsAreBounded(t *testing.T) {
	s, _ := newFake(t, Limits{})
	invitation := &kvpb.Invitation{Shard: 1, Phase: kvpb.Phase_LEAVING}
	for name, r := range map[string]*kvpb.InviteRequest{
		"shards":    {Shards: slices.Repeat([]*kvpb.Invitation{invitation}, fakeShards+1)},
		"addresses": {Replicas: slices.Repeat([]string{"there:1"}, shardcfg.ReplicasMax+1)},
		"a name":    {Replicas: []string{strings.Repeat("a", shardcfg.AddressBytesMax+1)}},
	} {
		r.From, r.To = fakeOther[:], fakeSelf[:]
		if len(r.Shards) == 0 {
			r.Shards = []*kvpb.Invitation{invitation}
		}
		if _, err := s.Invite(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("too much of %s: %v, want %v", name, err, codes.InvalidArgument)
		}
	}
	places := s.node.Load().places
	if known := places.addressesOf(kvfsm.Peer{Incarnation: fakeOther}); len(known) != 0 {
		t.Errorf("%d addresses are remembered", len(known))
	}
	whole := &kvpb.InviteRequest{From: fakeOther[:], To: fakeSelf[:], Shards: slices.Repeat([]*kvpb.Invitation{invitation}, fakeShards),
		Replicas: slices.Repeat([]string{strings.Repeat("a", shardcfg.AddressBytesMax)}, shardcfg.ReplicasMax)}
	if _, err := s.Invite(t.Context(), whole); err != nil {
		t.Errorf("as much as a group can say: %v", err)
	}
}

// Claim: a budget admits up to its bounds, and one request alone whatever its
// size.
func TestBudget(t *testing.T) {
	b := newBudget(2, 10)
	if !b.take(100) || b.take(1) {
		t.Error("a large request must be admitted, and only alone")
	}
	b.give(100)
	first, second := b.take(5), b.take(5)
	if !first || !second || b.take(0) {
		t.Error("two requests fit, a third does not")
	}
	b.give(5)
	if b.take(6) || !b.take(5) {
		t.Error("bytes are counted")
	}
}
