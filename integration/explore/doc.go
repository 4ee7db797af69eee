// Package explore searches the states that a few groups can reach, all of them
// up to a bound, and checks the handoff's invariants in each. What it steps is
// the product: commands go through kvfsm.Machine.Apply on store.Mem, proposals
// come out of handoff.Driver, pages out of kvfsm.ReadPages.
//
// The adversary: every message computable from any committed prefix ever seen
// may be delivered at any time, any number of times. That covers deposed
// leaders without bound, late proposals, replicas that lag, duplicates,
// reordering and loss. docs/explorer.md says how a state is represented, what
// is left out of it and why that loses nothing.
//
// Row 5 of the layers: it imports the step machines and the standard library.
// One goroutine; same bound, same states in the same order.
package explore
