package shardkv

import (
	"context"
	"errors"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

const (
	// expiryEvery is the interval between looks for sessions that are too old;
	// shorter where sessions live shorter.
	expiryEvery = time.Minute
	// floorStepMin is by how much a floor is raised at least, so that a busy shard
	// costs one command in that time, not one for each session.
	floorStepMin = 5 * time.Minute
	// pruneSessionsMax bounds one Prune, pruneCommandsMax one list of them.
	pruneSessionsMax = 256
	pruneCommandsMax = 64
	// pruneRest is the pause between two lists.
	pruneRest = 20 * time.Millisecond
)

// An expirer raises the session floors of the shards that this group holds, and
// prunes the sessions below them. One goroutine runs it, while this replica
// leads. A shard that knows no old session costs no command.
type expirer struct {
	n     *node
	age   time.Duration
	clock func() time.Time
}

func (e *expirer) run(ctx context.Context) {
	every := min(expiryEvery, max(e.age/8, 10*time.Millisecond))
	for {
		for more := true; more && ctx.Err() == nil; {
			commands, err := e.commands()
			if err == nil {
				err = e.propose(ctx, commands)
			}
			if err != nil && ctx.Err() == nil {
				e.n.log.Warn("session expiry is put off", "error", err)
			}
			more = err == nil && len(commands) > 0 && e.n.pause(ctx, pruneRest)
		}
		if !e.n.pause(ctx, every) {
			return
		}
	}
}

// commands returns the next bounded list of what there is to do, by applied
// state.
func (e *expirer) commands() (list []entry.Command, err error) {
	snapshot, err := e.n.replica.Store().NewSnapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	records, err := kvfsm.ReadRecords(snapshot)
	if err != nil {
		return nil, err
	}
	target := uint64(max(e.clock().Add(-e.age).UnixMilli(), 0))
	step := uint64(min(floorStepMin, e.age/4).Milliseconds())
	for i := range records {
		rec := &records[i]
		if len(list) >= pruneCommandsMax {
			break
		}
		if !rec.Phase.Serves() {
			continue
		}
		floor, err := kvfsm.ReadFloor(snapshot, rec)
		if err != nil {
			return nil, err
		}
		old, err := kvfsm.HasSessionsBefore(snapshot, rec, target)
		if err != nil {
			return nil, err
		}
		switch {
		case !old:
			continue
		case target >= floor+step:
			list = append(list, kvfsm.Encode(&kvfsm.RaiseFloor{Shard: rec.Shard, Floor: target}),
				kvfsm.Encode(&kvfsm.Prune{Shard: rec.Shard, Max: pruneSessionsMax}))
			continue
		}
		below, err := kvfsm.HasSessionsBefore(snapshot, rec, floor)
		if err != nil {
			return nil, err
		}
		if below {
			list = append(list, kvfsm.Encode(&kvfsm.Prune{Shard: rec.Shard, Max: pruneSessionsMax}))
		}
	}
	return list, nil
}

func (e *expirer) propose(ctx context.Context, list []entry.Command) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proposingMax)
	defer cancel()
	results, err := e.n.replica.ProposeAll(ctx, list)
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
