package scenario

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
)

// powerCut is S2.
func powerCut(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 2)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := e.load(ctx, config(c), "s2/")
	if err != nil {
		return err
	}
	// Ballast makes the handoffs long enough to be cut.
	if err := ballast(ctx, l.reader, 2000, 4<<10); err != nil {
		return err
	}
	if err := c.Shoal(ctx, "join", "3", c.ReplicaAddrs(3)).Err(); err != nil {
		return err
	}
	moving, err := awaitMoving(ctx, l.reader)
	if err != nil {
		return err
	}
	if err := killAll(c); err != nil {
		return err
	}
	e.Observe("killed", "12 processes at once, %d shards on their way", moving)

	random := e.random()
	all := c.All()
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	late := uint64(1 + random.IntN(3))
	for _, p := range all {
		if p.Group != late {
			if err := p.Start(); err != nil {
				return err
			}
		}
	}
	select { // the scenario itself: one group comes back late
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(e.Scale.Late):
	}
	for _, p := range c.Groups[late] {
		if err := p.Start(); err != nil {
			return err
		}
	}
	restarted := time.Now()
	if err := settled(ctx, l.reader); err != nil {
		return fmt.Errorf("handoffs did not finish: %w", err)
	}
	e.Observe("handoffs finished", "unaided, %.1f s after group %d came back, %v after the others", time.Since(restarted).Seconds(), late, e.Scale.Late)
	before := l.load.Finished()
	if err := c.Await(ctx, "clients go on", func() error {
		if n := l.load.Finished(); n < before+100 {
			return fmt.Errorf("%d calls since", n-before)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := l.judge(ctx); err != nil {
		return err
	}
	if err := checkBallast(ctx, config(c), 2000, 4<<10); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}

func killAll(c *cluster.Cluster) error {
	var wait sync.WaitGroup
	all := c.All()
	errs := make([]error, len(all))
	for i, p := range all {
		wait.Go(func() { errs[i] = p.Kill() })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitMoving waits until some shards are on their way and some have arrived.
func awaitMoving(ctx context.Context, k *clerk.Clerk) (int, error) {
	for {
		s, err := k.Admin().Status(ctx)
		if err != nil {
			return 0, err
		}
		if s.Moving > 0 {
			return s.Moving, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("no shard moves: %w", err)
		}
	}
}

// ballast writes n values of size bytes, spread over all shards.
func ballast(ctx context.Context, k *clerk.Clerk, n, size int) error {
	const batch = 100
	for first := 0; first < n; first += batch {
		var pairs []clerk.Pair
		for i := first; i < min(n, first+batch); i++ {
			pairs = append(pairs, clerk.Pair{Key: ballastKey(i), Value: ballastValue(i, size)})
		}
		for _, r := range k.PutMulti(ctx, pairs) {
			if r.Err != nil {
				return fmt.Errorf("ballast: %w", r.Err)
			}
		}
	}
	return nil
}

// checkBallast reads all of it again, with a clerk of its own.
func checkBallast(ctx context.Context, via clerk.Config, n, size int) error {
	k, err := clerk.Open(ctx, via)
	if err != nil {
		return err
	}
	defer k.Close()
	for i := range n {
		v, err := k.Get(ctx, ballastKey(i))
		if err != nil {
			return fmt.Errorf("ballast: %w", err)
		}
		if string(v.Bytes) != string(ballastValue(i, size)) {
			return fmt.Errorf("ballast key %q has another value", ballastKey(i))
		}
	}
	return nil
}

func ballastKey(i int) []byte { return fmt.Appendf(nil, "ballast/%06d", i) }

func ballastValue(i, size int) []byte {
	b := make([]byte, size)
	for j := range b {
		b[j] = byte(i + j*7)
	}
	return b
}
