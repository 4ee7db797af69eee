package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
)

func (a *app) moveCommand() *cobra.Command {
	var g changing
	cmd := &cobra.Command{
		Use:   "move SHARD GID",
		Short: "Place one shard by hand",
		Long: `Moves one shard, and no other, to a group and pins it there: it stays, whatever
joins and leaves, until "shoal unpin", or until its group leaves.

The shard keeps serving while it is copied, and is frozen for its last changes only,
for 50 ms at most by the holder's estimate. --max-pause gives this shard another
budget: a longer one lets a shard with many writes go sooner; with a shorter one its
writes may be slowed for a while.`,
		Example: "  shoal move 17 2 --wait\n  shoal move 17 2 --max-pause 500ms",
		Args:    arguments(2, 2),
	}
	var maxPause time.Duration
	cmd.Flags().DurationVar(&maxPause, "max-pause", 0, "for how long the shard may be frozen, from 1ms to 1m; 0: as the servers have it")
	g.flags(cmd.Flags(), "every shard has arrived")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shard, err := parseShard(args[0])
		if err != nil {
			return err
		}
		gid, err := parseGID(args[1])
		if err != nil {
			return err
		}
		return a.changeCommand(cmd, &g, func(ctx context.Context, admin *clerk.Admin, options []clerk.ChangeOption) (clerk.Change, error) {
			return admin.Move(ctx, shard, gid, append(options, clerk.MaxPause(maxPause))...)
		})
	}
	return cmd
}

func (a *app) unpinCommand() *cobra.Command {
	var g changing
	cmd := &cobra.Command{
		Use:     "unpin SHARD",
		Short:   "Let a shard that was placed by hand be balanced again",
		Long:    "Lets a shard that \"shoal move\" placed be balanced again. A shard that is not pinned is left as it is.",
		Example: "  shoal unpin 17",
		Args:    arguments(1, 1),
	}
	g.flags(cmd.Flags(), "every shard has arrived")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shard, err := parseShard(args[0])
		if err != nil {
			return err
		}
		return a.changeCommand(cmd, &g, func(ctx context.Context, admin *clerk.Admin, options []clerk.ChangeOption) (clerk.Change, error) {
			return admin.Unpin(ctx, shard, options...)
		})
	}
	return cmd
}
