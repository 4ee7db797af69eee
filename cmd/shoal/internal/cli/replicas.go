package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
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
the same id. Every change may be repeated; one that was cut off is continued, and
to remove what is no member is a success, which is said on stderr. The address of
a member is not changed in place: replace it.

Without --wait, adding takes as long as --timeout at most: a replica that has not
caught up by then stays a learner until the command is repeated. A change that
could cost the group its quorum is refused with exit code 5, by asking each voter
that would be left, and the refusal names those that do not answer.`,
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
			m, err := a.findMembership(ctx, c, change.group)
			if err != nil {
				return err
			}
			if change.verb == "" {
				return a.printMembers(ctx, m, change.group)
			}
			absent, err := a.changeMembership(ctx, m, change, &w)
			if err != nil {
				return membershipFailure(change.verb, err)
			}
			if absent {
				fmt.Fprintf(a.env.Stderr, "shoal: remove: no replica %q is a member of the group, nothing was done\n", change.id)
			}
			return a.printMembers(ctx, m, change.group)
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

// changeMembership makes a change and shows how far it is. absent: what was to be
// removed is no member, and nothing was done.
func (a *app) changeMembership(ctx context.Context, m *membership, change membershipChange, w *waiting) (absent bool, err error) {
	var latest shared[output.State]
	progress := output.StartProgress(a.env.Stderr, change.verb, latest.get)
	defer progress.Stop()
	bound := *w
	if !w.wait {
		bound.timeout = a.timeout
	}
	ctx, cancel := bound.context(ctx)
	defer cancel()
	if change.verb == "remove" {
		return m.remove(ctx, change.id, latest.set)
	}
	return false, m.add(ctx, change.address, change.id, latest.set)
}

// membershipFailure names the command that failed, and gives it its exit code.
func membershipFailure(verb string, err error) error {
	failed := (*membershipError)(nil)
	if !errors.As(err, &failed) {
		return err
	}
	failed.verb = verb
	return codedError{failed, failed.code()}
}

// A memberResult is one replica as `shoal replicas` shows it.
type memberResult struct {
	ID           string  `json:"id"`
	ServerID     string  `json:"server_id"` // of its disk; tells apart members of one id
	Address      string  `json:"address"`
	Role         string  `json:"role"`
	AppliedIndex *uint64 `json:"applied_index"` // the entry up to which it is known to store the log; null: not known
	Lag          *uint64 `json:"lag"`           // entries that it lacks of the leader's log; null: not known
	Healthy      bool    `json:"healthy"`
	Health       string  `json:"health"` // healthy, down or unknown
}

// memberOf describes a member as the replica that lists it knows it: only the
// leader knows how far the others are, and how they are. What a silent one stored
// once says nothing of what is left of it: its disk may have been wiped.
func memberOf(list *raftpb.ListReply, m *raftpb.Member) memberResult {
	r := memberResult{ID: m.GetLabel(), ServerID: m.GetServerId(), Address: m.GetAddress(), Role: m.GetRole(), Healthy: m.GetHealthy()}
	switch {
	case r.Healthy:
		r.Health = "healthy"
	case m.GetHealthKnown():
		r.Health = "down"
	default:
		r.Health = "unknown"
	}
	if stored := m.GetAppliedIndex(); r.Healthy && stored > 0 {
		r.AppliedIndex = &stored
	}
	if list.GetLeads() && r.AppliedIndex != nil {
		lag := uint64(0)
		if r.Role != roleLeader { // its log lacks nothing, though it may have yet to apply some
			lag = list.GetLastIndex() - min(*r.AppliedIndex, list.GetLastIndex())
		}
		r.Lag = &lag
	}
	return r
}

func (r memberResult) row() []string {
	applied, lag, health := "-", "-", r.Health
	if r.AppliedIndex != nil {
		applied = output.Count(*r.AppliedIndex)
	}
	if r.Lag != nil {
		lag = output.Count(*r.Lag)
	}
	if health == "down" {
		health = "DOWN"
	}
	return []string{r.ID, r.Address, r.Role, applied, lag, health}
}

// printMembers shows the members, as the leader sees them where one answers.
func (a *app) printMembers(ctx context.Context, m *membership, group shardcfg.GroupID) error {
	list, err := m.list(ctx)
	if err != nil {
		return err
	}
	result := struct {
		Group       string         `json:"group"`
		Leader      string         `json:"leader"`
		Incarnation string         `json:"incarnation"`
		Replicas    []memberResult `json:"replicas"`
	}{Group: groupName(group), Leader: list.GetLeader(), Replicas: []memberResult{}}
	if inc, ok := shardcfg.To128[shardcfg.Incarnation](list.GetIdentity().GetIncarnation()); ok {
		result.Incarnation = inc.String()
	}
	var rows [][]string
	for _, member := range list.GetMembers() {
		r := memberOf(list, member)
		result.Replicas = append(result.Replicas, r)
		rows = append(rows, r.row())
	}
	if !list.GetLeads() {
		fmt.Fprintln(a.env.Stderr, "shoal: replicas: no leader answers; what only it knows is shown as unknown")
	}
	if a.out.IsJSON() {
		return a.out.Object(result)
	}
	return a.out.Rows([]string{"ID", "ADDRESS", "ROLE", "APPLIED", "LAG", "HEALTH"}, rows)
}

// groupName is what the command line calls a group.
func groupName(gid shardcfg.GroupID) string {
	if gid == 0 {
		return "controller"
	}
	return gidText(gid)
}
