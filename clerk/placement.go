package clerk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// routeTable guards the routing table: route's steps run under its lock, and
// none of them waits for anything.
type routeTable struct {
	mu struct {
		sync.Mutex
		table   route.Table
		cluster shardcfg.ClusterID
		// changed is closed, and replaced, when placement was learned.
		changed chan struct{}
		// behind is called, with the lock held, while a newer config was mentioned
		// than is known; it must not block.
		behind func()
	}
}

func (t *routeTable) init(cluster shardcfg.ClusterID, behind func()) {
	t.mu.cluster, t.mu.behind = cluster, behind
	t.mu.changed = make(chan struct{})
}

// step runs one step of an operation.
func (t *routeTable) step(f func(*route.Table) route.Decision) (d route.Decision) {
	t.change(func(table *route.Table) { d = f(table) })
	return d
}

// change runs f on the table, and tells those who wait if it learned something.
func (t *routeTable) change(f func(*route.Table)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.mu.table.Learned()
	f(&t.mu.table)
	if t.mu.table.Learned() != before {
		close(t.mu.changed)
		t.mu.changed = make(chan struct{})
	}
	if t.mu.table.Stale() {
		t.mu.behind()
	}
}

// ward names the group that should serve an operation, and returns a channel that
// is closed when that may have changed.
func (t *routeTable) ward(op *route.Op) (route.Ward, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.table.Ward(op), t.mu.changed
}

// learned counts what was learned about placement.
func (t *routeTable) learned() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.table.Learned()
}

// changes returns a channel that is closed when placement is learned.
func (t *routeTable) changes() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.changed
}

// whereabouts says for people where an operation belongs.
func (t *routeTable) whereabouts(op *route.Op) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.table.ShardCount() == 0 {
		return "the cluster's shards are not known"
	}
	if config := t.mu.table.Config(); config != nil && len(config.Groups) == 0 {
		return "no group has joined the cluster"
	}
	shard, g := t.mu.table.Home(op)
	if len(g.Replicas) == 0 {
		return fmt.Sprintf("shard %d has no group", shard)
	}
	return fmt.Sprintf("shard %d of group %d (%s)", shard, g.GID, strings.Join(g.Replicas, ","))
}

func (t *routeTable) config() *shardcfg.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.table.Config()
}

func (t *routeTable) shardCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.table.ShardCount()
}

func (t *routeTable) groups() []route.GroupAddresses {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.table.Groups()
}

func (t *routeTable) clusterID() shardcfg.ClusterID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.cluster
}

// belongs checks the cluster that a server names: it adopts the first one, and
// refuses another with ErrWrongCluster. A server that names none passes.
func (t *routeTable) belongs(raw []byte) error {
	id, ok := shardcfg.To128[shardcfg.ClusterID](raw)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("%w: it names itself by %d bytes", ErrWrongCluster, len(raw))
	case id.IsZero() || id == t.mu.cluster:
		return nil
	case t.mu.cluster.IsZero():
		t.mu.cluster = id
		return nil
	}
	return fmt.Errorf("%w: it belongs to %s, not to %s", ErrWrongCluster, id, t.mu.cluster)
}

const (
	// refreshEvery is the least time between two refreshes.
	refreshEvery = 50 * time.Millisecond
	// refreshRestMax is the time between two where none brings anything.
	refreshRestMax = time.Second
	// queryMax bounds the question for the latest configuration, and probeMax that
	// to the replicas, without the time in which answers are arriving.
	queryMax = 1500 * time.Millisecond
	probeMax = 3 * time.Second
	// peekAfter is how long the latest configuration may be on its way before each
	// controller is asked for what it knows.
	peekAfter = 300 * time.Millisecond
)

// A refresher learns newer placement when someone wants it. One goroutine, run,
// does all the asking, however many operations want it.
type refresher struct {
	c    *Clerk
	wake chan struct{} // of one
	mu   struct {
		sync.Mutex
		last error // of the last refresh
	}
}

func (r *refresher) init(c *Clerk) {
	r.c, r.wake = c, make(chan struct{}, 1)
}

// want asks for a refresh, soon.
func (r *refresher) want() { poke(r.wake) }

// run refreshes when asked, until the Clerk's life ends.
func (r *refresher) run() {
	rest := refreshEvery
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-r.wake:
		case <-sweep.C:
			r.c.sweep()
			continue
		case <-r.c.life.Done():
			return
		}
		before := r.c.table.learned()
		err := r.c.learn(r.c.life)
		r.mu.Lock()
		r.mu.last = err
		r.mu.Unlock()
		if err != nil && r.c.life.Err() == nil {
			r.c.log.Debug("placement not refreshed", "error", err)
		}
		r.c.table.change(func(t *route.Table) { t.Refreshed() })
		// Where asking helps nobody, ask less and less often.
		if r.c.table.learned() == before {
			rest = min(2*rest, refreshRestMax)
		} else {
			rest = refreshEvery
		}
		sleep(r.c.life, rest)
	}
}

// sweep lets go of what belongs to addresses and groups that are no more.
func (c *Clerk) sweep() {
	known := slices.Concat(c.config.Seeds, c.ctl.addresses())
	for _, g := range c.table.groups() {
		known = append(append(known, g.Replicas...), g.Leader)
	}
	c.pool.sweep(known)
	c.bulkheads.sweep()
}

// lastError is that of the last refresh; nil: it succeeded, or none was made.
func (r *refresher) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.last
}

// start learns the first placement.
func (c *Clerk) start(ctx context.Context) error {
	if c.config.Pinned != nil {
		c.table.change(func(t *route.Table) { t.LearnConfig(c.config.Pinned) })
		c.wait.Go(c.refresh.run)
		return nil
	}
	cache := c.config.CacheFile
	c.wait.Go(c.refresh.run)
	begun := time.Now()
	for {
		changed := c.table.changes()
		if c.table.shardCount() > 0 {
			c.refresh.want() // what the cache says may be old
			return nil
		}
		err := c.refresh.lastError()
		if errors.Is(err, ErrWrongCluster) {
			return &Error{Op: "open", Family: FamilyNotDone, Cause: err}
		}
		// The cluster that was named counts, where it answers; the file may be left
		// from another one.
		if cache != "" && (err != nil || len(c.config.Controllers)+len(c.config.Seeds) == 0) {
			if err := c.loadCache(); err != nil {
				c.log.Warn("configuration cache not used", "file", cache, "error", err)
			}
			cache = ""
			continue
		}
		c.refresh.want()
		again := time.NewTimer(refreshEvery)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return c.unplaced(ended(ctx))
		}
		again.Stop()
		if time.Since(begun) >= unreachableMax && !c.pool.reached() {
			return c.unplaced(errors.New("nobody accepts a connection"))
		}
	}
}

// unplaced is the error of a start without placement.
func (c *Clerk) unplaced(why error) error {
	e := &Error{Op: "open", Family: FamilyNotDone, Cause: fmt.Errorf("%w: %w", ErrUnavailable, why)}
	if err := c.refresh.lastError(); err != nil {
		e.Detail = strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": ")
	}
	return e
}

// learn asks the controllers for the latest config. Where there is no majority of
// them to say which that is, it asks each of them for the newest that it knows,
// and the replicas for what they hold: placement may be old, redirects correct it.
func (c *Clerk) learn(ctx context.Context) error {
	if c.config.Pinned != nil {
		return nil
	}
	asking, cancel := c.pool.attendAll(ctx, c.ctl.addresses, queryMax)
	defer cancel()
	latest := make(chan error, 1)
	go func() {
		_, err := c.queryLatest(asking)
		latest <- err
	}()
	// The first controller in the list may be silent, and hold up the others.
	patience := time.NewTimer(peekAfter)
	defer patience.Stop()
	var err, peeked error
	select {
	case err = <-latest:
		if err == nil || errors.Is(err, ErrWrongCluster) || ctx.Err() != nil {
			return err
		}
		peeked = c.peek(ctx)
	case <-patience.C:
		peeked = c.peek(ctx)
		if err = <-latest; err == nil || errors.Is(err, ErrWrongCluster) {
			return err
		}
	}
	if errors.Is(peeked, ErrWrongCluster) {
		return peeked
	}
	if probed := c.probe(ctx); peeked != nil && probed != nil {
		return fmt.Errorf("%w; %w", err, probed)
	}
	return nil
}

// peek asks every controller for the newest config that it has applied, which
// needs no majority of them. It fails only if none answers, or if one belongs to
// another cluster.
func (c *Clerk) peek(ctx context.Context) error {
	ctx, cancel := c.pool.attendAll(ctx, c.ctl.addresses, peekMax)
	defer cancel()
	addresses := c.ctl.addresses()
	errs := make([]error, len(addresses))
	each(len(addresses), func(i int) {
		var have *shardcfg.Config
		errs[i] = c.Admin().follow(ctx, addresses[i], &have, func(*shardcfg.Config, error) bool { return false })
	})
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(append(errs, ErrUnavailable)...)
}

// queryLatest asks the controllers for the latest config, and learns it with
// its hints.
func (c *Clerk) queryLatest(ctx context.Context) (*shardcfg.Config, error) {
	var reply *ctrlpb.QueryReply
	err := c.ctl.once(ctx, func(ctx context.Context, client ctrlpb.ControllerClient) (err error) {
		reply, err = client.Query(ctx, &ctrlpb.QueryRequest{Cluster: c.table.clusterBytes()})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.table.belongs(reply.GetCluster()); err != nil {
		return nil, err
	}
	config, err := ctrlpb.ToConfig(reply.GetConfig())
	if err != nil {
		return nil, fmt.Errorf("configuration from the controllers: %w", err)
	}
	c.sessions.observe(reply.GetClockMs())
	if c.config.Pinned == nil {
		c.adopt(config, reply.GetHints())
	}
	return config, nil
}

// adopt learns a config with its hints, and keeps the config in the cache file.
func (c *Clerk) adopt(config *shardcfg.Config, hints []*ctrlpb.Hint) {
	newer := false
	c.table.change(func(t *route.Table) {
		newer = t.Config() == nil || t.Config().Num < config.Num
		t.LearnConfig(config)
		for _, h := range hints {
			if inc, ok := shardcfg.To128[shardcfg.Incarnation](h.GetIncarnation()); ok && h.GetShard() < shardcfg.ShardCountMax {
				t.LearnHint(route.Hint{
					Shard: shardcfg.ShardID(h.GetShard()), GID: shardcfg.GroupID(h.GetGid()), Incarnation: inc,
					Epoch:    shardcfg.Epoch{Gen: h.GetEpochGen(), Num: h.GetEpochNum()},
					Replicas: h.GetReplicas(),
				})
			}
		}
	})
	if newer && c.config.CacheFile != "" {
		if err := c.saveCache(config); err != nil {
			c.log.Warn("configuration cache not written", "file", c.config.CacheFile, "error", err)
		}
	}
}

// probe asks every replica that is known, and the seeds, what their groups
// hold. It fails only if none answers.
func (c *Clerk) probe(ctx context.Context) error {
	var addresses []string
	for _, g := range c.table.groups() {
		addresses = append(addresses, g.Replicas...)
	}
	addresses = append(addresses, c.config.Seeds...)
	if len(addresses) == 0 {
		return errors.New("no replica is known to ask instead")
	}
	ctx, cancel := c.pool.attendAll(ctx, func() []string { return addresses }, probeMax)
	defer cancel()
	replies := c.askReplicas(ctx, addresses, allShards)
	var failed []string
	for _, r := range replies {
		if r.err == nil {
			r.err = c.table.belongs(r.status.GetCluster())
		}
		if r.err != nil {
			failed = append(failed, fmt.Sprintf("%s %v", r.address, r.err))
			continue
		}
		c.table.change(func(t *route.Table) { learnStatus(t, r.status) })
	}
	if len(failed) == len(replies) {
		return errors.New("no replica answers: " + strings.Join(failed, "; "))
	}
	return nil
}

// learnStatus learns what a replica says of its group.
func learnStatus(t *route.Table, s *kvpb.StatusResponse) {
	inc, ok := shardcfg.To128[shardcfg.Incarnation](s.GetIncarnation())
	if !ok {
		return
	}
	gid := shardcfg.GroupID(s.GetGid())
	var replicas []string
	for _, r := range s.GetReplicas() {
		replicas = append(replicas, r.GetAddress())
	}
	t.LearnShardCount(int(s.GetShardCount()))
	t.LearnReplica(gid, inc, replicas, s.GetLeader())
	for _, row := range s.GetShards() {
		switch row.GetPhase() {
		case kvpb.Phase_SERVING, kvpb.Phase_LEAVING, kvpb.Phase_FROZEN:
			if row.GetShard() < shardcfg.ShardCountMax {
				t.LearnHint(route.Hint{Shard: shardcfg.ShardID(row.GetShard()), Epoch: epochOf(row.GetEpoch()), GID: gid, Incarnation: inc})
			}
		}
	}
}

func epochOf(e *kvpb.Epoch) shardcfg.Epoch {
	return shardcfg.Epoch{Gen: e.GetGen(), Num: e.GetNum()}
}

// clusterBytes is the cluster's id for a request; nil while it is not known.
func (t *routeTable) clusterBytes() []byte {
	id := t.clusterID()
	if id.IsZero() {
		return nil
	}
	return bytes.Clone(id[:])
}
