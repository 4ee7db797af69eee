package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
)

// noControllers is S4.
func noControllers(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 3)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := e.load(ctx, config(c), "s4/")
	if err != nil {
		return err
	}
	leader := c.Leader(ctx, 2)
	if leader == nil {
		return fmt.Errorf("nobody leads group 2")
	}
	for _, p := range c.Controllers {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	before := l.load.Finished()
	if err := leader.Kill(); err != nil {
		return err
	}
	if err := leader.Start(); err != nil {
		return err
	}

	if err := e.coldStart(ctx, c); err != nil {
		return fmt.Errorf("a clerk started from seeds: %w", err)
	}
	select { // the scenario itself: load without controllers
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(e.Scale.Load):
	}
	done, longest := l.load.Finished()-before, l.load.LongestWait()
	e.Observe("without controllers", "%d operations in %v, leader %s killed and restarted; no client waits longer than %v",
		done, e.Scale.Load, leader.ID, longest.Round(time.Millisecond))
	if done == 0 || longest > 10*time.Second {
		return fmt.Errorf("without controllers %d operations succeeded, a client waits for %v", done, longest)
	}
	if err := l.judge(ctx); err != nil {
		return err
	}
	// The restarted leader's replica included.
	if err := e.equalReplicas(ctx, c); err != nil {
		return err
	}
	for _, p := range c.Controllers {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return c.Await(ctx, "the controllers are back", func() error { return c.Shoal(ctx, "config").Err() })
}

// coldStart starts a clerk that never saw the cluster, and has nothing but
// addresses of replicas.
func (e *Env) coldStart(ctx context.Context, c *cluster.Cluster) error {
	var seeds []string
	for gid := range c.Groups {
		seeds = append(seeds, strings.Split(c.ReplicaAddrs(gid), ",")...)
	}
	cold, err := clerk.Open(ctx, clerk.Config{Controllers: strings.Split(c.ControllerAddrs(), ","), Seeds: seeds})
	if err != nil {
		return err
	}
	defer cold.Close()
	const keys = 100
	for i := range keys {
		key := fmt.Appendf(nil, "cold/%d", i)
		if _, err := cold.Put(ctx, key, key); err != nil {
			return err
		}
		if v, err := cold.Get(ctx, key); err != nil || string(v.Bytes) != string(key) {
			return fmt.Errorf("reads %q: %w", v.Bytes, err)
		}
	}
	e.Observe("clerk started from seeds", "%d keys over all groups written and read", keys)
	return nil
}
