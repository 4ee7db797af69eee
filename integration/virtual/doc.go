// Package virtual runs real replica groups in virtual time: the product's
// raftgroup over hashicorp/raft, with transports, log stores and machine stores
// in memory, in bubbles of testing/synctest. Minutes of elections, partitions,
// pauses, crashes and changes of membership cost fractions of a second.
//
// A seed draws a plan: the size of the group, the transport (messages, or Raft's
// network transport over streams that can hang, break and half-open), the machine
// (a register, or shardkv/kvfsm with its sessions), the load, and the schedule of
// faults. The seed fixes what is tried, and when. It does not fix how the
// goroutines interleave, nor Raft's own random timeouts, so a seed that failed
// may have to be run a few times before it fails again.
//
// In every run:
//
//   - an acknowledged write is in the final state once, one that was not done
//     never, one of unknown outcome at most once;
//   - the history of each key is linearizable, and undecided counts as failed;
//   - every replica, in all of its lives, applies the same entry at the same index
//     with the same results, and at the end all stores are equal;
//   - a term has one leader at most;
//   - every error belongs to one of the two families, also of membership calls,
//     and no call outlasts its context;
//   - only a replica with a failing disk stops by itself;
//   - once all faults are healed, a leader commits within 30 s;
//   - Close ends every goroutine: a bubble fails if any is left.
//
// Two dozen runs are part of go test; thousands of others are
//
//	SHOAL_VIRTUAL_RUNS=2000 SHOAL_VIRTUAL_FROM=1 go test ./integration/virtual -run TestSoak -timeout 0 -v
//
// All of it is tests, which alone may use synctest. It may import the whole
// product. Each goroutine belongs to the run's world, which waits for it.
package virtual
