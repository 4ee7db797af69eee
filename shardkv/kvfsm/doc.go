// Package kvfsm is the replicated machine of a group: the shards that it holds,
// the sessions of their clients, and the steps by which a shard's token passes
// from one group to another.
//
// Row 2 of the layers: a step machine. It imports raftgroup/store,
// raftgroup/entry, shardctrler/shardcfg and shardkv/session, starts no
// goroutine, reads no clock and draws no random number: time and names arrive
// inside commands. A Machine is used by one goroutine, the one that applies;
// everyone else reads a snapshot of the store with the functions of this
// package that take a store.Reader, from any goroutine.
//
// # Stored keys
//
// All numbers are big-endian, so that keys sort by number.
//
//	shard u16 | copy u64 | kind u8 | rest       data of a shard
//	0xFFFE | 1 | shard u16                      the shard's Record
//	0xFFFE | 2                                  the adopted config
//	0xFFFE | 3                                  the cluster's id, pinned by the first config
//	0xFFFE | 4                                  the adopted config's number
//	0xFFFF ...                                  raftgroup's own, never touched here
//
// A copy is one instance of a shard's data in this group. Its number comes from
// a counter in the Record that every Create and every fresh staging raises, so
// that a served copy, a frozen one and a staging never mix: installing moves a
// pointer, discarding is one range delete.
//
// Kinds below KindLocalMin are the shard: they are counted in its digest and
// passed on. The others serve this copy only (the change log).
//
// # Revision
//
// A shard's revision rises by one with every mutating command, and a command
// that prunes sessions raises it once for each. So each revision changes few
// stored keys, and the tail of changes can be cut between any two. It is the
// version of the keys written at it, and the position in the change log.
//
// The protocol's table, its invariants INV-1 to INV-10 and the reasons behind
// them are in docs/handoff.md; each command's guard is in its own function.
package kvfsm
