package scenario

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// leadersDie is S3.
func leadersDie(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 3)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := e.load(ctx, config(c), "s3/")
	if err != nil {
		return err
	}
	if err := ballast(ctx, l.reader, 1000, 4<<10); err != nil {
		return err
	}
	m := startMover(ctx, e, l.reader)
	killed, err := e.killLeaders(ctx, c, m)
	moves := m.stop()
	if err != nil {
		return err
	}
	e.Observe("leaders killed", "%d, one each %v, while %d moves were asked for", killed, e.Scale.KillEvery, moves)
	if err := settled(ctx, l.reader); err != nil {
		return fmt.Errorf("handoffs did not finish: %w", err)
	}
	status, err := l.reader.Admin().Status(ctx)
	if err != nil {
		return err
	}
	handoffs := uint64(0)
	for _, s := range status.Shards {
		if s.Epoch.Num > 0 {
			handoffs += s.Epoch.Num - 1
		}
	}
	e.Observe("handoffs completed", "%d (sum of epochs)", handoffs)
	if err := l.judge(ctx); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}

// killLeaders kills the leader of a handoff's source, then of its destination,
// and so on, one each KillEvery; each comes back two beats later.
func (e *Env) killLeaders(ctx context.Context, c *cluster.Cluster, m *mover) (int, error) {
	tick := time.NewTicker(e.Scale.KillEvery)
	defer tick.Stop()
	var down []*cluster.Process
	killed := 0
	for n := 0; killed < e.Scale.Kills; n++ {
		select {
		case <-ctx.Done():
			return killed, context.Cause(ctx)
		case <-tick.C:
		}
		if len(down) > 1 {
			if err := down[0].Start(); err != nil {
				return killed, err
			}
			down = down[1:]
		}
		from, to := m.current()
		gid := from
		if n%2 == 1 {
			gid = to
		}
		p := c.Leader(ctx, uint64(gid))
		if p == nil || !p.Running() {
			continue // nobody leads yet; the next beat asks again
		}
		if err := p.Kill(); err != nil {
			return killed, err
		}
		killed++
		down = append(down, p)
	}
	for _, p := range down {
		if err := p.Start(); err != nil {
			return killed, err
		}
	}
	return killed, nil
}

// A mover keeps shards moving between groups 1 to 3 until it is stopped.
type mover struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     struct {
		sync.Mutex
		from, to shardcfg.GroupID
		moves    int
	}
}

func startMover(ctx context.Context, e *Env, k *clerk.Clerk) *mover {
	ctx, cancel := context.WithCancel(ctx)
	m := &mover{cancel: cancel}
	m.mu.from, m.mu.to = 1, 2
	random := e.random()
	m.done.Go(func() {
		for ctx.Err() == nil {
			cfg, err := k.Admin().Latest(ctx)
			if err != nil {
				continue
			}
			shard := shardcfg.ShardID(random.IntN(len(cfg.Shards)))
			to := shardcfg.GroupID(1 + random.IntN(3))
			if to == cfg.Shards[shard] {
				continue
			}
			m.mu.Lock()
			m.mu.from, m.mu.to = cfg.Shards[shard], to
			m.mu.Unlock()
			change, err := k.Admin().Move(ctx, shard, to)
			if err != nil {
				continue // the controllers are whole: only the end of ctx fails a move
			}
			m.mu.Lock()
			m.mu.moves++
			m.mu.Unlock()
			wait, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			_ = k.Admin().WaitSettled(wait, change.Num, nil) // or go on before it has settled
			cancel()
		}
	})
	return m
}

// current returns the groups of the newest move.
func (m *mover) current() (from, to shardcfg.GroupID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.from, m.mu.to
}

// stop ends the mover and returns how many moves the controllers accepted.
func (m *mover) stop() int {
	m.cancel()
	m.done.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.moves
}
