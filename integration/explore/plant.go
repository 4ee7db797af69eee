package explore

import (
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A Plant is a mistake that a search must find: proof that it would find such a
// mistake in the product. Each hook may be nil, and must be a function of its
// arguments. A build of the product that makes a mistake itself needs no Plant:
// run the same search on it.
type Plant struct {
	Name string
	// About says in words what is wrong.
	About string
	// Bound is one in which it shows, and Full whether pruning, which relies on
	// the guards that the plant breaks, would hide it.
	Bound string
	Full  bool
	// Catches is the invariant that breaks first.
	Catches string

	// Rewrite returns what is applied instead of a command, in the state of a
	// group; nil: nothing.
	Rewrite func(self kvfsm.Peer, v *handoff.View, c kvfsm.Command) kvfsm.Command
	// After edits the store behind a command; before is the state until then.
	After func(before *handoff.View, c kvfsm.Command, s *store.Mem) error
	// Propose adds proposals of whoever leads the group.
	Propose func(self kvfsm.Peer, v *handoff.View) []kvfsm.Command
	// Page edits what a holder answers.
	Page func(p *kvfsm.Page)
	// Get replaces kvfsm.Get.
	Get func(r store.Reader, shards int, key []byte) (kvfsm.Lookup, error)
	// SameIncarnation lets an emptied group join again as itself.
	SameIncarnation bool
	// ForgetClaims lets no leader learn of a claim after the next config.
	ForgetClaims bool
}
