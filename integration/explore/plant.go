package explore

import (
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/ctrlfsm"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A Plant is a mistake that a search must find: proof that it would find such a
// mistake in the product. Each hook may be nil, and must be a function of its
// arguments. A build of the product that makes a mistake itself needs no Plant:
// run the same search on it and expect a violation.
type Plant struct {
	Name string
	// About says in words what is wrong.
	About string
	// Bound is one in which it shows.
	Bound Bound
	// Full keeps every prefix: pruning relies on the guards that are broken here.
	Full bool
	// Catches begins the violation that it must lead to.
	Catches string

	// Apply stands for a machine's Apply.
	Apply func(g *Planted, c kvfsm.Command) (any, error)
	// Propose adds proposals of whoever leads the group.
	Propose func(self kvfsm.Peer, v *handoff.View) []kvfsm.Command
	// Invited adds proposals of whoever leads the group and was invited.
	Invited func(self kvfsm.Peer, v *handoff.View, in handoff.Invite) []kvfsm.Command
	// Page edits what a holder answers from a snapshot.
	Page func(r store.Reader, p *kvfsm.Page) error
	// Get replaces kvfsm.Get.
	Get func(r store.Reader, shards int, key []byte) (kvfsm.Lookup, error)
	// SameIncarnation lets an emptied group join again as itself.
	SameIncarnation bool
	// AnswerEarly lets groups answer before they have adopted the newest config.
	AnswerEarly bool
	// SilentIgnored lets a repair be judged though groups did not answer.
	SilentIgnored bool
	// OwnGeneration lets a group that repairs a shard choose the generation.
	OwnGeneration bool
	// Judge replaces ctrlfsm.Judge.
	Judge func(c *shardcfg.Config, k ctrlfsm.Case) (ctrlfsm.Fate, shardcfg.Incarnation)
	// Reform replaces kvfsm.Reform.
	Reform func(b store.Batch, destroyed kvfsm.Peer) (int, error)
	// ForgetClaims lets no leader learn of a claim.
	ForgetClaims bool
}

// Planted is a group whose Apply is not the product's.
type Planted struct {
	Self kvfsm.Peer
	View *handoff.View // before the command
	// Store may be edited.
	Store *store.Mem
	do    func(kvfsm.Command) (any, error)
}

// Do applies a command as the product does.
func (g *Planted) Do(c kvfsm.Command) (any, error) { return g.do(c) }

// Edit changes one stored value; f returns nil to delete it. An absent key is
// left alone.
func (g *Planted) Edit(key []byte, f func(value []byte) []byte) error {
	value, ok, err := g.Store.Get(key)
	if err != nil || !ok {
		return err
	}
	b, err := g.Store.NewBatch()
	if err != nil {
		return err
	}
	defer b.Close()
	if value = f(value); value == nil {
		err = b.Delete(key)
	} else {
		err = b.Set(key, value)
	}
	if err != nil {
		return err
	}
	return b.Commit()
}
