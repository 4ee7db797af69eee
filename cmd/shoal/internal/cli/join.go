package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) joinCommand() *cobra.Command {
	var g changing
	var weight uint32
	var force bool
	cmd := &cobra.Command{
		Use:   "join GID ADDR,ADDR,...",
		Short: "Add a group, so that shards move to it",
		Long: `Makes a group of replicas a member, under a gid of your choice. As many shards as
are its share move to it, while they keep serving. Joining a group that is a
member already is a success, and changes nothing, except that addresses
to which its replicas moved are taken.

The replicas must answer, belong to this cluster or to none yet, and say this
gid; else the exit code is 5. --force skips that check; a group that had left and
comes back is then taken only once a join without --force could ask it.`,
		Example: "  shoal join 3 127.0.0.1:7409,127.0.0.1:7410,127.0.0.1:7411 --plan\n" +
			"  shoal join 3 127.0.0.1:7409,127.0.0.1:7410,127.0.0.1:7411 --wait",
		Args: arguments(2, 2),
	}
	f := cmd.Flags()
	f.Uint32Var(&weight, "weight", 0, "the group's share of the shards, relative to others; 0: 1, or as it is")
	f.BoolVar(&force, "force", false, "do not ask the replicas who they are")
	g.flags(f, "every shard has arrived")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		gid, err := parseGID(args[0])
		if err != nil {
			return err
		}
		replicas, err := parseAddresses(args[1])
		if err != nil {
			return err
		}
		join := clerk.JoinGroup{GID: gid, Replicas: replicas, Weight: weight}
		return a.changeCommand(cmd, &g, func(ctx context.Context, admin *clerk.Admin, options []clerk.ChangeOption) (clerk.Change, error) {
			if force {
				options = append(options, clerk.Force())
			}
			return admin.Join(ctx, []clerk.JoinGroup{join}, options...)
		})
	}
	return cmd
}

// parseAddresses reads a list of addresses.
func parseAddresses(arg string) ([]string, error) {
	list := strings.Split(arg, ",")
	for _, address := range list {
		if err := checkAddress(address); err != nil {
			return nil, usageError{err}
		}
	}
	return list, nil
}

func checkAddresses(flag string, addresses []string) error {
	for _, address := range addresses {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	return nil
}

func checkAddress(address string) error {
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is no address: it is HOST:PORT", address)
	}
	return nil
}

func (a *app) leaveCommand() *cobra.Command {
	var g changing
	cmd := &cobra.Command{
		Use:   "leave GID...",
		Short: "Remove groups; their shards move to the others",
		Long: `Gives the shards of one or more groups to the others, while they keep serving. A
group stays listed as leaving until it holds nothing; then it is gone, and may be
switched off. --wait returns at that moment.

Leaving again is a success, also for a group that is gone. The exit code is 4 for
a gid that no group ever had, and 5 for the last group while it holds data.`,
		Example: "  shoal leave 1 --plan\n  shoal leave 1 2 --wait",
		Args:    arguments(1, -1),
	}
	g.flags(cmd.Flags(), "the groups are drained and may be switched off")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var gids []shardcfg.GroupID
		for _, arg := range args {
			gid, err := parseGID(arg)
			if err != nil {
				return err
			}
			gids = append(gids, gid)
		}
		slices.Sort(gids)
		gids = slices.Compact(gids)
		return a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			made, err := a.makeChange(ctx, c, &g, func(ctx context.Context, admin *clerk.Admin, options []clerk.ChangeOption) (clerk.Change, error) {
				return admin.Leave(ctx, gids, options...)
			})
			if err != nil || g.plan || !g.wait {
				return err
			}
			return a.waitDrained(ctx, c, &g.waiting, settling{verb: cmd.Name(), num: made.Num, moves: made.Moves}, gids)
		})
	}
	return cmd
}
