package ctrlfsm_test

import (
	"testing"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/grouptest"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// TestTheMachineKeepsTheContractOfReplicatedMachines runs the common suite over
// every kind of command, with refusals, repeats and the expiry of requests.
func TestTheMachineKeepsTheContractOfReplicatedMachines(t *testing.T) {
	const start = 50_000_000
	clock := uint64(start)
	request := func(id byte) ctrlfsm.RequestID {
		return ctrlfsm.RequestID{ID: shardcfg.ID128{id}, BirthMS: clock}
	}
	group := func(gid shardcfg.GroupID, addr string) ctrlfsm.JoinGroup {
		return ctrlfsm.JoinGroup{ID: gid, Replicas: []string{addr}}
	}
	a, b := shardcfg.Incarnation{'A'}, shardcfg.Incarnation{'B'}
	first := ctrlfsm.Join{Request: request(1), Groups: []ctrlfsm.JoinGroup{group(1, "a:1"), group(2, "b:1")}}

	var script grouptest.Script
	add := func(commands ...ctrlfsm.Command) {
		e := entry.Entry{Clock: clock, Feature: entry.FeatureLevel}
		for _, c := range commands {
			e.Commands = append(e.Commands, c.Encode())
		}
		script = append(script, e)
		clock += 1000
	}
	add(first)
	add(ctrlfsm.Bind{Group: 1, Incarnation: a, Replicas: []string{"a:1"}},
		ctrlfsm.Bind{Group: 2, Incarnation: b, Replicas: []string{"b:1", "b:2"}})
	add(ctrlfsm.Claim{Incarnation: a, Shards: []shardcfg.ShardID{0, 1, 2, 3, 4}},
		ctrlfsm.Claim{Incarnation: b, Shards: []shardcfg.ShardID{3, 4, 5}},
		ctrlfsm.Bind{Group: 1, Incarnation: b, Replicas: []string{"a:1"}})
	add(ctrlfsm.Move{Request: request(2), Shard: 0, Group: 2}, ctrlfsm.Move{Request: request(3), Shard: 9, Group: 2})
	add(first, ctrlfsm.Join{Request: request(4), Groups: []ctrlfsm.JoinGroup{group(3, "c:1")}})
	add(ctrlfsm.Unpin{Request: request(5), Shard: 0})
	add(ctrlfsm.Leave{Request: request(6), Groups: []shardcfg.GroupID{1, 3}})
	add(ctrlfsm.Drained{Incarnation: a, Adopted: 1}, ctrlfsm.Leave{Request: request(7), Groups: []shardcfg.GroupID{2}})
	add(ctrlfsm.Drained{Incarnation: a, Adopted: 100})
	clock += ctrlfsm.RequestLifeMS
	add(first, ctrlfsm.Join{Request: request(8), Groups: []ctrlfsm.JoinGroup{
		{ID: 1, Replicas: []string{"a:1"}, Identity: ctrlfsm.IdentityFormed, Incarnation: a}}})

	grouptest.Run(t, func() raftgroup.StateMachine { return ctrlfsm.New(8, nil) }, script)
}
