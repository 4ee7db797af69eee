package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const watchInterval = time.Second

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show controllers, groups, replicas and shards on their way",
		Long: `Asks every controller and every replica, and shows what they say: which shards
nobody serves, and why; who leads, who does not answer, how many shards, keys and
bytes each group holds, and which shards are on their way. With --watch, again and
again until interrupted. "shoal health" says the first part to scripts.

It needs no controller: what --placement kept, or replicas named by --seeds, one of
every group, are enough. What nobody who answers knows is shown as "-" (null in
JSON).`,
		Example: "  shoal status\n  shoal status --watch\n  shoal status -o json | jq .shards",
		Args:    arguments(0, 0),
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it anew every second, until interrupted")
	cmd.RunE = a.clerkCommand(func(ctx context.Context, c *clerk.Clerk, _ []string) error {
		if !watch {
			return a.showStatus(ctx, c)
		}
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			if err := a.clearScreen(); err != nil {
				return err
			}
			// A cluster that can't be asked at the moment is what one watches for.
			if err := a.showStatus(ctx, c); err != nil && ctx.Err() == nil {
				a.note("shoal: %v", err)
			}
			if err := a.out.Flush(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return cmd
}

// clearScreen puts the next table where the last one was, on a terminal.
func (a *app) clearScreen() error {
	if a.out.IsJSON() || !output.IsTerminal(a.env.Stdout) {
		return nil
	}
	return a.out.Raw([]byte("\x1b[H\x1b[2J"))
}

func (a *app) showStatus(ctx context.Context, c *clerk.Clerk) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	s, err := c.Admin().Status(ctx)
	if err != nil {
		return err
	}
	if s.ConfigErr != nil && s.Config != nil {
		a.note("shoal: config %d may be old: %v", s.Config.Num, s.ConfigErr)
	}
	if a.out.IsJSON() {
		return a.out.Object(statusJSON(s))
	}
	return a.printStatus(s)
}

// statusResult is the whole cluster as JSON.
type statusResult struct {
	Config      shardcfg.ConfigNum `json:"config"`
	Controllers []controllerResult `json:"controllers"`
	Groups      []groupResult      `json:"groups"`
	// Unjoined are groups that run, and that the configuration does not list.
	Unjoined []unjoinedResult `json:"unjoined"`
	Shards   struct {
		Total       int `json:"total"`
		Settled     int `json:"settled"`
		Moving      int `json:"moving"`
		Unavailable int `json:"unavailable"`
	} `json:"shards"`
	Handoffs []handoffResult `json:"handoffs"`
	State    string          `json:"state"` // healthy, degraded or unavailable
	Reasons  []string        `json:"reasons"`
	// Availability lists what nobody serves; empty: every shard is served.
	Availability []outageResult `json:"availability"`
}

type outageResult struct {
	GID    shardcfg.GroupID `json:"gid"` // that it is up to; 0: none
	Shards int              `json:"shards"`
	Ranges []rangeResult    `json:"ranges"`
	Reason string           `json:"reason"`
}

type rangeResult struct {
	First shardcfg.ShardID `json:"first"`
	Last  shardcfg.ShardID `json:"last"`
}

type unjoinedResult struct {
	GID      shardcfg.GroupID `json:"gid"`
	Replicas []replicaResult  `json:"replicas"`
}

type controllerResult struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Leader  bool   `json:"leader"`
	Healthy bool   `json:"healthy"`
	Problem string `json:"problem,omitempty"`
}

type groupResult struct {
	GID      shardcfg.GroupID   `json:"gid"`
	State    string             `json:"state"`
	Replicas []replicaResult    `json:"replicas"`
	Shards   int                `json:"shards"`
	Keys     uint64             `json:"keys"`
	Bytes    uint64             `json:"bytes"`
	Adopted  shardcfg.ConfigNum `json:"adopted"`
}

type replicaResult struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Role    string `json:"role"`
	// AppliedIndex is null where nobody who answers knows it.
	AppliedIndex *uint64 `json:"applied_index"`
	Healthy      bool    `json:"healthy"`
	Problem      string  `json:"problem,omitempty"`
}

type handoffResult struct {
	Shard       shardcfg.ShardID `json:"shard"`
	From        shardcfg.GroupID `json:"from"`
	To          shardcfg.GroupID `json:"to"`
	Phase       string           `json:"phase"`
	CopiedBytes uint64           `json:"copied_bytes"`
	TotalBytes  uint64           `json:"total_bytes"`
	PauseMS     float64          `json:"pause_ms"`
	Waiting     string           `json:"waiting,omitempty"`
}

func statusJSON(s *clerk.Status) statusResult {
	r := statusResult{Controllers: []controllerResult{}, Groups: []groupResult{}, Unjoined: []unjoinedResult{}, Handoffs: []handoffResult{}}
	if s.Config != nil {
		r.Config = s.Config.Num
	}
	for _, c := range s.Controllers {
		r.Controllers = append(r.Controllers, controllerResult{c.ID, c.Address, c.Role == roleLeader, c.Healthy, c.Problem})
	}
	for _, g := range s.Groups {
		r.Groups = append(r.Groups, groupResult{
			GID: g.GID, State: g.State.String(), Replicas: replicasJSON(g.Replicas), Shards: g.Shards, Keys: g.Keys, Bytes: g.Bytes, Adopted: g.Adopted,
		})
	}
	for _, g := range s.Unjoined {
		r.Unjoined = append(r.Unjoined, unjoinedResult{g.GID, replicasJSON(g.Replicas)})
	}
	r.Shards.Total, r.Shards.Settled, r.Shards.Moving, r.Shards.Unavailable = s.Total, s.Settled, s.Moving, s.Unavailable
	health := s.Health()
	r.State, r.Reasons, r.Availability = health.State, reasonsJSON(health.Reasons), outagesJSON(health.Outages)
	for _, h := range s.Handoffs {
		r.Handoffs = append(r.Handoffs, handoffResult{
			h.Shard, h.From, h.To, h.Phase, h.CopiedBytes, h.TotalBytes,
			float64(h.Pause.Microseconds()) / 1000, h.Waiting,
		})
	}
	return r
}

func replicasJSON(replicas []clerk.ReplicaStatus) []replicaResult {
	out := []replicaResult{}
	for _, m := range replicas {
		r := replicaResult{ID: m.ID, Address: m.Address, Role: m.Role, Healthy: m.Healthy, Problem: m.Problem}
		if m.AppliedIndex > 0 {
			r.AppliedIndex = &m.AppliedIndex
		}
		out = append(out, r)
	}
	return out
}

func reasonsJSON(reasons []string) []string { return append([]string{}, reasons...) }

func outagesJSON(outages []clerk.Outage) []outageResult {
	out := []outageResult{}
	for _, o := range outages {
		r := outageResult{GID: o.GID, Shards: o.Shards, Reason: o.Reason}
		for _, span := range o.Ranges {
			r.Ranges = append(r.Ranges, rangeResult(span))
		}
		out = append(out, r)
	}
	return out
}

const roleLeader = "leader"

// reasonsShown bounds the reasons above a table.
const reasonsShown = 10

// handoffsShown bounds the handoffs in a table.
const handoffsShown = 20

func (a *app) printStatus(s *clerk.Status) error {
	if err := a.printHeadline(s); err != nil {
		return err
	}
	var groups, replicas [][]string
	for _, c := range s.Controllers {
		replicas = append(replicas, replicaRow("controller", c))
	}
	for _, g := range s.Groups {
		groups = append(groups, groupRow(g, g.State.String()))
		for _, m := range g.Replicas {
			replicas = append(replicas, replicaRow(gidText(g.GID), m))
		}
	}
	for _, g := range s.Unjoined {
		groups = append(groups, groupRow(g, "unjoined"))
		for _, m := range g.Replicas {
			replicas = append(replicas, replicaRow(gidText(g.GID), m))
		}
	}
	if err := a.out.Rows([]string{"GROUP", "STATE", "SHARDS", "KEYS", "SIZE", "CONFIG", "LEADER"}, groups); err != nil {
		return err
	}
	if err := a.out.Linef(""); err != nil {
		return err
	}
	if err := a.out.Rows([]string{"GROUP", "ID", "ADDRESS", "ROLE", "APPLIED", "HEALTH"}, replicas); err != nil {
		return err
	}
	return a.printHandoffs(s.Handoffs)
}

// printHeadline says in words how the cluster is, and where its shards are.
func (a *app) printHeadline(s *clerk.Status) error {
	health := s.Health()
	lines := []string{health.State}
	for i, reason := range health.Reasons {
		if i == reasonsShown {
			lines = append(lines, fmt.Sprintf("  and %d more reasons: shoal health", len(health.Reasons)-i))
			break
		}
		lines = append(lines, "  "+reason)
	}
	where := "configuration not known"
	if s.Config != nil {
		where = fmt.Sprintf("config %d", s.Config.Num)
	}
	lines = append(lines, fmt.Sprintf("%s: %s of %s shards in place, %s moving, %s unavailable\n", where,
		output.Count(s.Settled), output.Count(s.Total), output.Count(s.Moving), output.Count(s.Unavailable)))
	return a.out.Linef("%s", strings.Join(lines, "\n"))
}

// groupRow is a group's row; what nobody who answers knows is a dash.
func groupRow(g clerk.GroupStatus, state string) []string {
	shards, keys, size, adopted := "-", "-", "-", "-"
	if slices.ContainsFunc(g.Replicas, func(r clerk.ReplicaStatus) bool { return r.Answers }) {
		shards, keys, size, adopted = output.Count(g.Shards), output.Count(g.Keys), output.Bytes(g.Bytes), fmt.Sprint(g.Adopted)
	}
	leader := "NONE"
	if g.Led {
		leader = g.Leader
	}
	return []string{gidText(g.GID), state, shards, keys, size, adopted, leader}
}

func replicaRow(group string, m clerk.ReplicaStatus) []string {
	health, applied := "healthy", "-"
	switch {
	case !m.Healthy && m.Answers:
		health = m.Problem
	case !m.Healthy:
		health = "DOWN" // the headline says why
	}
	if m.AppliedIndex > 0 {
		applied = output.Count(m.AppliedIndex)
	}
	return []string{group, orDash(m.ID), m.Address, orDash(m.Role), applied, health}
}

func (a *app) printHandoffs(handoffs []clerk.Handoff) error {
	if len(handoffs) == 0 {
		return nil
	}
	if err := a.out.Linef(""); err != nil {
		return err
	}
	var rows [][]string
	for _, h := range handoffs[:min(len(handoffs), handoffsShown)] {
		rows = append(rows, []string{
			fmt.Sprint(h.Shard), gidText(h.From), gidText(h.To), h.Phase,
			output.Bytes(h.CopiedBytes), output.Bytes(h.TotalBytes), output.Duration(h.Pause), h.Waiting,
		})
	}
	if err := a.out.Rows([]string{"SHARD", "FROM", "TO", "PHASE", "COPIED", "OF", "PAUSE", "WAITING FOR"}, rows); err != nil {
		return err
	}
	if n := len(handoffs) - handoffsShown; n > 0 {
		return a.out.Linef("and %s more", output.Count(n))
	}
	return nil
}
