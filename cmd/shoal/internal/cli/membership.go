package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// membershipRest is the pause between two rounds of asking the replicas of a
// group for its leader.
const membershipRest = 250 * time.Millisecond

// membership talks to the replicas of one group.
type membership struct {
	dial        func(address string) (grpc.ClientConnInterface, error)
	cluster     shardcfg.ClusterID
	incarnation shardcfg.Incarnation // zero: the controllers
	addresses   []string             // where replicas of the group may be
	timeout     time.Duration        // of what is not asked to wait
}

// findMembership learns a group's addresses, from the configuration and then
// from the group itself, whose members may be other ones by now.
func (a *app) findMembership(ctx context.Context, c *clerk.Clerk, group shardcfg.GroupID) (*membership, error) {
	m := &membership{
		dial:    func(address string) (grpc.ClientConnInterface, error) { return c.Conn(address) },
		cluster: c.Cluster(), addresses: slices.Clone(a.controllers), timeout: a.timeout,
	}
	if group != 0 {
		config, err := c.Admin().Latest(ctx)
		if err != nil {
			return nil, err
		}
		g, ok := config.Groups[group]
		if !ok {
			return nil, codedError{fmt.Errorf("not done: group %d is not in the configuration", group), ExitCondition}
		}
		m.addresses, m.incarnation = slices.Clone(g.Replicas), g.Incarnation
	}
	list, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	m.learn(list)
	return m, nil
}

// learn takes in where the members are. The leader is asked first.
func (m *membership) learn(list *raftpb.ListReply) {
	for _, member := range list.GetMembers() {
		m.addresses = append(m.addresses, member.GetAddress())
	}
	if leader := list.GetLeader(); leader != "" {
		m.addresses = slices.Insert(m.addresses, 0, leader)
	}
	m.addresses = unique(m.addresses)
}

// list asks until the leader has answered, or else anyone.
func (m *membership) list(ctx context.Context) (*raftpb.ListReply, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.timeout)
		defer cancel()
	}
	var found *raftpb.ListReply
	err := m.each(ctx, func(ctx context.Context, address string, client raftpb.MembershipClient) error {
		reply, err := client.List(ctx, &raftpb.ListRequest{})
		if err != nil {
			return err
		}
		if found == nil || reply.GetLeader() == address {
			found = reply
		}
		if reply.GetLeader() != address {
			return status.Error(codes.Unavailable, "does not lead")
		}
		return nil
	})
	if found != nil {
		return found, nil
	}
	return nil, err
}

// A membershipCall asks one replica. It must be one that may be repeated.
type membershipCall func(ctx context.Context, address string, client raftpb.MembershipClient) error

// each asks one address after the other until one answers neither Unavailable
// nor that it belongs elsewhere: an empty replica may have taken a dead one's
// address.
func (m *membership) each(ctx context.Context, ask membershipCall) error {
	ctx = fence.WithTarget(fence.WithCluster(ctx, m.cluster), m.incarnation)
	var failures []error
	for _, address := range m.addresses {
		conn, err := m.dial(address)
		if err != nil {
			return err
		}
		err = ask(ctx, address, raftpb.NewMembershipClient(conn))
		if _, elsewhere := fence.Refused(err); !elsewhere && status.Code(err) != codes.Unavailable {
			return err
		}
		failures = append(failures, fmt.Errorf("%s: %s", address, status.Convert(err).Message()))
		if ctx.Err() != nil {
			break
		}
	}
	return nobodyError{errors.Join(failures...)}
}

// A nobodyError says why none of a group's replicas answered a call.
type nobodyError struct{ error }

func (e nobodyError) Unwrap() error { return e.error }

// change asks all replicas, round after round, until one of them could do it or
// ctx ends: a group whose leader has just died elects another within a second,
// and until then names the dead one. waiting is told why it goes on.
func (m *membership) change(ctx context.Context, waiting func(why error), ask membershipCall) error {
	for {
		err := m.each(ctx, ask)
		nobody := nobodyError{}
		if !errors.As(err, &nobody) {
			return err
		}
		waiting(err)
		select {
		case <-ctx.Done():
			return codedError{fmt.Errorf("no replica of the group could do it: %w", err), ExitUnavailable}
		case <-time.After(membershipRest):
		}
		if list, err := m.list(ctx); err == nil {
			m.learn(list)
		}
	}
}

// add adds the replica at an address and, if replaces is the id of a member,
// removes that one once the new one votes. progress shows how far it is.
func (m *membership) add(ctx context.Context, address, replaces string, progress func(output.State)) error {
	waiting := func(why error) { progress(notYet(why)) }
	return m.change(ctx, waiting, func(ctx context.Context, _ string, client raftpb.MembershipClient) error {
		stream, err := client.Add(ctx, &raftpb.AddRequest{Address: address, Replaces: replaces})
		if err != nil {
			return err
		}
		for {
			p, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			progress(output.State{Done: min(p.GetAppliedIndex(), p.GetTargetIndex()), Total: p.GetTargetIndex(), Text: p.GetPhase()})
		}
	})
}

// remove removes the member of an id. Once it knows which replica that is, it
// asks for that one, so that repeating a call that was cut off after it took
// effect is no failure. absent: it was no member, and nothing was done.
func (m *membership) remove(ctx context.Context, id string, progress func(output.State)) (absent bool, err error) {
	waiting := func(why error) { progress(notYet(why)) }
	server := ""
	err = m.change(ctx, waiting, func(ctx context.Context, address string, client raftpb.MembershipClient) error {
		if server == "" {
			list, err := client.List(ctx, &raftpb.ListRequest{})
			if err != nil {
				return err
			}
			if list.GetLeader() != address {
				return status.Error(codes.Unavailable, "does not lead")
			}
			server = onlyMember(list, id)
		}
		asked := server != ""
		reply, err := client.Remove(ctx, &raftpb.RemoveRequest{Label: id, ServerId: server})
		absent = reply.GetAbsent() && !asked
		return err
	})
	return absent, err
}

// onlyMember returns the server id of the only member of an id that a leader
// lists; empty if there is none, or several, which the leader then says.
func onlyMember(list *raftpb.ListReply, id string) string {
	server := ""
	for _, member := range list.GetMembers() {
		switch {
		case member.GetLabel() != id:
		case server != "":
			return ""
		default:
			server = member.GetServerId()
		}
	}
	return server
}

// notYet says on a progress line why a change has not begun.
func notYet(why error) output.State {
	return output.State{Text: "nobody could do it yet: " + strings.ReplaceAll(why.Error(), "\n", "; ")}
}

// unique keeps the first of equal strings.
func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
