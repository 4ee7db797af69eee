// Package placement decides where a request for a shard should go, by what a
// replica knows: the applied record and config, and what other groups and the
// controllers said. It also says whom a change of placement concerns: Changes
// and Lot.
//
// It only steers requests. Whether a shard is served is decided at apply, and for
// reads in the snapshot that is read, so that nothing here can do worse than send
// a client the long way.
//
// Row 2 of the layers: it imports raftgroup/entry, shardcfg, session and kvfsm.
// Its types are for one goroutine, or under one lock; its functions for any.
package placement
