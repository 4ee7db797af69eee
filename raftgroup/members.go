package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
)

// ErrNoMember: the group has no member of that label or server id. Not done.
var ErrNoMember error = &familyError{family: ErrNotDone, text: "no such member"}

// catchUpRoundsMax bounds how often Promote sets itself a new goal (thesis of
// Ongaro, section 4.2.1).
const catchUpRoundsMax = 10

// AddLearner adds a replica that receives the log and has no vote. Adding a
// member again, voter or not, is no error. The label need not be unique, the
// server id and the address must be. The address of a member is never changed in
// place: the disk at the old one and the disk at the new one could both vote
// under its name. Only the leader can do it.
func (r *Replica) AddLearner(ctx context.Context, m formation.Member) error {
	lead, err := r.readyLead(ctx)
	if err != nil {
		return err
	}
	if m.ServerID == "" || m.Address == "" {
		return &RefusedError{Reason: "a member needs a server id and an address"}
	}
	_, current, _ := r.fsm.snapshotOf()
	present := false
	for _, s := range current.config.Servers {
		switch {
		case string(s.ID) == m.ServerID && r.addressOf(s) == m.Address:
			present = true
		case string(s.ID) == m.ServerID:
			return &RefusedError{Reason: fmt.Sprintf("member %s has the address %s, which can't become %s in place: two disks could vote as one; "+
				"replace the member with an empty replica", m.ServerID, s.Address, m.Address)}
		case string(s.Address) == m.Address, r.addressOf(s) == m.Address:
			return &RefusedError{Reason: "another member has the address " + m.Address}
		}
	}
	if _, old := r.Replacement(); old == m.ServerID {
		// It is back: whoever was to take its place has to be told so anew.
		if err := r.NoteReplacement(ctx, "", ""); err != nil {
			return err
		}
	}
	if !present {
		err := r.await(ctx, lead.node.AddNonvoter(raft.ServerID(m.ServerID), raft.ServerAddress(m.Address), current.index, r.changeTimeout(ctx)))
		if err != nil {
			return err
		}
	}
	if r.fsm.label(m.ServerID) == m.Label {
		return nil
	}
	_, err = r.Propose(ctx, memberCommand(m))
	if err != nil && !present {
		// The cause's own family would be that of the label alone.
		err = outcomeUnknown(fmt.Errorf("the learner was added, its label was not recorded: %v", err))
	}
	return err
}

// Promote waits until the learner, given by label or server id, has caught up,
// and makes it a voter. It refuses if the group would then lack a live quorum.
// Only the leader can do it.
func (r *Replica) Promote(ctx context.Context, who string) error {
	if _, err := r.readyLead(ctx); err != nil {
		return err
	}
	learner, current, err := r.find(who)
	if err != nil {
		return err
	}
	if learner.Suffrage == raft.Voter {
		return nil
	}
	lead, err := r.catchUp(ctx, learner.ID)
	if err != nil {
		return err
	}
	voters := append(voterIDs(current), learner.ID)
	if err := r.checkQuorum(ctx, lead, voters); err != nil {
		return err
	}
	return r.await(ctx, lead.node.AddVoter(learner.ID, learner.Address, current.index, r.changeTimeout(ctx)))
}

// catchUp waits until the member stores what was committed when it last asked,
// and needed less than a timeout for that.
func (r *Replica) catchUp(ctx context.Context, id raft.ServerID) (*leadership, error) {
	lead, err := r.readyLead(ctx)
	if err != nil {
		return nil, err
	}
	for range catchUpRoundsMax {
		goal, began := lead.node.CommitIndex(), time.Now()
		for r.match(lead, id) < goal {
			select {
			case <-time.After(r.o.Timeout / 20):
			case <-lead.ctx.Done():
				return nil, r.notLeader()
			case <-ctx.Done():
				return nil, notDone(fmt.Errorf("the member does not catch up: %w", ctx.Err()))
			}
		}
		if time.Since(began) < r.o.Timeout {
			return lead, nil
		}
	}
	return nil, &RefusedError{Reason: "the member is too slow to catch up"}
}

// match returns the newest entry that the member is known to store in the
// leadership's term.
func (r *Replica) match(lead *leadership, id raft.ServerID) uint64 {
	p := r.transport.Peer(id)
	if p.MatchTerm != lead.term() {
		return 0
	}
	return p.Match
}

// Remove removes a member, given by label or server id. That there is no such
// member is ErrNoMember, and certain: whoever repeats a removal whose answer was
// lost may take it for success. It refuses, after two timeouts at most, if the
// voters that are left lack a live quorum; RefusedError says who is silent. Only
// the leader can do it; if it removes itself, it stops leading.
func (r *Replica) Remove(ctx context.Context, who string) error {
	lead, err := r.readyLead(ctx)
	if err != nil {
		return err
	}
	leaving, current, err := r.find(who)
	if errors.Is(err, ErrNoMember) {
		// A leader that was deposed may not know that the member was added since.
		if err := r.ReadBarrier(ctx); err != nil {
			return err
		}
		leaving, current, err = r.find(who)
	}
	if err != nil {
		return err
	}
	if leaving.Suffrage == raft.Voter {
		var left []raft.ServerID
		for _, id := range voterIDs(current) {
			if id != leaving.ID {
				left = append(left, id)
			}
		}
		if err := r.checkQuorum(ctx, lead, left); err != nil {
			return err
		}
	}
	return r.await(ctx, lead.node.RemoveServer(leaving.ID, current.index, r.changeTimeout(ctx)))
}

// Transfer hands leadership to a voter, given by label or server id; if who is
// empty, to the one that is furthest. It must be alive and, within a timeout,
// caught up. Proposals are refused meanwhile. Only the leader can do it.
func (r *Replica) Transfer(ctx context.Context, who string) error {
	lead := r.leading()
	if lead == nil {
		return r.notLeader()
	}
	var target raft.Server
	var err error
	if who == "" {
		target, err = r.bestVoter(lead)
	} else {
		target, _, err = r.find(who)
	}
	switch {
	case err != nil:
		return err
	case string(target.ID) == r.o.Identity.ServerID:
		return nil
	case target.Suffrage != raft.Voter:
		return &RefusedError{Reason: "leadership can't go to a learner"}
	case !r.healthy(target.ID):
		return &RefusedError{Reason: "leadership can't go to a replica that does not answer"}
	}
	catchUp, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if _, err := r.catchUp(catchUp, target.ID); err != nil {
		return err
	}
	return r.await(ctx, lead.node.LeadershipTransferToServer(target.ID, target.Address))
}

// bestVoter is the voter whose log is known to reach furthest, of those that
// answered within the last timeout.
func (r *Replica) bestVoter(lead *leadership) (best raft.Server, err error) {
	found := false
	for _, s := range lead.node.GetConfiguration().Configuration().Servers {
		silent := time.Since(r.transport.Peer(s.ID).Contact)
		if s.Suffrage != raft.Voter || string(s.ID) == r.o.Identity.ServerID || silent > r.o.Timeout {
			continue
		}
		if !found || r.match(lead, s.ID) > r.match(lead, best.ID) {
			best, found = s, true
		}
	}
	if !found {
		return best, &RefusedError{Reason: "no other voter answers"}
	}
	return best, nil
}

// RaiseFeature raises the group's feature level. Every member must support it
// already: one that does not will stop.
func (r *Replica) RaiseFeature(ctx context.Context, level uint8) error {
	if level > entry.FeatureLevel {
		return &RefusedError{Reason: fmt.Sprintf("this version supports feature level %d at most", entry.FeatureLevel)}
	}
	_, err := r.Propose(ctx, entry.Command{Kind: entry.KindRaiseFeature, Body: []byte{level}})
	return err
}

// Retire keeps the replica from standing for election, or lets it again. It is for
// one that was removed: the others refuse it, and what it asks them only disturbs.
func (r *Replica) Retire(retired bool) { r.transport.Retire(retired) }

// readyLead waits until this replica may change the membership: Raft allows it
// once an entry of its term is committed.
func (r *Replica) readyLead(ctx context.Context) (*leadership, error) {
	lead := r.leading()
	if lead == nil {
		return nil, r.notLeader()
	}
	select {
	case <-lead.ready:
		return lead, nil
	case <-lead.ctx.Done():
		return nil, r.notLeader()
	case <-ctx.Done():
		return nil, notDone(ctx.Err())
	}
}

// find looks a member up in the newest configuration that was applied.
func (r *Replica) find(who string) (raft.Server, members, error) {
	_, current, _ := r.fsm.snapshotOf()
	var found []raft.Server
	for _, s := range current.config.Servers {
		if string(s.ID) == who {
			return s, current, nil
		}
		if r.labelOf(string(s.ID)) == who {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0], current, nil
	case 0:
		return raft.Server{}, current, ErrNoMember
	default:
		return raft.Server{}, current, &RefusedError{Reason: "several members are called " + who + ", name one by its server id"}
	}
}

// labelOf returns the label of a member, or "".
func (r *Replica) labelOf(serverID string) string {
	if label := r.fsm.label(serverID); label != "" {
		return label
	}
	if serverID == r.o.Identity.ServerID {
		return r.o.Identity.Label
	}
	for _, m := range r.o.Identity.Founders {
		if m.ServerID == serverID {
			return m.Label
		}
	}
	return ""
}

func voterIDs(m members) (ids []raft.ServerID) {
	for _, s := range m.config.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// checkQuorum refuses a set of voters of which no majority answers now. What
// counts is an answer, in the leadership's term, to a message that was sent after
// the check began: a voter that answered a moment ago may be dead.
func (r *Replica) checkQuorum(ctx context.Context, lead *leadership, voters []raft.ServerID) error {
	if len(voters) == 0 {
		return &RefusedError{Reason: "the group would have no voter left"}
	}
	silent, err := r.silent(ctx, lead, voters)
	if err != nil {
		return err
	}
	alive := len(voters) - len(silent)
	if alive <= len(voters)/2 {
		var names []string
		for _, m := range silent {
			names = append(names, m.String())
		}
		return &RefusedError{Silent: silent, Reason: fmt.Sprintf("the group would have %d voters, of which only %d answer; these do not: %s",
			len(voters), alive, strings.Join(names, ", "))}
	}
	return nil
}

// silent asks all the voters, and returns those that have not answered within two
// timeouts. It does not stop at a majority, so that it can name the others.
func (r *Replica) silent(ctx context.Context, lead *leadership, voters []raft.ServerID) ([]SilentMember, error) {
	number := r.transport.BeginRound()
	lead.node.VerifyLeader() // makes Raft send heartbeats now; its answer proves nothing
	for deadline := time.Now().Add(2 * r.o.Timeout); ; {
		var silent []SilentMember
		for _, id := range voters {
			if !r.acknowledged(lead, id, number) {
				silent = append(silent, SilentMember{Label: r.labelOf(string(id)), ServerID: string(id)})
			}
		}
		if len(silent) == 0 || time.Now().After(deadline) {
			return silent, nil
		}
		select {
		case <-time.After(r.o.Timeout / 20):
		case <-lead.ctx.Done():
			return nil, r.notLeader()
		case <-ctx.Done():
			return nil, notDone(ctx.Err())
		}
	}
}

// healthy reports whether a member has answered lately.
func (r *Replica) healthy(id raft.ServerID) bool {
	return string(id) == r.o.Identity.ServerID ||
		time.Since(r.transport.Peer(id).Contact) < 3*r.o.Timeout
}

// changeTimeout bounds how long a change may wait for an earlier one; without a
// bound it would wait forever for one that is never committed.
func (r *Replica) changeTimeout(ctx context.Context) time.Duration {
	d := 4 * r.o.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, max(time.Until(deadline), time.Millisecond))
	}
	return d
}

// await waits for a change of membership or leadership. The future may never be
// answered, if Raft shuts down.
func (r *Replica) await(ctx context.Context, future raft.Future) error {
	answer := make(chan error, 1)
	go func() { answer <- future.Error() }()
	select {
	case err := <-answer:
		return r.classifyChange(future, err)
	case <-r.stopped:
		return outcomeUnknown(ErrClosed)
	case <-ctx.Done():
		return outcomeUnknown(ctx.Err())
	}
}

func (r *Replica) classifyChange(future raft.Future, err error) error {
	indexed, ok := future.(raft.IndexFuture)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return r.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		r.transferSeen()
		return ErrTransferring
	case errors.Is(err, raft.ErrEnqueueTimeout), ok && indexed.Index() == 0:
		return notDone(err)
	default:
		return outcomeUnknown(err)
	}
}
