package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/integration/history"
)

// growAndShrink is S1.
func growAndShrink(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 2)
	if err != nil {
		return err
	}
	defer c.Close()
	k, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer k.Close()

	if err := e.importDuringJoin(ctx, c); err != nil {
		return err
	}
	if err := settled(ctx, k); err != nil {
		return err
	}
	if err := e.minimalMoves(ctx, c, k, "join 3"); err != nil {
		return err
	}
	if err := e.appendDuringLeave(ctx, c, k); err != nil {
		return err
	}
	for _, p := range c.Groups[1] {
		if code, err := p.Stop(20 * time.Second); err != nil || code != 0 {
			return fmt.Errorf("switching %s off: exit %d, %w", p.ID, code, err)
		}
	}
	e.Observe("group 1 after leave", "switched off, exit 0 three times")
	if err := e.exportIsIdentical(ctx, c); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}

// importDuringJoin imports the tree, and joins group 3 while that runs: again and
// again until the group has joined, since an import of a small tree is soon over.
func (e *Env) importDuringJoin(ctx context.Context, c *cluster.Cluster) error {
	var wait sync.WaitGroup
	var imported cluster.Result
	imports := 0
	joined := make(chan struct{})
	wait.Go(func() {
		for {
			imported = c.Shoal(ctx, "import", e.Scale.Tree, "-o", "json", "--timeout", "1m")
			imports++
			select {
			case <-joined:
				return
			default:
			}
			if imported.Err() != nil {
				return
			}
		}
	})
	err := c.Await(ctx, "the import has written something", func() error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, g := range s.Groups {
			if g.Keys > 0 {
				return nil
			}
		}
		return fmt.Errorf("no group has a key")
	})
	if err == nil {
		err = c.Shoal(ctx, "join", "3", c.ReplicaAddrs(3), "--wait", "--timeout", "10m").Err()
	}
	close(joined)
	wait.Wait()
	if err != nil {
		return fmt.Errorf("join 3 during the import: %w", err)
	}
	var totals struct {
		Keys, Bytes uint64
		Seconds     float64
		Skipped     uint64
	}
	if err := imported.Err(); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := json.Unmarshal([]byte(imported.Stdout), &totals); err != nil {
		return fmt.Errorf("import: %w in %q", err, imported.Stdout)
	}
	e.Observe("import", "%d keys, %d bytes in %.1f s, %d skipped, the last of %d; group 3 joined meanwhile",
		totals.Keys, totals.Bytes, totals.Seconds, totals.Skipped, imports)
	return nil
}

// minimalMoves compares the last change of owners with the least number of moves
// that balances: each group's surplus over its share of the shards, where the
// groups that hold most get the larger shares.
func (e *Env) minimalMoves(ctx context.Context, c *cluster.Cluster, k *clerk.Clerk, what string) error {
	var now, before cluster.Config
	if err := c.JSON(ctx, &now, "config"); err != nil {
		return err
	}
	// The number before may have been a group's binding; go back until the owners
	// differ.
	for num := now.Num - 1; ; num-- {
		if err := c.JSON(ctx, &before, "config", fmt.Sprint(num)); err != nil {
			return err
		}
		if fmt.Sprint(before.Shards) != fmt.Sprint(now.Shards) {
			break
		}
	}
	moved := 0
	for s := range now.Shards {
		if now.Shards[s] != before.Shards[s] {
			moved++
		}
	}
	least := leastMoves(before.Shards, membersOf(now))
	status, err := k.Admin().Status(ctx)
	if err != nil {
		return err
	}
	e.Observe("shards moved by "+what, "%d of %d, the least possible is %d; %d settled", moved, len(now.Shards), least, status.Settled)
	if moved != least {
		return fmt.Errorf("%s moved %d shards, the least possible is %d", what, moved, least)
	}
	return nil
}

func membersOf(c cluster.Config) map[uint64]bool {
	members := map[uint64]bool{}
	for name, g := range c.Groups {
		var gid uint64
		if _, err := fmt.Sscan(name, &gid); err == nil && g.State == "member" {
			members[gid] = true
		}
	}
	return members
}

// leastMoves is the least number of moves that takes owners to a balance over
// members of equal weight.
func leastMoves(owners []uint64, members map[uint64]bool) int {
	have := map[uint64]int{}
	moves := 0
	for _, gid := range owners {
		if members[gid] {
			have[gid]++
		} else {
			moves++
		}
	}
	share, larger := len(owners)/len(members), len(owners)%len(members)
	for gid := range members {
		surplus := have[gid] - share
		if surplus > 0 && larger > 0 {
			surplus--
			larger--
		}
		moves += max(0, surplus)
	}
	return moves
}

// appendDuringLeave drains group 1 while a writer appends to keys of all shards.
func (e *Env) appendDuringLeave(ctx context.Context, c *cluster.Cluster, k *clerk.Clerk) error {
	recorder := history.NewRecorder()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for n, draining := 0, true; draining || n < e.Scale.AppendKeys; n++ {
			recorder.Add(appendToken(ctx, k, recorder, e.appendKey(n%e.Scale.AppendKeys), n))
			select {
			case <-stop:
				draining = false // what is left of the first round follows at once
			default:
			}
		}
	})
	left := c.Shoal(ctx, "leave", "1", "--wait", "--timeout", "10m")
	close(stop)
	wait.Wait()
	if err := left.Err(); err != nil {
		return fmt.Errorf("leave 1: %w", err)
	}
	if err := settled(ctx, k); err != nil {
		return err
	}
	if err := e.minimalMoves(ctx, c, k, "leave 1"); err != nil {
		return err
	}
	final := map[string]string{}
	for i := range e.Scale.AppendKeys {
		v, err := k.Get(ctx, []byte(e.appendKey(i)))
		if err != nil && clerk.FamilyOf(err) != clerk.FamilyDone {
			return err
		}
		final[e.appendKey(i)] = string(v.Bytes)
	}
	h := recorder.History()
	tokens := h.CheckTokens(final)
	e.Observe("appends during the leave", "%s; %s", tokens, latencies(h))
	if !tokens.OK() || tokens.Acknowledged < e.Scale.AppendKeys {
		return fmt.Errorf("appends during the leave: %s", tokens)
	}
	return nil
}

// latencies sums up how long the operations took.
func latencies(h history.History) string {
	var took []int64
	for i := range h {
		took = append(took, h[i].Return-h[i].Call)
	}
	if len(took) == 0 {
		return "none"
	}
	slices.Sort(took)
	ms := func(i int) float64 { return float64(took[i]) / 1e6 }
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms", ms(len(took)/2), ms(len(took)*99/100), ms(len(took)-1))
}

func (e *Env) appendKey(i int) string { return fmt.Sprintf("\x00append/%04d", i) }

// appendToken appends one token and says what came of it.
func appendToken(ctx context.Context, k *clerk.Clerk, r *history.Recorder, key string, n int) history.Operation {
	op := history.Operation{Client: 1, Kind: history.Append, Key: key, Value: history.Token(1, n), Call: r.Now()}
	a, err := k.Append(ctx, []byte(key), []byte(op.Value))
	op.Return, op.Version, op.Length = r.Now(), uint64(a.Version), a.Length
	switch clerk.FamilyOf(err) {
	case clerk.FamilyDone:
		op.Outcome = history.Done
	case clerk.FamilyNotDone:
		op.Outcome = history.NotDone
	default:
		op.Outcome = history.Unknown
	}
	return op
}

// exportIsIdentical exports what was imported and compares it with the tree.
func (e *Env) exportIsIdentical(ctx context.Context, c *cluster.Cluster) error {
	k, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer k.Close()
	for i := range e.Scale.AppendKeys { // not files of the tree
		if err := k.Delete(ctx, []byte(e.appendKey(i))); err != nil && clerk.FamilyOf(err) != clerk.FamilyDone {
			return err
		}
	}
	out := filepath.Join(e.Dir, "export")
	r := c.Shoal(ctx, "export", out, "-o", "json", "--timeout", "10m")
	if err := r.Err(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	files, size, err := sameTree(e.Scale.Tree, out)
	if err != nil {
		return err
	}
	e.Observe("export", "%d files, %d bytes, identical to the tree", files, size)
	return nil
}

// sameTree compares the regular files of two trees, both ways.
func sameTree(want, got string) (files int, size int64, err error) {
	extra := map[string]bool{}
	if err := eachFile(got, func(rel string) error { extra[rel] = true; return nil }); err != nil {
		return 0, 0, err
	}
	err = eachFile(want, func(rel string) error {
		a, err := os.ReadFile(filepath.Join(want, rel))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s differs: %d bytes imported, %d exported", rel, len(a), len(b))
		}
		delete(extra, rel)
		files, size = files+1, size+int64(len(a))
		return nil
	})
	if err == nil && len(extra) > 0 {
		err = fmt.Errorf("%d exported files were never imported: %v", len(extra), extra)
	}
	return files, size, err
}

func eachFile(root string, do func(rel string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return do(rel)
	})
}
