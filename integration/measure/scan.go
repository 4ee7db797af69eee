package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoalkv/shoal/clerk"
)

// scans measures how long scans take on an idle cluster of two groups, 1,024 shards:
// of prefixes with few keys, which cost a request for each group, and of all.
func scans(ctx context.Context, b *bench) error {
	c, err := b.start(ctx, "scan", 2)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Shoal(ctx, "join", "2", c.ReplicaAddrs(2), "--wait").Err(); err != nil {
		return err
	}
	k, err := clerk.Open(ctx, clerk.Config{Controllers: strings.Split(c.ControllerAddrs(), ",")})
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }() // it was only measured
	var pairs []clerk.Pair
	for _, few := range []struct {
		prefix string
		keys   int
	}{{"one/", 1}, {"few/", 100}, {"all/", 20_000}} {
		for i := range few.keys {
			pairs = append(pairs, clerk.Pair{Key: fmt.Appendf(nil, "%s%d", few.prefix, i), Value: make([]byte, 128)})
		}
	}
	for _, r := range k.PutMulti(ctx, pairs) {
		if r.Err != nil {
			return r.Err
		}
	}
	fmt.Println("Scans on an idle cluster: two groups of three processes, 1,024 shards, values of 128 B; median of 20.")
	fmt.Println("\n| prefix of | ms, shard by shard | ms, ordered by key |\n|---|---:|---:|")
	for _, x := range []struct{ name, prefix string }{{"no key", "none/"}, {"1 key", "one/"}, {"100 keys", "few/"}, {"20,000 keys", "all/"}} {
		plain, err := scanTime(ctx, k, x.prefix)
		if err != nil {
			return err
		}
		ordered, err := scanTime(ctx, k, x.prefix, clerk.Ordered())
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.1f |\n", x.name, plain, ordered)
	}
	fmt.Println()
	return nil
}

// scanTime is the median time of a scan, in ms.
func scanTime(ctx context.Context, k *clerk.Clerk, prefix string, options ...clerk.ScanOption) (float64, error) {
	var took []float64
	for range 20 {
		start := time.Now()
		for _, err := range k.Scan(ctx, []byte(prefix), options...) {
			if err != nil {
				return 0, err
			}
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	return median(took), nil
}
