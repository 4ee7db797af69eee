package main

import "slices"

// shippedBugs are bugs that other systems shipped, as they would look here.
var shippedBugs = []bug{
	// Dgraph 1.0.2 and 1.1.1: a tablet's destination served before its data was
	// there (dgraph-io/dgraph#2338, #4496).
	{name: "the receiver serves when the copy is complete", edits: one("shardkv/kvfsm/transfer.go",
		"Key: bytes.Clone(c.Next.Key), Revision: c.Next.Revision}\n",
		"Key: bytes.Clone(c.Next.Key), Revision: c.Next.Revision}\n\tif c.Next.Tail {\n"+
			"\t\tr := &sh.rec\n\t\tr.Phase, r.Epoch, r.Copy, r.Content, r.Staging = PhaseServing, st.Epoch, st.Copy, st.Content, nil\n\t}\n"),
		catchers: []catcher{machine, world, states}},
	// TiKV: a retry after an aborted merge took the first attempt for the second
	// (tikv/tikv#6460).
	{name: "a new attempt goes on with the old one's staging", edits: one("shardkv/kvfsm/transfer.go",
		"switch order := mark.Compare(r.Staging.Mark()); {", "switch order := mark.Epoch.Compare(r.Staging.Epoch); {"),
		catchers: []catcher{machine, world, states}},
	// Valkey before version 9: slots with large keys could not be moved.
	{name: "a large value blocks the move", edits: one("shardkv/kvfsm/page.go",
		"\t\tif len(p.Items) > 0 && size > bytesMax {",
		"\t\tif size > bytesMax && len(p.Items) == 0 {\n\t\t\tp.Next = from\n\t\t\treturn it.Close()\n\t\t}\n\t\tif len(p.Items) > 0 && size > bytesMax {"),
		catchers: []catcher{machine, world}},
	// Redis-Raft: NOLEADER was answered for a write that was committed
	// (RedisLabs/redisraft#23).
	{name: "lost leadership is called not done", edits: one("raftgroup/packer.go",
		"\tdefault:\n\t\treturn outcomeUnknown(err)", "\tdefault:\n\t\treturn notDone(err)"),
		catchers: []catcher{tests("./raftgroup", "TestWaitersEndWithLeadership|TestLostFuture|TestFailStop")}},
	{name: "an error of no family is called not done", edits: one("shardkv/node.go",
		"// Whatever names no family may have happened.\n\treturn fault{kvpb.Code_OUTCOME_UNKNOWN",
		"// Whatever names no family may have happened.\n\treturn fault{kvpb.Code_UNAVAILABLE"),
		catchers: []catcher{tests("./shardkv", "TestFaultFamilies")}},
	{name: "a withdrawn proposal in flight is called not done", edits: one("raftgroup/packer.go",
		"p.settleLocked(q, &ProposalError{Err: outcomeUnknown(ctx.Err())})", "p.settleLocked(q, &ProposalError{Err: notDone(ctx.Err())})"),
		catchers: []catcher{tests("./raftgroup", "TestBudgetsAndContexts")}},
	// etcd 3.5: the consistent index was saved apart from the data.
	{name: "applied index apart from the data", edits: one("raftgroup/fsm.go",
		"if err := b.Set(keyPosition, step.at.encode()); err != nil {",
		"early := step.at\n\tdefer func() {\n\t\tif err == nil {\n\t\t\tif late, open := f.r.o.Store.NewBatch(); open == nil {\n"+
			"\t\t\t\tlate.Set(keyPosition, early.encode())\n\t\t\t\tlate.Commit()\n\t\t\t}\n\t\t}\n\t}()\n\tif err := b.Set([]byte{0xFF, 0xFF, 0xFF}, nil); err != nil {"),
		catchers: []catcher{tests("./raftgroup", "TestReplayAfterPowerLoss|TestPowerLossAfterCut|TestThreeReplicas")}},
	// etcd (etcd-io/etcd#20418): a read index reused for a retry.
	{name: "a read joins a round that has begun", edits: slices.Concat(
		one("raftgroup/read.go", "current := q.mu.next\n\t\tq.mu.next = nil\n", "current := q.mu.next\n"),
		one("raftgroup/read.go", "\t\tclose(current.done)", "\t\tq.mu.Lock()\n\t\tq.mu.next = nil\n\t\tq.mu.Unlock()\n\t\tclose(current.done)")),
		catchers: []catcher{tests("./raftgroup", "TestReadsShareRounds|TestReadJoinsTheNextRound")}},
	// NATS 2.12.1: acknowledged before the fsync (nats-io/nats-server#7564), and
	// data deleted that the metadata did not know (#7556).
	{name: "the log is cut before the store is durable", edits: one("raftgroup/snapshot.go",
		"if !r.o.unsafe.compactFirst {", "if false {"), catchers: []catcher{tests("./raftgroup", "TestPowerLossAfterCut/contained")}},
	{name: "a sync that syncs nothing", edits: one("raftgroup/pebblestore/pebblestore.go",
		"return g.db.LogData(nil, pebble.Sync)", "return g.db.LogData(nil, pebble.NoSync)"),
		catchers: []catcher{tests("./raftgroup/pebblestore", "TestCrash")}},
	{name: "data that the config gives to others is deleted", edits: one("shardkv/kvfsm/adopt.go",
		"r := &sh.rec\n\tif r.Phase == PhaseLeaving {",
		"r := &sh.rec\n\tif r.Phase == PhaseServing && !m.owner(r.Shard).IsZero() && m.owner(r.Shard) != m.self {\n"+
			"\t\tif err := m.deleteCopy(r.held()); err != nil {\n\t\t\treturn err\n\t\t}\n"+
			"\t\tr.Phase, r.To, r.Epoch, r.Copy = PhasePassed, m.owner(r.Shard), r.Epoch.Next(), 0\n\t\tm.touch(sh)\n\t}\n\tif r.Phase == PhaseLeaving {"),
		catchers: []catcher{machine, world, states}},
	// RethinkDB (rethinkdb/rethinkdb#5289), YugaByte (yugabyte/yugabyte-db#824):
	// writes lost in changes of membership.
	{name: "members change without a live quorum", edits: one("raftgroup/members.go",
		"if alive <= len(voters)/2 {", "if false {"), catchers: []catcher{tests("./raftgroup", "TestQuorumIsKept")}},
	{name: "a voter that has not caught up", edits: one("raftgroup/members.go",
		"for r.match(lead, id) < goal {", "for false && r.match(lead, id) < goal {"), catchers: []catcher{tests("./raftgroup", "TestPromoteWaitsForTheLearner")}},
	{name: "leadership for a learner", edits: one("raftgroup/members.go",
		"case target.Suffrage != raft.Voter:", "case false:"), catchers: []catcher{tests("./raftgroup", "TestReplaceReplica|TestQuorumIsKept|TestCloseHandsOver")}},
}
