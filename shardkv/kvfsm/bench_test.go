package kvfsm_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/session"
)

// BenchmarkApply applies packed entries of 512 puts of 128 bytes to 100,000
// keys in 1,024 shards, from 64 sessions, on the in-memory store.
func BenchmarkApply(b *testing.B) {
	for _, sessions := range []bool{false, true} {
		b.Run(fmt.Sprintf("sessions=%v", sessions), func(b *testing.B) { benchmarkApply(b, sessions) })
	}
}

func benchmarkApply(b *testing.B, sessions bool) {
	const (
		perEntry = 512
		shards   = 1024
		keys     = 100_000
		clients  = 64
	)
	s := store.NewMem()
	m := kvfsm.New(kvfsm.Config{Group: 1, Incarnation: incOf(1), ShardCount: shards})
	if err := m.Reset(s); err != nil {
		b.Fatal(err)
	}
	apply := func(e *entry.Entry) {
		batch, err := s.NewBatch()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Apply(batch, e); err != nil {
			b.Fatal(err)
		}
		if err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	setup := entry.Entry{Index: 1}
	for i := range shards {
		setup.Commands = append(setup.Commands, kvfsm.Encode(&kvfsm.Create{Shard: shardcfg.ShardID(i), Claimer: incOf(1)}))
	}
	apply(&setup)
	rng := rand.New(rand.NewPCG(1, 1))
	value := make([]byte, 128)
	entries := make([]entry.Entry, 200)
	var sequence [clients]uint64
	next := func(e *entry.Entry, index uint64) {
		*e = entry.Entry{Index: index, Clock: 1000}
		for i := range perEntry {
			w := kvfsm.Write{Op: kvfsm.OpPut, Key: fmt.Appendf(nil, "key-%d", rng.IntN(keys)), Value: value}
			if c := i % clients; sessions {
				sequence[c]++
				w.Stamp = session.Stamp{Key: session.Key{ID: shardcfg.SessionID{byte(c), 1}, Birth: 1000},
					Sequence: sequence[c], AckedBelow: sequence[c] - min(sequence[c]-1, 8)}
			}
			e.Commands = append(e.Commands, kvfsm.Encode(&w))
		}
	}
	b.ReportAllocs()
	n, index := 0, uint64(1)
	for b.Loop() {
		if n%len(entries) == 0 {
			b.StopTimer()
			for i := range entries {
				index++
				next(&entries[i], index)
			}
			b.StartTimer()
		}
		apply(&entries[n%len(entries)])
		n++
	}
	b.ReportMetric(float64(n*perEntry)/b.Elapsed().Seconds(), "puts/s")
}
