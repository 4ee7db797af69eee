package clerk

import (
	"context"
	"strings"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Retire declares an incarnation of a group destroyed, for good: its shards are
// given to other groups, which Repair then lets serve them. Safety rests on the
// statement, so the controllers ask its replicas first and refuse if one lives;
// Force skips that. It takes effect at most once, and doing it again is a success.
func (a *Admin) Retire(ctx context.Context, incarnation shardcfg.Incarnation, options ...ChangeOption) (Change, error) {
	o := collectChange(options)
	r := &ctrlpb.RetireRequest{Incarnation: incarnation[:], Plan: o.plan, Force: o.force}
	return a.change(ctx, "retire", o, func(ctx context.Context, client ctrlpb.ControllerClient, id *ctrlpb.RequestID, cluster []byte) (*ctrlpb.ChangeReply, error) {
		r.Request, r.Cluster = id, cluster
		return client.Retire(ctx, r)
	})
}

// Repairing says what Repair may do.
type Repairing struct {
	// Shards to look at; none: all.
	Shards []shardcfg.ShardID
	// Plan changes nothing.
	Plan bool
	// LossAccepted lets shards serve again though acknowledged writes are lost, or may
	// be: those whose data was destroyed begin anew, empty, and those that were frozen
	// for a group that was destroyed serve from the copy that was left. Without it,
	// nothing is repaired.
	LossAccepted bool
	// CopiesOnly lets no shard begin anew, empty: only those are repaired of which a
	// group has a copy.
	CopiesOnly bool
}

// A ShardFate is what becomes of a shard that was looked at.
type ShardFate struct {
	Shard shardcfg.ShardID
	// Fate in one word: uncreated, served, moving, granted, thawed, lost or
	// ownerless. ctrlfsm.Fate has what each means.
	Fate string
	// Group is who it concerns: who serves it, or will; 0: nobody.
	Group shardcfg.GroupID
	// Granted: a group was told to serve it. Without that, a shard that is lost or
	// thawed waits for Repairing.LossAccepted, and nothing was changed for the others.
	Granted bool
}

// Repair lets shards be served again that waited for groups that were retired. All
// other groups must answer; if one does not, nothing is done and the error matches
// ErrRefused. It returns the fates of the shards that were named, or else of those
// that are neither served nor waiting for their first token. It may be repeated.
func (a *Admin) Repair(ctx context.Context, o Repairing) ([]ShardFate, error) {
	r := &ctrlpb.RepairRequest{Plan: o.Plan, LossAccepted: o.LossAccepted, CopiesOnly: o.CopiesOnly}
	for _, s := range o.Shards {
		r.Shards = append(r.Shards, uint32(s))
	}
	var reply *ctrlpb.RepairReply
	err := a.insist(ctx, "repair", !o.Plan, func(ctx context.Context, client ctrlpb.ControllerClient) (err error) {
		r.Cluster = a.c.table.clusterBytes()
		reply, err = client.Repair(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	fates := make([]ShardFate, 0, len(reply.GetShards()))
	for _, f := range reply.GetShards() {
		fates = append(fates, ShardFate{Shard: shardcfg.ShardID(f.GetShard()), Fate: fateName(f.GetFate()),
			Group: shardcfg.GroupID(f.GetGid()), Granted: f.GetGen() != 0})
	}
	return fates, nil
}

// fateName is a fate's word.
func fateName(f ctrlpb.Fate) string { return strings.ToLower(f.String()) }
