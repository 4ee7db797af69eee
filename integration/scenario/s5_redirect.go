package scenario

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// wrongAddress is S5.
func wrongAddress(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 1)
	if err != nil {
		return err
	}
	defer c.Close()
	fresh, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer fresh.Close()
	const keys = 300
	for i := range keys {
		key := fmt.Appendf(nil, "s5/%d", i)
		if _, err := fresh.Put(ctx, key, key); err != nil {
			return err
		}
	}
	old, err := fresh.Admin().Latest(ctx)
	if err != nil {
		return err
	}
	for _, gid := range []uint64{2, 3} {
		if err := e.join(ctx, c, gid); err != nil {
			return err
		}
	}
	if err := settled(ctx, fresh); err != nil {
		return err
	}
	if err := e.pinnedToOldConfig(ctx, c, old, keys); err != nil {
		return err
	}
	now, err := fresh.Admin().Latest(ctx)
	if err != nil {
		return err
	}
	return e.askWrongGroups(ctx, c, now, keys)
}

// pinnedToOldConfig reads and writes with a clerk that believes an old config.
func (e *Env) pinnedToOldConfig(ctx context.Context, c *cluster.Cluster, old *shardcfg.Config, keys int) error {
	via := config(c)
	via.Pinned = old
	pinned, err := clerk.Open(ctx, via)
	if err != nil {
		return err
	}
	defer pinned.Close()
	for i := range keys {
		key := fmt.Appendf(nil, "s5/%d", i)
		v, err := pinned.Get(ctx, key)
		if err != nil || string(v.Bytes) != string(key) {
			return fmt.Errorf("with config %d pinned, %q reads %q: %w", old.Num, key, v.Bytes, err)
		}
		if _, err := pinned.Put(ctx, key, key); err != nil {
			return fmt.Errorf("with config %d pinned, put %q: %w", old.Num, key, err)
		}
	}
	e.Observe("clerk pinned to an old config", "%d keys read and written right", keys)
	return nil
}

// askWrongGroups asks the leader of every group for every key, directly. Each
// group that is not the owner must redirect, and from every group the redirects
// must lead to the owner: a tombstone names the group that the shard was passed
// to, which may have passed it on.
func (e *Env) askWrongGroups(ctx context.Context, c *cluster.Cluster, now *shardcfg.Config, keys int) error {
	redirects := make([]map[uint64]uint64, keys) // key, asked group -> redirected to
	served, redirected := 0, 0
	for gid := range c.Groups {
		leader := c.Leader(ctx, gid)
		if leader == nil {
			return fmt.Errorf("nobody leads group %d", gid)
		}
		conn, err := dial(leader.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		for i := range keys {
			key := fmt.Appendf(nil, "s5/%d", i)
			owner, _ := now.Owner(shardcfg.ShardOf(key, len(now.Shards)))
			get, put, err := getAndPut(ctx, kvpb.NewKVClient(conn), key)
			if err != nil {
				return err
			}
			if redirects[i] == nil {
				redirects[i] = map[uint64]uint64{}
			}
			for _, o := range []*kvpb.Outcome{get, put} {
				switch to := o.GetRedirect(); {
				case uint64(owner) == gid && o.GetCode() == kvpb.Code_OK:
					served++
				case uint64(owner) != gid && o.GetCode() == kvpb.Code_WRONG_GROUP && to.GetGid() != gid && len(to.GetReplicas()) > 0:
					redirected++
					redirects[i][gid] = to.GetGid()
				default:
					return fmt.Errorf("group %d, asked for %q of group %d, answers %v", gid, key, owner, o)
				}
			}
		}
	}
	for i, to := range redirects {
		for gid := range c.Groups {
			at := gid
			for range len(c.Groups) {
				if next, passed := to[at]; passed {
					at = next
				}
			}
			if owner := now.Shards[shardcfg.ShardOf(fmt.Appendf(nil, "s5/%d", i), len(now.Shards))]; at != uint64(owner) {
				return fmt.Errorf("key %d: redirects from group %d lead to %d, not to the owner %d: %v", i, gid, at, owner, to)
			}
		}
	}
	e.Observe("asked every group for every key", "%d served by the owner, %d redirected, all of them towards the owner, 0 wrong", served, redirected)
	if redirected == 0 {
		return fmt.Errorf("no wrong group was asked")
	}
	return nil
}

// getAndPut asks a replica directly, past the clerk's routing.
func getAndPut(ctx context.Context, kv kvpb.KVClient, key []byte) (get, put *kvpb.Outcome, err error) {
	session := make([]byte, 16)
	if _, err := rand.Read(session); err != nil {
		return nil, nil, err
	}
	r, err := kv.Execute(ctx, &kvpb.ExecuteRequest{
		Session: &kvpb.Session{Id: session, BirthMs: uint64(time.Now().UnixMilli())},
		Operations: []*kvpb.Operation{
			{Key: key, Kind: &kvpb.Operation_Get{Get: &kvpb.Get{}}},
			{Key: key, Kind: &kvpb.Operation_Put{Put: &kvpb.Put{Value: key}}, Sequence: 1},
		}})
	if err != nil {
		return nil, nil, err
	}
	if len(r.GetOutcomes()) != 2 {
		return nil, nil, fmt.Errorf("%d outcomes for 2 operations", len(r.GetOutcomes()))
	}
	return r.GetOutcomes()[0], r.GetOutcomes()[1], nil
}
