package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// progressEvery is how often Add reports.
const progressEvery = 250 * time.Millisecond

// foundTimeout bounds what is asked of a newcomer before anything is begun. It takes
// half of the caller's time at most, who is to hear why nothing was begun.
const foundTimeout = 5 * time.Second

// membershipService serves Membership for the host's replica. All methods but
// List need the leader; elsewhere they answer Unavailable, naming it. An error
// that raftpb.IsNotBegun knows is of a change that had no effect and never will.
type membershipService struct {
	raftpb.UnimplementedMembershipServer
	host *Host
}

func (s *membershipService) replica() (*runningReplica, error) {
	if r := s.host.running(); r != nil {
		return r, nil
	}
	return nil, raftpb.NotBegun(errStarting)
}

// List answers the members as this replica sees them. Only the leader knows who
// is healthy.
func (s *membershipService) List(context.Context, *raftpb.ListRequest) (*raftpb.ListReply, error) {
	r, err := s.replica()
	if err != nil {
		return nil, err
	}
	st := r.replica.Status()
	reply := &raftpb.ListReply{Leader: st.Leader, Identity: r.identity.Proto(),
		Leads: st.Role == raftgroup.RoleLeader, LastIndex: st.LastIndex, Removed: r.removal.removed.Load()}
	for _, m := range st.Members {
		reply.Members = append(reply.Members, memberProto(&st, m))
	}
	return reply, nil
}

func memberProto(st *raftgroup.Status, m raftgroup.MemberStatus) *raftpb.Member {
	applied := m.MatchIndex
	if m.ServerID == st.ServerID {
		applied = st.AppliedIndex
	}
	label := m.Label
	if label == "" {
		label = formation.LabelOf(m.ServerID)
	}
	return &raftpb.Member{Label: label, ServerId: m.ServerID, Address: m.Address,
		Role: string(m.Role), AppliedIndex: applied, Healthy: m.Healthy, HealthKnown: m.HealthKnown}
}

// Remove takes a member out. That there is none is a success, which the reply
// tells apart: the reply to an earlier call may have been lost.
func (s *membershipService) Remove(ctx context.Context, req *raftpb.RemoveRequest) (*raftpb.RemoveReply, error) {
	r, err := s.replica()
	if err != nil {
		return nil, err
	}
	if err := r.needLeader(); err != nil {
		return nil, err
	}
	var found []raftgroup.MemberStatus
	for _, m := range r.replica.Status().Members {
		if formation.LabelOf(m.ServerID) == req.GetLabel() && (req.GetServerId() == "" || req.GetServerId() == m.ServerID) {
			found = append(found, m)
		}
	}
	who := req.GetServerId()
	switch len(found) {
	case 0:
		if who == "" {
			who = req.GetLabel()
		}
	case 1:
		who = found[0].ServerID
	default:
		return nil, status.Errorf(codes.FailedPrecondition, "%d members have the id %q (%s and %s): name the server id",
			len(found), req.GetLabel(), found[0].ServerID, found[1].ServerID)
	}
	err = r.replica.Remove(ctx, who)
	if errors.Is(err, raftgroup.ErrNoMember) {
		return &raftpb.RemoveReply{Absent: true}, nil
	}
	if err != nil {
		return nil, membershipError(err)
	}
	return &raftpb.RemoveReply{}, nil
}

// Transfer hands leadership over.
func (s *membershipService) Transfer(ctx context.Context, req *raftpb.TransferRequest) (*raftpb.TransferReply, error) {
	r, err := s.replica()
	if err != nil {
		return nil, err
	}
	if err := r.needLeader(); err != nil {
		return nil, err
	}
	if err := r.replica.Transfer(ctx, req.GetLabel()); err != nil {
		return nil, membershipError(err)
	}
	leader, _ := r.replica.Leader()
	return &raftpb.TransferReply{Leader: leader}, nil
}

// Add makes the empty replica at an address a member: it gives it the group's
// identity, adds it as a learner, waits until it has caught up and makes it a
// voter. Every step may be repeated, so a call that was cut off is simply made
// again.
func (s *membershipService) Add(req *raftpb.AddRequest, stream grpc.ServerStreamingServer[raftpb.Progress]) error {
	r, err := s.replica()
	if err != nil {
		return err
	}
	if err := r.needLeader(); err != nil {
		return err
	}
	ctx := stream.Context()
	// What the group has noted, and who its members are, must be up to date.
	if err := r.replica.ReadBarrier(ctx); err != nil {
		return raftpb.NotBegun(membershipError(err))
	}
	member, old, err := s.adopt(ctx, r, req)
	if err != nil {
		return raftpb.NotBegun(err)
	}
	steps := s.replacement(r, member, old, addSteps(r, member))
	for i, step := range steps {
		if err := s.report(stream, r, member, step.phase, step.run); err != nil {
			return partly(err, steps, i)
		}
	}
	return stream.Send(r.progress("done", member))
}

// A changeStep is one change of membership, under the name that its progress is
// reported with.
type changeStep struct {
	phase string
	what  string // completes "done: " and "not done: "
	run   func(context.Context) error
}

// partly says what of a change is done, if anything, and what remains, when a
// step fails. The code stays that of the step: repeating the call continues.
func partly(err error, steps []changeStep, failed int) error {
	if failed == 0 {
		return err
	}
	var done, rest []string
	for i, step := range steps {
		if i < failed {
			done = append(done, step.what)
		} else {
			rest = append(rest, step.what)
		}
	}
	s := status.Convert(err)
	return status.Errorf(s.Code(), "%s (done: %s; remains: %s; repeating the command continues)",
		s.Message(), strings.Join(done, ", "), strings.Join(rest, ", "))
}

// addSteps are the changes that make the member a voter.
func addSteps(r *runningReplica, member formation.Member) []changeStep {
	return []changeStep{
		{"adding", "add " + member.Label + " at " + member.Address + " as a learner", func(ctx context.Context) error { return r.replica.AddLearner(ctx, member) }},
		{"catching up", "give " + member.Label + " its vote", func(ctx context.Context) error { return r.replica.Promote(ctx, member.ServerID) }},
	}
}

// adopt finds out who answers at the address, and whom it replaces, and gives it
// the identity of the group if it has none.
func (s *membershipService) adopt(ctx context.Context, r *runningReplica, req *raftpb.AddRequest) (member formation.Member, old string, err error) {
	refuse := func(format string, args ...any) (formation.Member, string, error) {
		return formation.Member{}, "", status.Errorf(codes.FailedPrecondition, "replica at %s %s", req.GetAddress(), fmt.Sprintf(format, args...))
	}
	timeout := foundTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := s.host.Dial(req.GetAddress())
	if err != nil {
		return formation.Member{}, "", status.Error(codes.Unavailable, err.Error())
	}
	client := raftpb.NewFormationClient(conn)
	hello, err := s.hello(ctx, r, client)
	if err != nil {
		silent := fmt.Sprintf("replica at %s does not answer: %s", req.GetAddress(), status.Convert(err).Message())
		if who := req.GetReplaces(); who != "" && !r.knows(who) {
			// Both names seem to be wrong; to wait for one of them would help nobody.
			return formation.Member{}, "", status.Errorf(codes.NotFound, "no member has the id %q (the members are %s), and the %s",
				who, strings.Join(labels(r.replica.Status().Members), ", "), silent)
		}
		return formation.Member{}, "", status.Error(codes.Unavailable, silent)
	}
	member = formation.Member{Label: hello.GetLabel(), ServerID: hello.GetServerId(), Address: req.GetAddress()}
	if formation.LabelOf(member.ServerID) != member.Label {
		return refuse("says that it is server %q", member.ServerID)
	}
	if own := hello.GetAddress(); own != member.Address {
		return refuse("says that others reach it at %s: name it by that address, or start it with --advertise %s", own, member.Address)
	}
	if gid := shardcfg.GroupID(hello.GetGroup()); gid != r.identity.Group {
		return refuse("belongs to %s, this is %s", formation.GroupNoun(gid), formation.GroupNoun(r.identity.Group))
	}
	if who := req.GetReplaces(); who != "" {
		if old, err = r.replacedBy(member, who); err != nil {
			return formation.Member{}, "", err
		}
	}
	for _, m := range r.replica.Status().Members {
		if formation.LabelOf(m.ServerID) == member.Label && m.ServerID != member.ServerID && m.ServerID != old {
			return refuse("has the id %q, which a member has: replace that member, or choose another id", member.Label)
		}
	}
	if hello.GetFormed() {
		theirs, err := formation.FromProto(hello.GetIdentity(), member.Label, member.ServerID)
		if err != nil {
			return refuse("has a bad identity: %v", err)
		}
		if theirs.Cluster != r.identity.Cluster || theirs.Incarnation != r.identity.Incarnation {
			return refuse("already belongs to incarnation %s of cluster %s", theirs.Incarnation, theirs.Cluster)
		}
		return member, old, nil
	}
	id := r.identity
	id.Founders = nil
	_, err = client.Found(ctx, &raftpb.FoundRequest{
		Identity: id.Proto(), Label: member.Label, ServerId: member.ServerID, Proposer: r.identity.Label,
	})
	if err != nil {
		return refuse("refuses to become a member: %s", status.Convert(err).Message())
	}
	return member, old, nil
}

// labels are the labels of members.
func labels(members []raftgroup.MemberStatus) (list []string) {
	for _, m := range members {
		list = append(list, formation.LabelOf(m.ServerID))
	}
	return list
}

// hello asks a newcomer who it is, until it answers: it may just be starting.
func (s *membershipService) hello(ctx context.Context, r *runningReplica, client raftpb.FormationClient) (*raftpb.HelloReply, error) {
	for {
		reply, err := client.Hello(ctx, &raftpb.HelloRequest{Group: uint64(r.identity.Group), Label: r.identity.Label}, grpc.WaitForReady(true))
		if status.Code(err) != codes.Unavailable {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(progressEvery):
		}
	}
}

// report runs one step and sends its progress until it ends.
func (s *membershipService) report(stream grpc.ServerStreamingServer[raftpb.Progress], r *runningReplica, m formation.Member, phase string, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- run(ctx) }()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	var sendErr error
	for {
		if sendErr == nil {
			if sendErr = stream.Send(r.progress(phase, m)); sendErr != nil {
				cancel()
			}
		}
		select {
		case err := <-result:
			if err != nil {
				return membershipError(err)
			}
			return sendErr
		case <-s.host.draining:
			cancel()
			<-result
			return status.Error(codes.Unavailable, "the replica is shutting down")
		case <-ticker.C:
		}
	}
}

func (r *runningReplica) progress(phase string, member formation.Member) *raftpb.Progress {
	st := r.replica.Status()
	p := &raftpb.Progress{Phase: phase, TargetIndex: st.LastIndex,
		Member: &raftpb.Member{Label: member.Label, ServerId: member.ServerID, Address: member.Address}}
	for _, m := range st.Members {
		if m.ServerID == member.ServerID {
			p.Member, p.AppliedIndex = memberProto(&st, m), m.MatchIndex
		}
	}
	return p
}

// needLeader says early, and before anybody else is called, that a change needs
// the leader.
func (r *runningReplica) needLeader() error {
	leader, self := r.replica.Leader()
	if self {
		return nil
	}
	return raftpb.NotBegun(membershipError(&raftgroup.NotLeaderError{Leader: leader}))
}

// membershipError gives an error of the replica its gRPC code: FailedPrecondition
// for what would be refused again, Unavailable for what may be tried again.
func membershipError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, raftgroup.ErrNoMember):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, raftgroup.ErrRefused):
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}
