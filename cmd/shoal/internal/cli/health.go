package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
)

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Say whether every shard is served, for scripts",
		Long: `Asks every controller and every replica, and says how the cluster is. The exit code
is 0 if it is healthy: every shard is served, and everybody answers; 1 if it is
degraded: every shard is served, but not everybody answers; and 3 if shards are
served by nobody, or by nobody who could be asked. The reasons are printed, one a
line.

Like "shoal status", which shows more, it needs no controller: what --placement
kept, or replicas named by --seeds, one of every group, are enough.`,
		Example: "  shoal health\n  shoal health -o json | jq -r '.reasons[]'",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var health clerk.Health
			err := a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
				ctx, cancel := context.WithTimeout(ctx, a.timeout)
				defer cancel()
				s, err := c.Admin().Status(ctx)
				if err == nil {
					health = s.Health()
				}
				return err
			})
			switch {
			case err != nil && exitCode(err) != ExitUnavailable:
				return err
			case err != nil:
				health = clerk.Health{State: clerk.StateUnavailable, Reasons: []string{err.Error()}}
			}
			return a.printHealth(health)
		},
	}
}

// printHealth prints a verdict, and returns an error without a text, whose exit
// code says the same.
func (a *app) printHealth(h clerk.Health) error {
	var err error
	if a.out.IsJSON() {
		err = a.out.Object(struct {
			State   string   `json:"state"`
			Reasons []string `json:"reasons"`
		}{h.State, reasonsJSON(h.Reasons)})
	} else if len(h.Reasons) == 0 {
		err = a.out.Linef("%s", h.State)
	} else {
		err = a.out.Linef("%s", strings.Join(h.Reasons, "\n"))
	}
	switch {
	case err != nil || h.State == clerk.StateHealthy:
		return err
	case h.State == clerk.StateDegraded:
		return codedError{errors.New(""), ExitFailed}
	}
	return codedError{errors.New(""), ExitUnavailable}
}
