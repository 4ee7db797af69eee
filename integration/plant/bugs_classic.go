package main

import "slices"

// classicBugs are what implementations of sharded stores get wrong when they
// are written for the first time, as the courses report that teach with one
// (MIT 6.5840, UW CSE 452). What is impossible by construction is left out:
// configs adopted out of order (numbers may be skipped), a handoff that is a side
// effect of applying a config (drivers start from state), a lock held across a
// call to a peer, transactions.
var classicBugs = []bug{
	{name: "frozen shard serves", edits: one("shardkv/kvfsm/types.go",
		"return p == PhaseServing || p == PhaseLeaving }", "return p == PhaseServing || p == PhaseLeaving || p == PhaseFrozen }"),
		catchers: []catcher{machine, world, states}},
	{name: "deleted shard answers not found", edits: one("shardkv/kvfsm/read.go",
		"if !rec.Phase.Serves() {\n\t\treturn Lookup{", "if !rec.Phase.Serves() && rec.Phase != PhasePassed {\n\t\treturn Lookup{"),
		catchers: []catcher{machine, world, states}},
	{name: "installed twice", edits: one("shardkv/kvfsm/transfer.go",
		"r.Staging = nil\n\tsh.floorKnown = false\n", "sh.floorKnown = false\n"), catchers: []catcher{machine, world, states}},
	{name: "installed over a newer epoch", edits: slices.Concat(
		one("shardkv/kvfsm/transfer.go", "r.Staging = nil\n\tsh.floorKnown = false\n", "sh.floorKnown = false\n"),
		one("shardkv/kvfsm/transfer.go", "case !r.Epoch.Less(c.Epoch):\n\t\treturn refuse(ReasonEpoch), nil\n\tcase !pageFits",
			"case false:\n\t\treturn refuse(ReasonEpoch), nil\n\tcase !pageFits")),
		catchers: []catcher{machine, world, states}},
	{name: "an invitation is sent once", edits: one("shardkv/handoff/leaving.go",
		"l.sentPhase == rec.Phase && d.now < due {", "l.sentPhase == rec.Phase {"), catchers: []catcher{world}},
	{name: "a lost fetch is never repeated", edits: one("shardkv/handoff/fetching.go",
		"l.fetch != 0 && d.now >= l.until {", "l.fetch == 1<<63 {"), catchers: []catcher{world}},
	{name: "a lost proposal is never repeated", edits: one("shardkv/handoff/driver.go",
		"if ok && d.now < p.until {", "if ok {"), catchers: []catcher{world}},
	{name: "staging not stored", edits: one("shardkv/kvfsm/record.go",
		"if r.Staging == nil {", "if true {"), catchers: []catcher{machine}},
	{name: "receiver not stored", edits: one("shardkv/kvfsm/record.go",
		"dst = appendPeer(dst, r.To)", "dst = appendPeer(dst, Peer{})"), catchers: []catcher{machine}},
	{name: "the holder is found by the config only", edits: one("shardkv/handoff/fetching.go",
		"if a := d.arriving[w.Shard]; a.invited &&", "if a := d.arriving[w.Shard]; false &&"), catchers: []catcher{world}},
	{name: "one unfinished shard holds up all", edits: one("shardkv/handoff/driver.go",
		"d.stepLeaving(&v, &v.Records[i], out); err != nil {\n\t\t\treturn Actions{}, err\n\t\t}\n",
		"d.stepLeaving(&v, &v.Records[i], out); err != nil {\n\t\t\treturn Actions{}, err\n\t\t}\n"+
			"\t\tif p := v.Records[i].Phase; p == kvfsm.PhaseLeaving || p == kvfsm.PhaseFrozen {\n\t\t\tbreak\n\t\t}\n"),
		catchers: []catcher{world}},
	{name: "one lane for the frozen and the others", edits: one("shardkv/handoff/fetching.go",
		"case w.urgent:", "case false:"), catchers: []catcher{world}},
	{name: "a cursor shared with the log entry", edits: one("shardkv/kvfsm/transfer.go",
		"Key: bytes.Clone(c.Next.Key), Revision: c.Next.Revision}", "Key: c.Next.Key, Revision: c.Next.Revision}"),
		catchers: []catcher{machine, world}},
	{name: "frozen operations are refused, not parked", edits: one("shardkv/placement/placement.go",
		"case r.Phase == kvfsm.PhaseFrozen:\n\t\treturn Placing{Wait: true, Shard: s}", "case r.Phase == kvfsm.PhaseFrozen:\n\t\treturn Placing{Next: r.To, Shard: s}"),
		catchers: []catcher{tests("./shardkv", "TestFrozenShardParks", "-test.timeout=20s")}},
	{name: "parking loses the wake-up", edits: one("shardkv/placement/lot.go",
		"if waiting := l.shards[s]; waiting != nil {", "if waiting := l.shards[s]; waiting != nil && false {"),
		catchers: []catcher{tests("./shardkv", "TestFrozenShardParks", "-test.timeout=20s")}},
	{name: "an older redirect from the receiver", edits: one("shardkv/placement/placement.go",
		"if h.hinted && at.Epoch.Less(h.hint.Epoch) &&", "if h.hinted &&"), catchers: []catcher{tests("./shardkv", "TestOlderHintsAreIgnored")}},
}
