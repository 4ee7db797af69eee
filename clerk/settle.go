package clerk

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	// settleEach is the pause between looks at what is waited for. While nothing
	// happens it grows to settleEachMax.
	settleEach    = 200 * time.Millisecond
	settleEachMax = time.Second
)

// A settling looks at the shards that are on their way, again and again: it asks the
// leader of each group, and for those shards only.
type settling struct {
	c       *Clerk
	leaders map[shardcfg.GroupID]string // who led each group at the last look
}

// look returns how far the shards are by now.
func (w *settling) look(ctx context.Context) (p Progress, err error) {
	asking, cancel := w.c.pool.attendAll(ctx, w.c.ctl.addresses, askMax)
	config, err := w.c.queryLatest(asking)
	cancel()
	if err != nil {
		if config = w.c.table.config(); config == nil {
			return p, &Error{Op: "status", Family: FamilyNotDone, Cause: err}
		}
	}
	s := &survey{config: config, placed: true, replicas: map[string]replicaAnswer{}}
	gids := config.GroupIDs()
	var mu sync.Mutex
	each(len(gids), func(i int) {
		mu.Lock()
		leader := w.leaders[gids[i]]
		mu.Unlock()
		answers := w.ask(ctx, config, gids[i], leader)
		mu.Lock()
		defer mu.Unlock()
		for _, a := range answers {
			s.replicas[a.address] = a
		}
	})
	return w.progress(s), nil
}

// ask asks the leader of a group, or, if it is not known, or leads no longer, all of
// its replicas.
func (w *settling) ask(ctx context.Context, config *shardcfg.Config, gid shardcfg.GroupID, leader string) []replicaAnswer {
	addresses := config.Groups[gid].Replicas
	if slices.Contains(addresses, leader) {
		answers := w.c.askReplicas(ctx, []string{leader}, movingShards)
		if a := answers[0]; a.err == nil && a.status.GetGid() == uint64(gid) && leads(a.status) {
			return answers
		}
	}
	return w.c.askReplicas(ctx, addresses, movingShards)
}

// progress counts the shards that are where they should be: the leader of their owner
// knows of this configuration, and does not name them among those that are on their way.
func (w *settling) progress(s *survey) Progress {
	p := Progress{Num: s.config.Num, Total: len(s.config.Shards)}
	moving := map[shardcfg.GroupID]map[uint32]bool{}
	for _, gid := range s.config.GroupIDs() {
		best := s.best(gid)
		w.leaders[gid] = best.GetLeader()
		if best == nil || !leads(best) || best.GetConfig() < uint64(s.config.Num) {
			continue // nobody serves it, or it has not heard of where its shards should be
		}
		moving[gid] = map[uint32]bool{}
		for _, row := range best.GetShards() {
			moving[gid][row.GetShard()] = true
		}
	}
	for shard, owner := range s.config.Shards {
		rows, told := moving[owner]
		if owner == 0 || told && !rows[uint32(shard)] {
			p.Settled++
		}
	}
	_, handoffs := s.shards()
	for _, h := range handoffs {
		p.CopiedBytes += h.CopiedBytes
		p.TotalBytes += h.TotalBytes
	}
	return p
}

// waitSettled looks until all shards are where they should be.
func (a *Admin) waitSettled(ctx context.Context, num shardcfg.ConfigNum, progress func(Progress)) error {
	ctx, drop := a.c.whileOpen(ctx)
	defer drop()
	w := &settling{c: a.c, leaders: map[shardcfg.GroupID]string{}}
	var (
		last   error
		before Progress
		pause  = settleEach
	)
	for {
		looking, cancel := context.WithTimeout(ctx, a.c.config.Timeout)
		p, err := w.look(looking)
		cancel()
		if err == nil {
			settled := p.Num >= num && p.Settled == p.Total
			if progress != nil && (settled || ctx.Err() == nil) { // a look that was cut off saw little
				progress(p)
			}
			if settled {
				return nil
			}
		}
		last = obstacle(ctx, last, err)
		if !sleep(ctx, pause) {
			return a.waitError(ctx, "wait for shards", last)
		}
		if pause = min(pause+pause/2, settleEachMax); p != before {
			pause, before = settleEach, p
		}
	}
}

// rows says of which shards a replica is asked for a row.
type rows uint8

const (
	noShards rows = iota
	movingShards
	allShards
)

// request asks a replica for its status.
func (r rows) request(cluster []byte) *kvpb.StatusRequest {
	return &kvpb.StatusRequest{Cluster: cluster, Shards: r != noShards, Moving: r == movingShards}
}
