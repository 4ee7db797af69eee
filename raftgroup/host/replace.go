package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
)

// replacedBy finds the member that a newcomer is to replace, by its label or its
// server id; "" if it is gone already and only the newcomer's part is left to do.
//
// A replacement may be repeated until it is complete, so a newcomer that votes
// already may be one whose replacement was cut off before the last step. It may as
// well be any other member, named by mistake: to remove whom it does not replace
// would leave the group a voter short. What the group has noted tells them apart.
func (r *runningReplica) replacedBy(newcomer formation.Member, who string) (string, error) {
	notedNew, notedOld := r.replica.Replacement()
	begun := notedNew == newcomer.ServerID && named(notedOld, who)
	var found []string
	votes, itself := false, false
	for _, m := range r.replica.Status().Members {
		switch {
		case m.ServerID == newcomer.ServerID:
			votes, itself = m.Role != raftgroup.RoleLearner, named(m.ServerID, who)
		case begun && m.ServerID == notedOld:
			return notedOld, nil
		case named(m.ServerID, who):
			found = append(found, m.ServerID)
		}
	}
	refuse := func(format string, args ...any) (string, error) {
		return "", status.Errorf(codes.FailedPrecondition, "replica at %s %s", newcomer.Address, fmt.Sprintf(format, args...))
	}
	switch {
	case begun:
		return "", nil
	case len(found) > 1:
		return "", status.Errorf(codes.FailedPrecondition, "%d members have the id %q (%s and %s): name the server id", len(found), who, found[0], found[1])
	case len(found) == 0 && itself:
		return refuse("is %q itself: start an empty one in its place, or at another address", who)
	case len(found) == 0:
		return "", status.Errorf(codes.NotFound, "no member has the id %q: there is nothing to replace (to add a replica, say add)", who)
	case votes:
		return refuse("is the member %q, which votes already and does not replace %q: the group would have a voter less. "+
			"To remove %q, say remove; to replace it, name an empty replica", newcomer.Label, who, who)
	}
	return found[0], nil
}

// knows reports whether somebody of that label or server id is a member, or was
// begun to be replaced.
func (r *runningReplica) knows(who string) bool {
	_, old := r.replica.Replacement()
	return named(old, who) || slices.ContainsFunc(r.replica.Status().Members, func(m raftgroup.MemberStatus) bool { return named(m.ServerID, who) })
}

// named reports whether a server id is meant by a label or by itself.
func named(serverID, who string) bool {
	return serverID != "" && (serverID == who || formation.LabelOf(serverID) == who)
}

// replacement makes the steps of a newcomer's adding into those of a replacement.
// The group notes first whom it replaces. The old member is removed last, so that
// the group never has fewer healthy voters than before; only a replica that comes
// back empty at its old address has to wait until that is free.
func (s *membershipService) replacement(r *runningReplica, newcomer formation.Member, old string, add []changeStep) []changeStep {
	if old == "" {
		return add
	}
	sameAddress := false
	for _, m := range r.replica.Status().Members {
		sameAddress = sameAddress || m.ServerID == old && m.Address == newcomer.Address
	}
	remove := changeStep{"removing", "remove " + old, func(ctx context.Context) error {
		if !sameAddress && !r.votes(newcomer.ServerID) {
			return &raftgroup.RefusedError{Reason: newcomer.ServerID + " has no vote any more, so " + old + " keeps its own"}
		}
		if err := r.replica.Remove(ctx, old); err != nil && !errors.Is(err, raftgroup.ErrNoMember) {
			return err
		}
		return nil
	}}
	steps := append(add, remove)
	if sameAddress {
		steps = append([]changeStep{remove}, add...)
	}
	first := steps[0].run
	steps[0].run = func(ctx context.Context) error {
		if err := r.replica.NoteReplacement(ctx, newcomer.ServerID, old); err != nil {
			return err
		}
		return first(ctx)
	}
	return steps
}

// votes reports whether a server is a voter of the configuration that was applied.
func (r *runningReplica) votes(serverID string) bool {
	for _, m := range r.replica.Status().Members {
		if m.ServerID == serverID {
			return m.Role != raftgroup.RoleLearner
		}
	}
	return false
}
