package shardctrler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// What is kept of a report is bounded, whoever sends it: reports of groups that are
// not listed are kept too.
func TestReportsAreBounded(t *testing.T) {
	r := &replica{id: formation.Identity{ShardCount: 4}}
	fine := func() *ctrlpb.PollRequest {
		inc := shardcfg.Incarnation{1}
		req := &ctrlpb.PollRequest{Gid: 1, Incarnation: inc[:], Leader: "a:1"}
		for i := range shardcfg.ReplicasMax {
			req.Replicas = append(req.Replicas, fmt.Sprintf("r%d:1", i))
		}
		for s := range uint32(4) {
			req.Holdings = append(req.Holdings, &ctrlpb.Holding{Shard: s})
		}
		return req
	}
	if rep, err := reportOf(r, fine()); err != nil || len(rep.Holdings) != 4 {
		t.Errorf("a report is %+v, %v", rep, err)
	}
	for name, spoil := range map[string]func(*ctrlpb.PollRequest){
		"too many replicas":   func(req *ctrlpb.PollRequest) { req.Replicas = append(req.Replicas, "one-more:1") },
		"a long address":      func(req *ctrlpb.PollRequest) { req.Replicas[0] = strings.Repeat("a", shardcfg.AddressBytesMax) + ":1" },
		"a leader far away":   func(req *ctrlpb.PollRequest) { req.Leader = strings.Repeat("a", shardcfg.AddressBytesMax+1) },
		"a shard too many":    func(req *ctrlpb.PollRequest) { req.Holdings = append(req.Holdings, &ctrlpb.Holding{}) },
		"an unknown shard":    func(req *ctrlpb.PollRequest) { req.Holdings[0].Shard = 4 },
		"half a group's name": func(req *ctrlpb.PollRequest) { req.Incarnation = req.Incarnation[:8] },
	} {
		req := fine()
		spoil(req)
		if _, err := reportOf(r, req); ctrlpb.ReasonOf(err) != ctrlpb.Reason_BAD_REQUEST {
			t.Errorf("%s: %v", name, err)
		}
	}
}
