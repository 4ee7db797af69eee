package clerk

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// multiWorkersMax bounds the goroutines of one multi-key call, as long as there is
// one for each shard.
const multiWorkersMax = 256

// GetMulti gets many keys at once, packed per group. The results are in the
// order of keys, each as of Get; they are not of one moment. A key may be named
// twice.
func (c *Clerk) GetMulti(ctx context.Context, keys [][]byte) []GetResult {
	results := make([]GetResult, len(keys))
	c.fan(ctx, len(keys), func(i int) []byte { return keys[i] }, func(ctx context.Context, i int) {
		results[i].Value, results[i].Err = c.Get(ctx, keys[i])
	})
	return results
}

// PutMulti puts many pairs at once, packed per group. The results are in the
// order of pairs, each as of Put: they are separate writes, not a transaction.
// Where a key is named twice, which value stays is not determined.
func (c *Clerk) PutMulti(ctx context.Context, pairs []Pair) []PutResult {
	results := make([]PutResult, len(pairs))
	c.fan(ctx, len(pairs), func(i int) []byte { return pairs[i].Key }, func(ctx context.Context, i int) {
		results[i].Version, results[i].Err = c.Put(ctx, pairs[i].Key, pairs[i].Value)
	})
	return results
}

// fan runs operations on keys, many at a time, under one deadline. The lanes pack
// what runs at the same time. Each shard's have workers of their own: a shard that
// can't be reached, or all those of a group that is gone, hold up no others.
func (c *Clerk) fan(ctx context.Context, n int, key func(int) []byte, one func(context.Context, int)) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	shards := map[shardcfg.ShardID][]int{}
	count := max(c.table.shardCount(), 1) // not known: as if there were one
	for i := range n {
		s := shardcfg.ShardOf(key(i), count)
		shards[s] = append(shards[s], i)
	}
	var wait sync.WaitGroup
	workers := max(multiWorkersMax/max(len(shards), 1), 1)
	for _, todo := range shards {
		var next atomic.Int64
		for range min(workers, len(todo)) {
			wait.Go(func() {
				for k := next.Add(1) - 1; k < int64(len(todo)); k = next.Add(1) - 1 {
					one(ctx, todo[k])
				}
			})
		}
	}
	wait.Wait()
}
