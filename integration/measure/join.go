package main

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
)

// joins measures the time from `join` to settled: for shards with one small
// key each on average, and for Go's own source tree.
func joins(ctx context.Context, b *bench) error {
	fmt.Println("Time from `join` of a second group until all its shards have arrived, 1,024 shards (512 move).")
	fmt.Printf("Median of %d runs, each on a new cluster; the tree once.\n\n", b.repeat)
	fmt.Println("| data | seconds |\n|---|---:|")
	var empty []float64
	for range b.repeat {
		seconds, err := joinAfter(ctx, b, func(c *cluster.Cluster) error { return oneKeyPerShard(ctx, c) })
		if err != nil {
			return err
		}
		empty = append(empty, seconds)
	}
	fmt.Printf("| 1,024 keys of 16 B | %.2f |\n", median(empty))
	tree := filepath.Join(build.Default.GOROOT, "src")
	seconds, err := joinAfter(ctx, b, func(c *cluster.Cluster) error {
		return c.Shoal(ctx, "import", tree, "--timeout", "1m").Err()
	})
	if err != nil {
		return err
	}
	fmt.Printf("| Go's source tree (`$(go env GOROOT)/src`) | %.2f |\n\n", seconds)
	return nil
}

func joinAfter(ctx context.Context, b *bench, fill func(*cluster.Cluster) error) (float64, error) {
	c, err := b.start(ctx, "join", 2)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := fill(c); err != nil {
		return 0, err
	}
	start := time.Now()
	r := c.Shoal(ctx, "join", "2", c.ReplicaAddrs(2), "--wait", "--timeout", "10m")
	return time.Since(start).Seconds(), r.Err()
}

func oneKeyPerShard(ctx context.Context, c *cluster.Cluster) error {
	k, err := clerk.Open(ctx, clerk.Config{Controllers: strings.Split(c.ControllerAddrs(), ",")})
	if err != nil {
		return err
	}
	defer k.Close()
	var pairs []clerk.Pair
	for i := range 1024 {
		pairs = append(pairs, clerk.Pair{Key: fmt.Appendf(nil, "key/%d", i), Value: []byte("sixteen bytes...")})
	}
	var errs []error
	for _, r := range k.PutMulti(ctx, pairs) {
		errs = append(errs, r.Err)
	}
	return errors.Join(errs...)
}
