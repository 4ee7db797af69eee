package main

// foundBugs were in this product once; docs/testing.md tells how each was found.
var foundBugs = []bug{
	{name: "a value under the empty key reaches Pebble", edits: one("raftgroup/pebblestore/batch.go",
		"if len(key) == 0 {\n\t\treturn store.ErrEmptyKey\n\t}\n", ""), catchers: []catcher{tests("./raftgroup/pebblestore", "TestContract|TestStoresAgree")}},
	{name: "claims of a poll are taken after its config", edits: one("shardkv/handoff/conversation.go",
		"return r.Num > v.Adopted(), c.claimed(v, r.Claimed, r.Repairs)",
		"if r.Num > v.Adopted() {\n\t\treturn true, false\n\t}\n\treturn false, c.claimed(v, r.Claimed, r.Repairs)"),
		catchers: []catcher{tests("./shardkv", "TestClaimsComeBeforeTheConfig")}},
	{name: "expired fetches are freed one step late", edits: one("shardkv/handoff/arriving.go",
		"\td.expireFetches()\n\tdue := map[shardcfg.Incarnation][]want{}\n", "\tdefer d.expireFetches()\n\tdue := map[shardcfg.Incarnation][]want{}\n"),
		catchers: []catcher{world}},
	{name: "another group says that it is ready", edits: one("shardkv/handoff/arriving.go",
		"st.Ready = in.To.Incarnation == self.Peer.Incarnation &&\n\t\t\tready(", "st.Ready = ready("), catchers: []catcher{world}},
	{name: "a controller behind the group's config answers its poll", edits: one("shardctrler/report/report.go",
		"if latest.Num < r.Adopted {", "if false {"), catchers: []catcher{served("")}},
	{name: "calls side by side pass over the leader", edits: one("shardkv/placement/preference.go",
		"slices.Index(addresses, asked)+1", "slices.Index(addresses, p.first[group])+1"),
		catchers: []catcher{tests("./shardkv/placement", "TestPreferenceInStep"), simulator}},
	{name: "drained by a config that no answer brought", edits: one("shardkv/handoff/conversation.go",
		"if r.Adopted <= c.settled {", "if c.settled > 0 {"), catchers: []catcher{tests("./shardkv/handoff", "TestConfigThatNoAnswerBrought"), simulator}},
	{name: "the config is published before the records", edits: one("shardkv/table.go",
		"\tnow := &placed{config: was.config, records: make(",
		"\tif first, err := kvfsm.ReadAdopted(r); err == nil && first.Config != nil {\n"+
			"\t\tw.places.now.Store(&placed{config: first.Config, records: was.records})\n\t}\n\tnow := &placed{config: was.config, records: make("),
		catchers: []catcher{tests("./shardkv", "TestViewIsOneMoment")}},
	{name: "an offer shows a mark", edits: one("shardkv/handoff/arriving.go",
		"if inv.Phase != kvfsm.PhaseServing {\n\t\t\ta.show", "if true {\n\t\t\ta.show"), catchers: []catcher{tests("./shardkv/handoff", "TestOfferShowsNothing")}},
	{name: "an offer displaces the word of a frozen holder", edits: one("shardkv/placement/placement.go",
		"return k.Phase == kvfsm.PhaseFrozen", "return i.Mark.Compare(k.Mark) < 0"), catchers: []catcher{tests("./shardkv/placement", "TestBefore")}},
	{name: "a shard without a leader counts as served", edits: one("clerk/health.go",
		"case sh.Holder != 0 && !s.led(sh.Holder):", "case false:"), catchers: []catcher{tests("./clerk", "TestHealth|TestStatusOfLeaderlessGroup")}},
}
