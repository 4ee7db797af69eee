package raftgroup

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// ReadMembers returns the newest configuration that a stopped replica knows; see
// Replica.Members. Of the options it needs Identity, Store and Log, and it changes
// neither.
func ReadMembers(o Options) ([]formation.Member, error) {
	r := &Replica{o: o}
	r.fsm = &fsm{r: r, swap: make(chan struct{}, 1)}
	if err := r.fsm.load(o.Store); err != nil {
		return nil, err
	}
	var err error
	if r.guard, err = newGuard(r); err != nil {
		return nil, err
	}
	_, list := r.Members()
	return list, nil
}

// recordAddresses puts the addresses that members were given while the group was
// stopped into its configuration, one at a time, until all are there or the
// leadership ends. From then on the renumbering says nothing any more.
func (r *Replica) recordAddresses(lead *leadership) {
	for {
		server, current, found := r.renumbered()
		if !found {
			return
		}
		err := r.recordAddress(lead, server, current.index)
		if err == nil {
			continue
		}
		r.o.Logger.Info("the new address of a member is not recorded yet", "server", string(server.ID), "error", err)
		select {
		case <-time.After(r.o.Timeout):
		case <-lead.ctx.Done():
			return
		}
	}
}

// renumbered finds a member whose address in the newest configuration stands for
// another one.
func (r *Replica) renumbered() (raft.Server, members, bool) {
	current := r.latest()
	for _, s := range current.config.Servers {
		if r.addressOf(s) != string(s.Address) {
			return s, current, true
		}
	}
	return raft.Server{}, current, false
}

// recordAddress changes one address in place. That no two disks vote as one does
// not depend on it: every replica was told the new address before it was started,
// and takes no word of one that is elsewhere.
func (r *Replica) recordAddress(lead *leadership, s raft.Server, previous uint64) error {
	set := lead.node.AddNonvoter
	if s.Suffrage == raft.Voter {
		set = lead.node.AddVoter
	}
	to := r.addressOf(s)
	release := r.transport.Withhold(s.ID)
	defer release()
	change := set(s.ID, raft.ServerAddress(to), previous, r.o.Timeout) // until Raft takes it up
	// Raft's main loop answers this one after it has changed the address, whether it
	// confirms the leadership or not. The member may be needed to commit the change.
	_ = r.await(lead.ctx, lead.node.VerifyLeader())
	release()
	if err := r.await(lead.ctx, change); err != nil {
		return fmt.Errorf("from %s to %s: %w", s.Address, to, err)
	}
	r.o.Logger.Info("a member's address was changed", "server", string(s.ID), "from", string(s.Address), "to", to)
	return nil
}
