package clerk

import (
	"context"
	"sync"
)

// multiWorkersMax bounds the goroutines of one multi-key call.
const multiWorkersMax = 256

// GetMulti gets many keys at once, packed per group. The results are in the
// order of keys, each as of Get; they are not of one moment. A key may be named
// twice.
func (c *Clerk) GetMulti(ctx context.Context, keys [][]byte) []GetResult {
	results := make([]GetResult, len(keys))
	c.fan(ctx, len(keys), func(ctx context.Context, i int) {
		results[i].Value, results[i].Err = c.Get(ctx, keys[i])
	})
	return results
}

// PutMulti puts many pairs at once, packed per group. The results are in the
// order of pairs, each as of Put: they are separate writes, not a transaction.
// Where a key is named twice, which value stays is not determined.
func (c *Clerk) PutMulti(ctx context.Context, pairs []Pair) []PutResult {
	results := make([]PutResult, len(pairs))
	c.fan(ctx, len(pairs), func(ctx context.Context, i int) {
		results[i].Version, results[i].Err = c.Put(ctx, pairs[i].Key, pairs[i].Value)
	})
	return results
}

// fan runs n operations, many at a time, under one deadline. The lanes pack
// what runs at the same time.
func (c *Clerk) fan(ctx context.Context, n int, one func(context.Context, int)) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	var wait sync.WaitGroup
	work := make(chan int)
	for range min(n, multiWorkersMax) {
		wait.Go(func() {
			for i := range work {
				one(ctx, i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wait.Wait()
}
