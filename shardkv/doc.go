// Package shardkv is the server of one replica of one replica group: the data
// service that clients use, the calls by which groups hand shards to each
// other, and the group's conversation with the shard controller.
//
// What a group may do is decided at apply, by package kvfsm. This package
// carries requests there and answers back, and runs in real time what package
// handoff decides. It keeps no state of its own that matters: places, the
// parking, the mover's memory may be lost at any moment.
//
// # The life of a request
//
// A message of operations is checked (validate.go), admitted by the budgets,
// and executed by one goroutine (execute.go). places says for each operation
// whether its shard is served here. Writes of a message enter the log together;
// reads share one read barrier and one snapshot, from which both phase and value
// come. An operation whose shard is frozen, or about to be served here, is
// parked, bounded, until the shard's record changes; one whose shard is
// elsewhere is answered with a redirect. Every outcome says whether it was done,
// not done, or may have been done.
//
// # The leader's work
//
// While this replica leads, node.lead runs: the poller (the controllers:
// configs, claims, reports), the mover (handoffs), the expirer (sessions) and
// the watch for a machine that lags. Each is one goroutine; the mover also has
// one for each message to another group and each list of proposals, and waits
// for them. Followers answer Invite, Fetch and Status from their applied state.
//
// Row 4 of the layers: it may import everything below, gRPC and the clock. It
// must not import shardctrler's server, nor the clerk.
package shardkv
