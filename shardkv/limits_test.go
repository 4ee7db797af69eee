package shardkv

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/session"
)

// fits checks that the largest legal unit of a layer is no larger than the next
// layer takes.
func fits(t *testing.T, what string, n, limit int) {
	t.Helper()
	if n > limit {
		t.Errorf("%s has %d bytes, at most %d fit", what, n, limit)
	}
}

var (
	longKey    = []byte(strings.Repeat("\xff", shardcfg.KeyBytesMax))
	largeValue = make([]byte, shardcfg.ValueBytesMax)
	lateEpoch  = shardcfg.Epoch{Gen: math.MaxUint32, Num: math.MaxUint64}
	lateStamp  = session.Stamp{Key: session.Key{Birth: math.MaxUint64, ID: shardcfg.SessionID{255}},
		AckedBelow: math.MaxUint64, Sequence: math.MaxUint64}
)

// largestChange is what one write may change: a record and a session.
func largestChange() []kvfsm.Item {
	var rec session.Record
	for i := range shardcfg.SessionResultsMax {
		rec.Remember(session.Result{Sequence: math.MaxUint64 - uint64(shardcfg.SessionResultsMax-i)*math.MaxUint32,
			Code: 255, Version: math.MaxUint64, Length: math.MaxUint64}, 0)
	}
	const headerBytes = 19
	return []kvfsm.Item{
		{Key: lateStamp.Key.Append([]byte{2}), Value: rec.Append(nil)},
		{Key: append([]byte{4}, longKey...), Value: make([]byte, headerBytes+shardcfg.ValueBytesMax)},
	}
}

// fullPage is a page of as many small items as fit.
func fullPage(itemBytes int) []kvfsm.Item {
	items := make([]kvfsm.Item, shardcfg.PageBytesMax/itemBytes)
	for i := range items {
		items[i] = kvfsm.Item{Key: []byte{4, 'k'}, Deleted: true}
	}
	return items
}

// Claim: item, page, command, entry, batch: the largest legal unit of each fits
// into one of the next.
func TestLimitsOfTheLogFit(t *testing.T) {
	change := largestChange()
	bytes := 0
	for _, it := range change {
		bytes += 16 + len(it.Key) + len(it.Value) // as pages count
	}
	fits(t, "the largest change", bytes, shardcfg.ChangeBytesMax)
	cursor := kvfsm.Cursor{Key: append([]byte{4}, longKey...), Revision: math.MaxUint64, Tail: true}
	largest := 0
	for name, c := range map[string]kvfsm.Command{
		"write": &kvfsm.Write{Op: kvfsm.OpPut, Key: longKey, Value: largeValue, Stamp: lateStamp,
			Condition: kvfsm.Condition{Set: true, Version: math.MaxUint64}},
		"page of one change":    &kvfsm.Chunk{Shard: math.MaxUint16, Epoch: lateEpoch, Handoff: math.MaxUint64, From: cursor, Next: cursor, Items: change},
		"page of small items":   &kvfsm.Chunk{Shard: math.MaxUint16, Epoch: lateEpoch, Handoff: math.MaxUint64, From: cursor, Next: cursor, Items: fullPage(18)},
		"last page of a change": &kvfsm.Install{Shard: math.MaxUint16, Epoch: lateEpoch, Handoff: math.MaxUint64, From: cursor, Items: change},
		"config":                &kvfsm.Adopt{Cluster: fakeCluster, Config: largestConfig(t)},
	} {
		body := len(kvfsm.Encode(c).Body)
		fits(t, "the command of a "+name, body, shardcfg.CommandBytesMax)
		largest = max(largest, body)
	}
	// An entry is a full one, or one command; its batch has its effects besides.
	fits(t, "the largest entry", entry.OverheadBytes+entry.CommandOverheadBytes+largest, math.MaxInt32)
	fits(t, "the batch of an entry", shardcfg.EffectBytesMax+4*shardcfg.ChangeBytesMax+4*shardcfg.CommandBytesMax, store.BatchBytesMax)
}

// largestConfig is as large as the controllers let one get.
func largestConfig(t *testing.T) *shardcfg.Config {
	c := &shardcfg.Config{Num: math.MaxUint64, Groups: map[shardcfg.GroupID]shardcfg.Group{}, Pins: map[shardcfg.ShardID]shardcfg.Pin{}}
	address := strings.Repeat("a", shardcfg.AddressBytesMax)
	for gid := shardcfg.GroupID(math.MaxUint64); c.GroupsBytes() <= shardcfg.GroupsBytesMax-16*300; gid-- {
		g := shardcfg.Group{Incarnation: shardcfg.Incarnation{1}, Weight: shardcfg.WeightMax, State: shardcfg.GroupMember}
		for range shardcfg.ReplicasMax {
			g.Replicas = append(g.Replicas, address)
		}
		c.Groups[gid] = g
	}
	for s := range shardcfg.ShardID(shardcfg.ShardCountMax - 1) {
		gid := shardcfg.GroupID(math.MaxUint64 - uint64(s%2))
		c.Shards = append(c.Shards, gid)
		c.Pins[s] = shardcfg.Pin{Group: gid, MaxPauseMS: shardcfg.PauseMSMax}
	}
	for i := range shardcfg.RetiredMax {
		c.Retired = append(c.Retired, shardcfg.Incarnation{byte(i >> 8), byte(i), 1})
	}
	fits(t, "the largest config", len(shardcfg.AppendConfig(nil, c)), shardcfg.ConfigBytesMax)
	return c
}

// Claim: the largest message of each kind between clients, groups and replicas is
// one that gRPC takes.
func TestLimitsOfMessagesFit(t *testing.T) {
	cursor := kvfsm.Cursor{Key: append([]byte{4}, longKey...), Revision: math.MaxUint64, Tail: true}
	mark := kvfsm.Mark{Epoch: lateEpoch, Handoff: math.MaxUint64}
	fetch := handoff.Fetch{From: kvfsm.Peer{Incarnation: fakeSelf}}
	reply := &kvpb.FetchReply{Leader: strings.Repeat("a", shardcfg.AddressBytesMax)}
	for range shardcfg.FetchShardsMax {
		fetch.Wants = append(fetch.Wants, kvfsm.Want{Shard: math.MaxUint16, Mark: mark, Cursor: cursor})
		page := kvfsm.Page{Shard: math.MaxUint16, Mark: mark, Next: cursor, Last: true, TotalBytes: math.MaxUint64,
			Summary: kvfsm.Summary{Revision: math.MaxUint64, RemovalRevision: math.MaxUint64,
				Content: kvfsm.Content{Keys: math.MaxUint64, Bytes: math.MaxUint64}}}
		reply.Shards = append(reply.Shards, pageMessage(&page))
	}
	full := kvfsm.Page{Mark: mark, Next: cursor, Items: fullPage(18)}
	alone := kvfsm.Page{Mark: mark, Next: cursor, Items: largestChange()}
	reply.Shards[0], reply.Shards[1] = pageMessage(&full), pageMessage(&alone)
	invitation := handoff.Invite{From: handoff.Identity{Peer: kvfsm.Peer{Incarnation: fakeSelf}, Replicas: largestReplicas()}}
	status := &kvpb.StatusResponse{}
	scan := &kvpb.ScanRequest{Prefix: longKey}
	for range shardcfg.ShardCountMax {
		invitation.Shards = append(invitation.Shards, handoff.Invitation{Shard: math.MaxUint16, Mark: mark, Phase: kvfsm.PhaseFrozen})
		rec := &kvfsm.Record{Shard: math.MaxUint16, Phase: kvfsm.PhasePassed, Epoch: lateEpoch, Handoff: math.MaxUint64,
			To: kvfsm.Peer{Incarnation: fakeOther, Group: math.MaxUint64}, Revision: math.MaxUint64,
			Content: kvfsm.Content{Keys: math.MaxUint64, Bytes: math.MaxUint64},
			Staging: &kvfsm.Staging{Epoch: lateEpoch, Handoff: math.MaxUint64, From: kvfsm.Peer{Incarnation: fakeOther, Group: math.MaxUint64}, Cursor: cursor}}
		status.Shards = append(status.Shards, shardMessage(rec, handoff.Progress{CopiedBytes: math.MaxUint64, Tail: math.MaxUint64, Pause: math.MaxInt64,
			Waiting: strings.Repeat("w", 80)}))
		scan.From = append(scan.From, &kvpb.ScanFrom{Shard: math.MaxUint16})
	}
	request := &kvpb.ExecuteRequest{Session: &kvpb.Session{Id: []byte("0123456789abcdef"), BirthMs: math.MaxUint64, AckedBelow: math.MaxUint64}}
	for range shardcfg.OperationsMax {
		op := putOp("k", strings.Repeat("v", shardcfg.RequestBytesMax/shardcfg.OperationsMax-shardcfg.OperationBytes-1))
		op.Sequence, op.Retry = math.MaxUint64, true
		op.GetPut().Condition = &kvpb.Condition{Version: math.MaxUint64}
		request.Operations = append(request.Operations, op)
	}
	if size, f := checkRequest(request); f.bad() || size != shardcfg.RequestBytesMax {
		t.Errorf("a request of %d bytes: %v; it should just be admitted", size, f)
	}
	for name, m := range map[string]proto.Message{
		"request for pages": fetchMessage(fakeCluster, &fetch), "answer with pages": reply,
		"invitation": inviteMessage(fakeCluster, &invitation), "status": status, "scan": scan,
		"request of many operations": request,
		"request of one":             &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(string(longKey), string(largeValue))}},
	} {
		fits(t, "the largest "+name, proto.Size(m), shardcfg.MessageBytesMax)
	}
	if _, err := toWants(&kvpb.FetchRequest{Shards: make([]*kvpb.Want, shardcfg.FetchShardsMax+1)}, fakeShards); err == nil {
		t.Error("a request for more pages than a message may hold is accepted")
	}
}

func largestReplicas() []string {
	return slices.Repeat([]string{strings.Repeat("a", shardcfg.AddressBytesMax)}, shardcfg.ReplicasMax)
}

// Claim: a response fits into a message whatever the outcomes of its operations
// are, in one round or in several: values, redirects to groups with long
// addresses, and refusals with long texts.
func TestLargestResponseFits(t *testing.T) {
	s, f := newFake(t, Limits{})
	config := fakeConfigOf(2, 1, fakeShards, 0)
	away := config.Groups[2]
	away.Replicas = largestReplicas()
	config.Groups[2] = away
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: config})
	f.freeze(t, 0)
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	large := string(largeValue)
	for shard := range shardcfg.ShardID(3) {
		if o := executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(keyIn(shard+1), large)}}); o[0].GetCode() != kvpb.Code_OK {
			t.Fatal(o)
		}
	}
	r := &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp(keyIn(1)), getOp(keyIn(2)), getOp(keyIn(3))}}
	for len(r.Operations) < shardcfg.OperationsMax {
		r.Operations = append(r.Operations, getOp(keyIn(0)))
	}
	response, err := s.Execute(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	fits(t, "the response", proto.Size(response), shardcfg.MessageBytesMax)
	codes := map[kvpb.Code]int{}
	for _, o := range response.GetOutcomes() {
		codes[o.GetCode()]++
	}
	if codes[kvpb.Code_BUSY] == 0 || codes[kvpb.Code_WRONG_GROUP] == 0 || len(codes) != 2 {
		t.Errorf("outcomes %v, want some of WRONG_GROUP and, where the response was full, BUSY", codes)
	}
	f.follow = strings.Repeat("a", shardcfg.AddressBytesMax)
	if response, err = s.Execute(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	fits(t, "the response of a follower", proto.Size(response), shardcfg.MessageBytesMax)
	f.follow, f.fail = "", fmt.Errorf("a disk that says much: %s", strings.Repeat("x", 10_000))
	if response, err = s.Execute(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	fits(t, "the response of a failing replica", proto.Size(response), shardcfg.MessageBytesMax)
}
