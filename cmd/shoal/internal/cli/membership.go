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
// group which one leads.
const membershipRest = 250 * time.Millisecond

// membership talks to the replicas of one group.
type membership struct {
	dial        func(address string) (grpc.ClientConnInterface, error)
	cluster     shardcfg.ClusterID
	group       shardcfg.GroupID     // 0: the controllers
	incarnation shardcfg.Incarnation // zero: the controllers, or not known
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
		m.group = group
		if err := m.place(ctx, c, a.seeds); err != nil {
			return nil, err
		}
	}
	if list, err := m.list(ctx); err == nil {
		m.learn(list)
	}
	return m, nil
}

// place finds out where a group's replicas may be: from the controllers, or while
// none answers from the placement that was kept, or else among the seeds. Whoever
// answers says which group it belongs to.
func (m *membership) place(ctx context.Context, c *clerk.Clerk, seeds []string) error {
	config, err := c.Admin().Latest(ctx)
	if err != nil {
		if exitCode(err) != ExitUnavailable {
			return err
		}
		if config = c.Placement(); config == nil || len(config.Groups[m.group].Replicas) == 0 {
			if len(seeds) == 0 {
				return err
			}
			m.addresses = slices.Clone(seeds)
			return nil
		}
	}
	g, ok := config.Groups[m.group]
	if !ok {
		return codedError{fmt.Errorf("not done: group %d is not in the configuration", m.group), ExitCondition}
	}
	m.addresses, m.incarnation = slices.Clone(g.Replicas), g.Incarnation
	return nil
}

// learn takes in where the members are, the leader first.
func (m *membership) learn(list *raftpb.ListReply) {
	for _, member := range list.GetMembers() {
		m.addresses = append(m.addresses, member.GetAddress())
	}
	if leader := list.GetLeader(); leader != "" {
		m.addresses = slices.Insert(m.addresses, 0, leader)
	}
	m.addresses = unique(m.addresses)
}

// A census is what the replicas of a group answered when all were asked at once.
type census struct {
	leader  string            // the address of the replica that leads; empty: none said so
	list    *raftpb.ListReply // the leader's, or else anyone's; nil: nobody answered
	silence []error           // what stands against each address that does not lead
}

// ask asks all addresses at once, until the leader has answered or all have, for
// the timeout at most: those that are dead take no longer for being many.
func (m *membership) ask(ctx context.Context) census {
	ctx, cancel := context.WithTimeout(fence.WithTarget(fence.WithCluster(ctx, m.cluster), m.incarnation), m.timeout)
	defer cancel()
	type answer struct {
		address string
		list    *raftpb.ListReply
		err     error
	}
	answers := make(chan answer, len(m.addresses))
	for _, address := range m.addresses {
		go func() {
			conn, err := m.dial(address)
			if err != nil {
				answers <- answer{address, nil, err}
				return
			}
			list, err := raftpb.NewMembershipClient(conn).List(ctx, &raftpb.ListRequest{})
			answers <- answer{address, list, err}
		}()
	}
	var found census
	for range m.addresses {
		a := <-answers
		switch {
		case a.err != nil:
			found.silence = append(found.silence, fmt.Errorf("%s: %s", a.address, callProblem(a.err)))
		case a.list.GetIdentity().GetGroup() != uint64(m.group):
			found.silence = append(found.silence, fmt.Errorf("%s: belongs to another group", a.address))
		case a.list.GetLeads():
			found.leader, found.list = a.address, a.list
			return found
		default:
			why := "this replica does not lead, and knows no leader"
			if a.list.GetLeader() != "" {
				why = "this replica does not lead; the leader is " + a.list.GetLeader()
			}
			found.silence = append(found.silence, fmt.Errorf("%s: %s", a.address, why))
			if found.list == nil || found.list.GetLeader() == "" {
				found.list = a.list
			}
		}
	}
	return found
}

// list returns the members as the leader sees them, or else as anyone does.
// Whoever answers may name replicas that were not asked, which then are.
func (m *membership) list(ctx context.Context) (*raftpb.ListReply, error) {
	found := m.ask(ctx)
	if before := len(m.addresses); found.leader == "" && found.list != nil {
		if m.learn(found.list); len(m.addresses) > before {
			found = m.ask(ctx)
		}
	}
	if found.list == nil {
		return nil, codedError{fmt.Errorf("no replica of the group answers: %w", errors.Join(found.silence...)), ExitUnavailable}
	}
	return found.list, nil
}

// A membershipCall asks the leader. It must be one that may be repeated.
type membershipCall func(ctx context.Context, list *raftpb.ListReply, client raftpb.MembershipClient) error

// change looks for the leader, round after round, until it did the change or ctx
// ends: a group whose leader has just died elects another within a second, and
// until then names the dead one, at whose address an empty replica may answer.
// waiting is told why it goes on. Its error is a *membershipError.
func (m *membership) change(ctx context.Context, waiting func(why error), ask membershipCall) error {
	failed := &membershipError{}
	for {
		found := m.ask(ctx)
		err := errors.Join(found.silence...)
		if found.list != nil {
			m.learn(found.list)
		}
		if found.leader != "" {
			if err = m.at(ctx, found, ask); err == nil {
				return nil
			}
			if !failed.note(ctx, err) {
				return failed
			}
			err = fmt.Errorf("%s: %s", found.leader, callProblem(err))
		}
		waiting(err)
		select {
		case <-ctx.Done():
			failed.cause, failed.ended = fmt.Errorf("no replica of the group could do it: %w", err), ctx.Err()
			return failed
		case <-time.After(membershipRest):
		}
	}
}

// at calls the leader that was found.
func (m *membership) at(ctx context.Context, found census, ask membershipCall) error {
	conn, err := m.dial(found.leader)
	if err != nil {
		return raftpb.NotBegun(status.Error(codes.Unavailable, err.Error()))
	}
	ctx = fence.WithTarget(fence.WithCluster(ctx, m.cluster), m.incarnation)
	return ask(ctx, found.list, raftpb.NewMembershipClient(conn))
}

// add adds the replica at an address and, if replaces is the id of a member,
// removes that one once the new one votes. progress shows how far it is.
func (m *membership) add(ctx context.Context, address, replaces string, progress func(output.State)) error {
	waiting := func(why error) { progress(notYet(why)) }
	var phases []string
	var state output.State
	err := m.change(ctx, waiting, func(ctx context.Context, _ *raftpb.ListReply, client raftpb.MembershipClient) error {
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
			if phases = append(phases, p.GetPhase()); len(phases) > 1 {
				phases = unique(phases)
			}
			state = output.State{Done: min(p.GetAppliedIndex(), p.GetTargetIndex()), Total: p.GetTargetIndex(), Text: p.GetPhase()}
			progress(state)
		}
	})
	if failed := (*membershipError)(nil); errors.As(err, &failed) {
		failed.phases, failed.state = len(phases), state
	}
	return err
}

// remove removes the member of an id. Once it knows which replica that is, it
// asks for that one, so that repeating a call that was cut off after it took
// effect is no failure. absent: it was no member, and nothing was done.
func (m *membership) remove(ctx context.Context, id string, progress func(output.State)) (absent bool, err error) {
	waiting := func(why error) { progress(notYet(why)) }
	server := ""
	err = m.change(ctx, waiting, func(ctx context.Context, list *raftpb.ListReply, client raftpb.MembershipClient) error {
		if server == "" {
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
