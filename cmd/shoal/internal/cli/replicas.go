package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) replicasCommand() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use:   "replicas GID|controller [add ADDR | remove ID | replace ID ADDR]",
		Short: "Show or change the replicas of a group",
		Long: `Shows the replicas of a group, or of the controllers, or changes them.

A replica that is to be added was started empty, without --peers. It becomes a
learner, which has no vote, copies what the group has, and then gets its vote.
"replace" adds one, and removes the other once the new one votes; both may have
the same id. Every change may be repeated; one that was cut off is continued.

Without --wait, adding takes as long as --timeout at most: a replica that has not
caught up by then stays a learner until the command is repeated. A change that
could cost the group its quorum is refused with exit code 5.`,
		Example: "  shoal replicas 1\n  shoal replicas 1 add 127.0.0.1:7420 --wait\n  shoal replicas controller replace c2 127.0.0.1:7421 --wait\n  shoal replicas 1 remove g1b",
		Args:    arguments(1, 4),
	}
	w.flags(cmd.Flags(), "the change is complete, however long it takes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := parseMembership(args)
		if err != nil {
			return err
		}
		return a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			m := &membership{a: a, c: c, group: change.group}
			if err := m.find(ctx); err != nil {
				return err
			}
			return m.run(ctx, change, &w)
		})
	}
	return cmd
}

// membershipChange is what the arguments of the command say.
type membershipChange struct {
	group   shardcfg.GroupID // 0: the controllers
	verb    string           // empty: show
	id      string           // to remove
	address string           // to add
}

func parseMembership(args []string) (membershipChange, error) {
	m := membershipChange{}
	if args[0] != "controller" {
		gid, err := parseGID(args[0])
		if err != nil {
			return m, usagef("%w, or \"controller\"", err)
		}
		m.group = gid
	}
	if len(args) == 1 {
		return m, nil
	}
	m.verb = args[1]
	operands := args[2:]
	want := map[string]int{"add": 1, "remove": 1, "replace": 2}
	n, known := want[m.verb]
	if !known {
		return m, usagef("%q is not add, remove or replace", m.verb)
	}
	if len(operands) != n {
		return m, usagef("%s takes %d arguments, not %d: add ADDR, remove ID, replace ID ADDR", m.verb, n, len(operands))
	}
	if m.verb != "add" {
		m.id = operands[0]
	}
	if m.verb != "remove" {
		m.address = operands[len(operands)-1]
		if err := checkAddress(m.address); err != nil {
			return m, usageError{err}
		}
	}
	return m, nil
}

// membership talks to the replicas of one group.
type membership struct {
	a           *app
	c           *clerk.Clerk
	group       shardcfg.GroupID
	incarnation shardcfg.Incarnation // zero: the controllers
	addresses   []string             // where replicas of the group may be
}

// find learns the group's addresses, from the configuration and then from the
// group itself, whose members may be other ones by now.
func (m *membership) find(ctx context.Context) error {
	m.addresses = slices.Clone(m.a.controllers)
	if m.group != 0 {
		config, err := m.c.Admin().Latest(ctx)
		if err != nil {
			return err
		}
		g, ok := config.Groups[m.group]
		if !ok {
			return codedError{fmt.Errorf("not done: group %d is not in the configuration", m.group), ExitCondition}
		}
		m.addresses, m.incarnation = slices.Clone(g.Replicas), g.Incarnation
	}
	list, err := m.list(ctx)
	if err != nil {
		return err
	}
	for _, member := range list.GetMembers() {
		m.addresses = append(m.addresses, member.GetAddress())
	}
	// The leader is asked first.
	if leader := list.GetLeader(); leader != "" {
		m.addresses = slices.Insert(m.addresses, 0, leader)
	}
	m.addresses = unique(m.addresses)
	return nil
}

// list asks until the leader has answered, or else anyone.
func (m *membership) list(ctx context.Context) (*raftpb.ListReply, error) {
	var found *raftpb.ListReply
	err := m.try(ctx, func(ctx context.Context, address string, client raftpb.MembershipClient) error {
		reply, err := client.List(ctx, &raftpb.ListRequest{})
		if err != nil {
			return err
		}
		if found == nil || reply.GetLeader() == address {
			found = reply
		}
		if reply.GetLeader() != address {
			return status.Error(codes.Unavailable, address+" does not lead")
		}
		return nil
	})
	if found != nil {
		return found, nil
	}
	return nil, err
}

// try asks one address after the other until one answers neither Unavailable nor
// that it belongs elsewhere: an empty replica may have taken a dead one's
// address.
func (m *membership) try(ctx context.Context, ask func(context.Context, string, raftpb.MembershipClient) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.a.timeout)
		defer cancel()
	}
	return m.each(ctx, ask)
}

// each is try without a bound of its own.
func (m *membership) each(ctx context.Context, ask func(context.Context, string, raftpb.MembershipClient) error) error {
	ctx = fence.WithTarget(fence.WithCluster(ctx, m.c.Cluster()), m.incarnation)
	var failures []error
	for _, address := range m.addresses {
		conn, err := m.c.Conn(address)
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
	return codedError{fmt.Errorf("no replica of the group could do it: %w", errors.Join(failures...)), ExitUnavailable}
}

func (m *membership) run(ctx context.Context, change membershipChange, w *waiting) error {
	var err error
	switch change.verb {
	case "":
		return m.print(ctx)
	case "remove":
		err = m.try(ctx, func(ctx context.Context, _ string, client raftpb.MembershipClient) error {
			_, err := client.Remove(ctx, &raftpb.RemoveRequest{Label: change.id})
			return err
		})
	default:
		err = m.add(ctx, change, w)
	}
	if err != nil {
		return membershipFailure(change.verb, err)
	}
	if err := m.find(ctx); err != nil {
		return err
	}
	return m.print(ctx)
}

// add adds a replica, and shows how far it is.
func (m *membership) add(ctx context.Context, change membershipChange, w *waiting) error {
	var latest shared[output.State]
	progress := output.StartProgress(m.a.env.Stderr, change.verb, latest.get)
	defer progress.Stop()
	add := func(ctx context.Context, _ string, client raftpb.MembershipClient) error {
		stream, err := client.Add(ctx, &raftpb.AddRequest{Address: change.address, Replaces: change.id})
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
			latest.set(output.State{Done: min(p.GetAppliedIndex(), p.GetTargetIndex()), Total: p.GetTargetIndex(), Text: p.GetPhase()})
		}
	}
	if !w.wait {
		return m.try(ctx, add)
	}
	ctx, cancel := w.context(ctx)
	defer cancel()
	return m.each(ctx, add)
}

// membershipFailure says what is known of a change that failed: what the group
// refuses was not done; what was cut off may be half done, and is repeatable.
func membershipFailure(verb string, err error) error {
	code := exitCode(err)
	message := strings.TrimPrefix(err.Error(), "rpc error: ")
	if s, ok := status.FromError(err); ok {
		message = s.Message()
	}
	switch code {
	case ExitUsage, ExitCondition, ExitRefused:
		return codedError{fmt.Errorf("%s: not done: %s", verb, message), code}
	}
	return codedError{fmt.Errorf("%s: outcome unknown: %s; repeat the command (with --wait if it takes long), or look with: shoal replicas", verb, message), code}
}

// print shows the members, as the leader sees them where it is known.
func (m *membership) print(ctx context.Context) error {
	list, err := m.list(ctx)
	if err != nil {
		return err
	}
	result := struct {
		Group       string          `json:"group"`
		Leader      string          `json:"leader"`
		Incarnation string          `json:"incarnation"`
		Replicas    []replicaResult `json:"replicas"`
	}{Group: groupName(m.group), Leader: list.GetLeader(), Replicas: []replicaResult{}}
	if inc, ok := shardcfg.To128[shardcfg.Incarnation](list.GetIdentity().GetIncarnation()); ok {
		result.Incarnation = inc.String()
	}
	var rows [][]string
	for _, member := range list.GetMembers() {
		r := replicaResult{member.GetLabel(), member.GetAddress(), member.GetRole(), member.GetAppliedIndex(), member.GetHealthy(), ""}
		result.Replicas = append(result.Replicas, r)
		health := "healthy"
		if !r.Healthy {
			health = "DOWN"
		}
		rows = append(rows, []string{r.ID, r.Address, r.Role, output.Count(r.AppliedIndex), health})
	}
	if m.a.out.IsJSON() {
		return m.a.out.Object(result)
	}
	return m.a.out.Rows([]string{"ID", "ADDRESS", "ROLE", "APPLIED", "HEALTH"}, rows)
}

// groupName is what the command line calls a group.
func groupName(gid shardcfg.GroupID) string {
	if gid == 0 {
		return "controller"
	}
	return gidText(gid)
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
