package main

// foundBugs were in this product once; docs/testing.md tells how each was found.
var foundBugs = []bug{
	{name: "a value under the empty key reaches Pebble", edits: one("raftgroup/pebblestore/batch.go",
		"if len(key) == 0 {\n\t\treturn store.ErrEmptyKey\n\t}\n", ""), catchers: []catcher{tests("./raftgroup/pebblestore", "TestContract|TestStoresAgree")}},
	{name: "claims of a poll are taken after its config", edits: one("shardkv/poll.go",
		"p.m.claimed(reply.GetClaimed(), p.n.identity.ShardCount)\n\tp.m.granted(reply.GetRepairs(), p.n.identity.ShardCount)\n\tif err := p.adopt(ctx, reply); err != nil {\n\t\treturn err\n\t}\n",
		"if err := p.adopt(ctx, reply); err != nil {\n\t\treturn err\n\t}\n\tp.m.claimed(reply.GetClaimed(), p.n.identity.ShardCount)\n\tp.m.granted(reply.GetRepairs(), p.n.identity.ShardCount)\n"),
		catchers: []catcher{tests("./shardkv", "TestClaimsComeBeforeTheConfig")}},
	{name: "expired fetches are freed one step late", edits: one("shardkv/handoff/arriving.go",
		"\td.expireFetches()\n\tdue := map[shardcfg.Incarnation][]want{}\n", "\tdefer d.expireFetches()\n\tdue := map[shardcfg.Incarnation][]want{}\n"),
		catchers: []catcher{world}},
	{name: "another group says that it is ready", edits: one("shardkv/handoff/arriving.go",
		"st.Ready = in.To.Incarnation == self.Peer.Incarnation &&\n\t\t\tready(", "st.Ready = ready("), catchers: []catcher{world}},
	{name: "a controller behind the group's config answers its poll", edits: one("shardctrler/poll.go",
		"if rd.latest.Num < shardcfg.ConfigNum(req.GetAdopted()) {", "if false {"), catchers: []catcher{served("")}},
}
