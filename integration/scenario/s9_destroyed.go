package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// groupDestroyed is S9.
func groupDestroyed(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 3)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Shoal(ctx, "import", e.Scale.Tree, "--timeout", "1m").Err(); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	var before cluster.Config
	if err := c.JSON(ctx, &before, "config"); err != nil {
		return err
	}
	owned := 0
	for _, gid := range before.Shards {
		if gid == 3 {
			owned++
		}
	}
	prefix := untouchedPrefix(before, 3)
	l, err := e.load(ctx, config(c), prefix)
	if err != nil {
		return err
	}
	finished := l.load.Finished()
	if err := destroy(c, 3); err != nil {
		return err
	}
	if err := e.retireAndRepair(ctx, c, owned); err != nil {
		return err
	}
	if err := c.Shoal(ctx, "import", e.Scale.Tree, "--timeout", "1m").Err(); err != nil {
		return fmt.Errorf("import what was lost: %w", err)
	}
	// New replicas in the place of the destroyed ones are a new group.
	for _, p := range c.Groups[3] {
		if err := p.Start(); err != nil {
			return err
		}
	}
	if err := e.join(ctx, c, 3); err != nil {
		return fmt.Errorf("a new group under the old gid: %w", err)
	}
	e.Observe("clients of other shards, meanwhile", "%d operations; no client waits longer than %v",
		l.load.Finished()-finished, l.load.LongestWait().Round(time.Millisecond))
	if err := l.judge(ctx); err != nil {
		return err
	}
	if err := e.equalReplicas(ctx, c); err != nil {
		return err
	}
	if err := deleteAll(ctx, c, prefix); err != nil { // not files of the tree
		return err
	}
	return e.exportIsIdentical(ctx, c)
}

// deleteAll deletes every key that begins with a prefix.
func deleteAll(ctx context.Context, c *cluster.Cluster, prefix string) error {
	k, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer k.Close()
	for entry, err := range k.Scan(ctx, []byte(prefix), clerk.KeysOnly()) {
		if err == nil {
			err = k.Delete(ctx, entry.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// untouchedPrefix is a prefix of keys whose shard a group does not own: they share
// a tag.
func untouchedPrefix(config cluster.Config, gid uint64) string {
	for i := 0; ; i++ {
		prefix := fmt.Sprintf("s9{%d}/", i)
		if config.Shards[shardcfg.ShardOf([]byte(prefix), len(config.Shards))] != gid {
			return prefix
		}
	}
}

// destroy kills a group's processes and deletes their disks.
func destroy(c *cluster.Cluster, gid uint64) error {
	for _, p := range c.Groups[gid] {
		if err := p.Kill(); err != nil {
			return err
		}
		if err := os.RemoveAll(p.Dir); err != nil {
			return err
		}
	}
	return nil
}

// retireAndRepair does what docs/operations.md says of a destroyed group.
func (e *Env) retireAndRepair(ctx context.Context, c *cluster.Cluster, owned int) error {
	for _, step := range []struct {
		exit int
		args []string
	}{
		{5, []string{"retire", "3"}},
		{3, []string{"repair"}},
		{5, []string{"retire", "1", "--destroyed"}},
		{0, []string{"retire", "3", "--destroyed"}},
		{5, []string{"repair"}},
	} {
		if r := c.Shoal(ctx, step.args...); r.Exit != step.exit {
			return fmt.Errorf("shoal %v: exit %d, want %d: %s", step.args, r.Exit, step.exit, r.Stderr)
		}
	}
	r := c.Shoal(ctx, "repair", "--accept-data-loss", "--wait", "-o", "json")
	var fates []struct {
		Fate    string
		Granted bool
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	if err := json.Unmarshal([]byte(r.Stdout), &fates); err != nil {
		return fmt.Errorf("repair: %w in %q", err, r.Stdout)
	}
	lost := 0
	for _, f := range fates {
		if f.Fate == "lost" && f.Granted {
			lost++
		}
	}
	e.Observe("repaired", "%d shards, of %d that the destroyed group owned", lost, owned)
	if lost != owned {
		return fmt.Errorf("%d shards began anew, %d were lost", lost, owned)
	}
	k, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer k.Close()
	return settled(ctx, k)
}
