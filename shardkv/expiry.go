package shardkv

import (
	"context"
	"errors"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

const (
	// expiryEvery is the interval between looks for sessions that are too old;
	// shorter where sessions live shorter.
	expiryEvery = time.Minute
	// floorStepMin is by how much a floor is raised at least, where sessions live
	// long.
	floorStepMin = 5 * time.Minute
	// pruneSessionsMax bounds one Prune, pruneCommandsMax one list of them.
	pruneSessionsMax = 256
	pruneCommandsMax = 64
	// pruneRest is the pause between two lists.
	pruneRest = 20 * time.Millisecond
)

// An expirer raises the session floors of the shards that this group holds, and
// prunes the sessions below them. One goroutine runs it, while this replica
// leads.
type expirer struct {
	n   *node
	age time.Duration
}

func (e *expirer) run(ctx context.Context) {
	every := min(expiryEvery, max(e.age/8, 10*time.Millisecond))
	for {
		if err := e.pass(ctx); err != nil && ctx.Err() == nil {
			e.n.log.Warn("session expiry is put off", "error", err)
		}
		if !e.n.pause(ctx, every) {
			return
		}
	}
}

// pass does all that there is to do, in bounded lists, shard by shard.
func (e *expirer) pass(ctx context.Context) error {
	for from := shardcfg.ShardID(0); ; {
		commands, next, err := e.commands(from)
		if err == nil {
			err = e.propose(ctx, commands)
		}
		if err != nil || len(commands) == 0 || !e.n.pause(ctx, pruneRest) {
			return err
		}
		from = next
	}
}

// commands returns the next bounded list of what there is to do from a shard on, by
// applied state, and where to go on. What is old follows the cluster's clock, as
// the births of sessions do, not this machine's: that may have stood elsewhere when
// they were born.
func (e *expirer) commands(from shardcfg.ShardID) (list []entry.Command, next shardcfg.ShardID, err error) {
	snapshot, err := e.n.replica.Store().NewSnapshot()
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	now, age := e.n.replica.Now(), uint64(e.age.Milliseconds())
	due, next, err := kvfsm.Expiry{
		TargetMS:    now - min(now, age),
		StepMS:      uint64(min(floorStepMin, e.age/4).Milliseconds()),
		SessionsMax: pruneSessionsMax, CommandsMax: pruneCommandsMax,
	}.Due(snapshot, from)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range due {
		list = append(list, kvfsm.Encode(c))
	}
	return list, next, nil
}

func (e *expirer) propose(ctx context.Context, list []entry.Command) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proposingMax)
	defer cancel()
	results, err := e.n.replica.ProposeBackground(ctx, list)
	if err != nil {
		return err
	}
	for _, r := range results {
		if err := proposalError(r); err != nil {
			return err
		}
	}
	return nil
}
