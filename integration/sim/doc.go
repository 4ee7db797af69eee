// Package sim runs whole clusters in one goroutine, in virtual time, from a
// seed: the real step machines (controller, groups, handoff, sessions, the
// clerk's routing) on the in-memory store, over a modelled Raft and a modelled
// network that loses, repeats, delays and cuts.
//
// Row 5 of the layers: it imports the step machines, clerk/route and
// integration/history. A World owns everything and is used by one goroutine;
// any number of Worlds may run at once.
//
// # What is real and what is modelled
//
// Real: kvfsm, handoff, placement, session, ctrlfsm, report, shardcfg, entry,
// store.Mem with its durable and volatile states and its streams, clerk/route.
// Modelled, as thinly as possible: Raft (elections, replication, commit,
// ReadIndex, snapshots, on disks that forget what was not synced), the network,
// and what shardkv, shardctrler and clerk do around the machines (who is asked,
// when, and what is parked); each model names the function that it follows.
//
// A follower that applies what another replica has applied already takes over
// that state instead of computing it again; a replica that crashed replays its
// own log from what was durable, and must come to the same hash.
//
// # A seed
//
// Each seed draws its own mix of faults and rates (Profile), its workload and
// every chance on the way. Streams of random numbers are separate by purpose,
// so that switching one kind of fault off leaves the others as they are: that is
// how a failure is shrunk. The same seed and options give the same trace, byte
// for byte; Report.Trace is its hash.
package sim
