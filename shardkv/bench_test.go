package shardkv

import (
	"context"
	"fmt"
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// BenchmarkExecute measures what the server adds around the machine, for
// messages of 64 operations, without network, Raft or disk.
func BenchmarkExecute(b *testing.B) {
	const operations = 64
	for _, kind := range []string{"get", "put"} {
		b.Run(kind, func(b *testing.B) {
			s, _ := newFake(b, Limits{})
			r := &kvpb.ExecuteRequest{Session: &kvpb.Session{Id: []byte("0123456789abcdef"), BirthMs: clockMs, AckedBelow: 1}}
			for i := range operations {
				op := getOp(fmt.Sprint("key", i))
				if kind == "put" {
					op = putOp(fmt.Sprint("key", i), string(make([]byte, 128)))
				}
				r.Operations = append(r.Operations, op)
			}
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				if kind == "put" {
					for _, op := range r.Operations {
						seq++
						op.Sequence = seq
					}
					r.Session.AckedBelow = seq - operations + 1
				}
				response, err := s.Execute(context.Background(), r)
				if err != nil || response.Outcomes[0].GetCode() >= kvpb.Code_WRONG_GROUP {
					b.Fatal(response, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*operations), "ns/operation")
		})
	}
}

// BenchmarkPass measures a look of the handoff's driver at a group of as many
// shards as there may be, one of which is leaving.
func BenchmarkPass(b *testing.B) {
	for _, shards := range []int{1024, shardcfg.ShardCountMax} {
		b.Run(fmt.Sprint(shards), func(b *testing.B) {
			s, f := newFakeOf(b, Limits{}, shards)
			f.propose(b, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(2, 1, shards, 7)})
			f.propose(b, &kvfsm.Start{Shard: 7, Handoff: 2})
			m := newMover(s, s.node.Load())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.step(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
