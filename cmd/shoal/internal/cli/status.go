package cli

import (
	"context"
	"fmt"
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
		Long: `Asks every controller and every replica, and shows what they say: who leads, who
does not answer, how many shards, keys and bytes each group holds, and which
shards are on their way. With --watch, again and again until interrupted.`,
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
	if s.ConfigErr != nil {
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
	Shards      struct {
		Total   int `json:"total"`
		Settled int `json:"settled"`
		Moving  int `json:"moving"`
	} `json:"shards"`
	Handoffs []handoffResult `json:"handoffs"`
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
	ID           string `json:"id"`
	Address      string `json:"address"`
	Role         string `json:"role"`
	AppliedIndex uint64 `json:"applied_index"`
	Healthy      bool   `json:"healthy"`
	Problem      string `json:"problem,omitempty"`
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
	r := statusResult{Controllers: []controllerResult{}, Groups: []groupResult{}, Handoffs: []handoffResult{}}
	if s.Config != nil {
		r.Config = s.Config.Num
	}
	for _, c := range s.Controllers {
		r.Controllers = append(r.Controllers, controllerResult{c.ID, c.Address, c.Role == roleLeader, c.Healthy, c.Problem})
	}
	for _, g := range s.Groups {
		out := groupResult{GID: g.GID, State: g.State.String(), Replicas: []replicaResult{}, Shards: g.Shards, Keys: g.Keys, Bytes: g.Bytes, Adopted: g.Adopted}
		for _, m := range g.Replicas {
			out.Replicas = append(out.Replicas, replicaResult{m.ID, m.Address, m.Role, m.AppliedIndex, m.Healthy, m.Problem})
		}
		r.Groups = append(r.Groups, out)
	}
	r.Shards.Total, r.Shards.Settled, r.Shards.Moving = s.Total, s.Settled, s.Moving
	for _, h := range s.Handoffs {
		r.Handoffs = append(r.Handoffs, handoffResult{
			h.Shard, h.From, h.To, h.Phase, h.CopiedBytes, h.TotalBytes,
			float64(h.Pause.Microseconds()) / 1000, h.Waiting,
		})
	}
	return r
}

const roleLeader = "leader"

// handoffsShown bounds the handoffs in a table.
const handoffsShown = 20

func (a *app) printStatus(s *clerk.Status) error {
	var replicas [][]string
	row := func(group string, m clerk.ReplicaStatus) {
		health := "healthy"
		if !m.Healthy {
			health = "DOWN"
			if m.Problem != "" {
				health += " " + m.Problem
			}
		}
		replicas = append(replicas, []string{group, orDash(m.ID), m.Address, orDash(m.Role), output.Count(m.AppliedIndex), health})
	}
	for _, c := range s.Controllers {
		row("controller", c)
	}
	var groups [][]string
	for _, g := range s.Groups {
		for _, m := range g.Replicas {
			row(gidText(g.GID), m)
		}
		groups = append(groups, []string{
			gidText(g.GID), g.State.String(), output.Count(g.Shards), output.Count(g.Keys), output.Bytes(g.Bytes), fmt.Sprint(g.Adopted), orDash(g.Leader),
		})
	}
	num := shardcfg.ConfigNum(0)
	if s.Config != nil {
		num = s.Config.Num
	}
	if err := a.out.Linef("config %d: %s of %s shards in place, %s moving\n", num, output.Count(s.Settled), output.Count(s.Total), output.Count(s.Moving)); err != nil {
		return err
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
