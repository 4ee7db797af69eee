package kvfsm

import (
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Expiry says which sessions are to be forgotten.
type Expiry struct {
	// TargetMS is where floors should be, in ms since 1970: sessions born earlier
	// are too old.
	TargetMS uint64
	// StepMS is by how much a floor is raised at least, so that a busy shard costs
	// one command in that time, not one for each session.
	StepMS uint64
	// SessionsMax bounds what one Prune removes, CommandsMax the commands, roughly.
	SessionsMax uint32
	CommandsMax int
}

// Due returns the next commands of an expiry for the shards that the group holds,
// from shard from on: floors to raise, sessions below them to prune. next is where
// to go on once they are applied: at the first of their shards, which may have more
// to prune. There is nothing more to do when none are due. So an expiry looks at
// each shard about once for each list that it is in, however many there are. A
// shard that knows no old session costs no command.
func (e Expiry) Due(r store.Reader, from shardcfg.ShardID) (list []Command, next shardcfg.ShardID, err error) {
	err = eachRecord(r, from, func(rec *Record) (more bool, err error) {
		if rec.Phase.Serves() {
			if list, err = e.due(r, rec, list); err != nil {
				return false, err
			}
		}
		return len(list) < e.CommandsMax, nil
	})
	if len(list) > 0 {
		next = shardOf(list[0])
	}
	return list, next, err
}

func (e Expiry) due(r store.Reader, rec *Record, list []Command) ([]Command, error) {
	old, err := HasSessionsBefore(r, rec, e.TargetMS)
	if !old || err != nil {
		return list, err
	}
	floor, err := ReadFloor(r, rec)
	if err != nil {
		return nil, err
	}
	prune := &Prune{Shard: rec.Shard, Max: e.SessionsMax}
	if e.TargetMS >= floor+e.StepMS {
		return append(list, &RaiseFloor{Shard: rec.Shard, Floor: e.TargetMS}, prune), nil
	}
	below, err := HasSessionsBefore(r, rec, floor)
	if below && err == nil {
		list = append(list, prune)
	}
	return list, err
}
