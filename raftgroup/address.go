package raftgroup

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// latest is the newest configuration that this replica knows: that of its log,
// committed or not, else the one that was applied, else that of its founders,
// at index 0.
func (r *Replica) latest() members {
	_, m, _ := r.fsm.snapshotOf()
	if noted := r.guard.configuration(); noted.index > m.index {
		return noted
	}
	if m.index == 0 && len(m.config.Servers) == 0 {
		m.config = r.founders()
	}
	return m
}

// founders is the configuration that the group was bootstrapped with; empty for
// a replica that was added later.
func (r *Replica) founders() (first raft.Configuration) {
	for _, m := range r.o.Identity.Founders {
		first.Servers = append(first.Servers, raft.Server{
			Suffrage: raft.Voter,
			ID:       raft.ServerID(m.ServerID),
			Address:  raft.ServerAddress(m.Address),
		})
	}
	return first
}

// addressOf is a member's address, as renumbered.
func (r *Replica) addressOf(s raft.Server) string {
	return r.o.Renumbered.Address(string(s.ID), string(s.Address))
}

// Address is what an address of a configuration stands for.
func (n Renumbering) Address(serverID, address string) string {
	if moved, ok := n[serverID]; ok && moved.From == address {
		return moved.To
	}
	return address
}

// Members returns the newest configuration that this replica knows, committed or
// not, and the index of its entry: 0 for that of the founders. A newcomer knows
// none.
func (r *Replica) Members() (index uint64, list []formation.Member) {
	m := r.latest()
	for _, s := range m.config.Servers {
		list = append(list, formation.Member{Label: r.labelOf(string(s.ID)), ServerID: string(s.ID), Address: r.addressOf(s)})
	}
	return m.index, list
}

// Configuration is the newest configuration that was applied here, with the
// addresses that are recorded in it.
func (r *Replica) Configuration() (list []formation.Member) {
	_, m, _ := r.fsm.snapshotOf()
	for _, s := range m.config.Servers {
		list = append(list, formation.Member{Label: r.labelOf(string(s.ID)), ServerID: string(s.ID), Address: string(s.Address)})
	}
	return list
}

// checkAddress refuses to be at another address than the one that the newest
// known configuration has for this replica: a copy of its directory that is
// started elsewhere must neither stand nor vote. A replica that the
// configuration does not list, or that knows none yet, may be anywhere.
func (r *Replica) checkAddress(m members) error {
	for _, s := range m.config.Servers {
		if string(s.ID) != r.o.Identity.ServerID {
			continue
		}
		if listed := r.addressOf(s); listed != r.o.Advertise {
			return &formation.AddressError{Group: r.o.Identity.Group, Label: r.o.Identity.Label, Own: r.o.Advertise, Listed: listed}
		}
	}
	return nil
}

// configuration is the newest one in the log; index 0: the log holds none.
func (g *guard) configuration() members {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.config
}

// noteConfigurationLocked takes note of a configuration that was read from the
// log or written to it.
func (g *guard) noteConfigurationLocked(l *raft.Log) (err error) {
	if l.Type != raft.LogConfiguration {
		return nil
	}
	defer func() {
		if p := recover(); p != nil { // raft's decoder knows no other way
			err = fmt.Errorf("entry %d of the log is no configuration: %v", l.Index, p)
		}
	}()
	g.mu.config = members{index: l.Index, config: raft.DecodeConfiguration(l.Data)}
	return nil
}

// Acknowledged returns the newest entry that a member has acknowledged to this
// replica, with the term in which this replica led then; zeros if there is none.
func (r *Replica) Acknowledged(serverID string) (term, index uint64) {
	p := r.transport.Peer(raft.ServerID(serverID))
	return p.MatchTerm, p.Match
}

// CheckAcknowledged returns a *formation.OlderCopyError if this replica's log
// ends before an entry that it has acknowledged, in a term, to the replica of
// that name: its directory was put back from an older copy, which has forgotten
// entries and perhaps a vote. In a later term a newer leader may have cut them
// off, and nothing is said.
func (r *Replica) CheckAcknowledged(leader string, term, index uint64) error {
	// The end of the log first: a term is on disk before a leader of it cuts
	// anything off.
	last, _ := r.guard.LastIndex()
	last = max(last, r.fsm.position().index)
	if last >= index || r.node().CurrentTerm() > term {
		return nil
	}
	return &formation.OlderCopyError{Group: r.o.Identity.Group, Label: r.o.Identity.Label, Address: r.o.Advertise,
		Leader: leader, Acknowledged: index, Last: last}
}

// Stop stops the replica for good, as an error of its disk does.
func (r *Replica) Stop(reason error) { r.fatal(reason) }
