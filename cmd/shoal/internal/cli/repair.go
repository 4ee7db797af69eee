package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) retireCommand() *cobra.Command {
	var g changing
	var destroyed, force bool
	cmd := &cobra.Command{
		Use:   "retire GID|INCARNATION",
		Short: "Declare a group destroyed, whose disks are gone",
		Long: `Declares that a group has lost a majority of its disks for good. It is taken out of
the configuration, its shards are given to other groups, and nothing that it still
says is believed; a replica of it that comes back stops. "shoal repair" then lets
its shards be served again.

A group that lives can leave instead, and loses nothing. So this needs
--destroyed, and is refused with exit code 5 while a replica of the group answers,
unless --force says that what answers is about to be deleted. It can't be undone.`,
		Example: "  shoal retire 2 --plan\n  shoal retire 2 --destroyed && shoal repair --plan",
		Args:    arguments(1, 1),
	}
	f := cmd.Flags()
	g.planFlags(f)
	f.BoolVar(&destroyed, "destroyed", false, "a majority of the group's disks is gone for good")
	f.BoolVar(&force, "force", false, "do not ask the replicas whether they live")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !g.plan && !destroyed {
			return codedError{errors.New("retire: not done: refused: it can't be undone, and what only this group has is lost; say --destroyed if its disks are gone (or --plan to look)"), ExitRefused}
		}
		return a.changeCommand(cmd, &g, func(ctx context.Context, admin *clerk.Admin, options []clerk.ChangeOption) (clerk.Change, error) {
			incarnation, err := findIncarnation(ctx, admin, args[0])
			if err != nil {
				return clerk.Change{}, err
			}
			if force || g.plan {
				options = append(options, clerk.Force())
			}
			return admin.Retire(ctx, incarnation, options...)
		})
	}
	return cmd
}

// findIncarnation reads an incarnation, or that of a listed group.
func findIncarnation(ctx context.Context, admin *clerk.Admin, arg string) (shardcfg.Incarnation, error) {
	if inc, err := shardcfg.ParseIncarnation(arg); err == nil {
		return inc, nil
	}
	gid, err := parseGID(arg)
	if err != nil {
		return shardcfg.Incarnation{}, usagef("%w, or an incarnation of 32 hexadecimal digits", err)
	}
	config, err := admin.Latest(ctx)
	if err != nil {
		return shardcfg.Incarnation{}, err
	}
	g, listed := config.Groups[gid]
	if !listed {
		if g, listed, err = findRetired(ctx, admin, config, gid); err != nil {
			return shardcfg.Incarnation{}, err
		}
	}
	switch {
	case !listed:
		return shardcfg.Incarnation{}, codedError{fmt.Errorf("retire: not done: group %d is not in the configuration; one that was there before is named by its incarnation", gid), ExitCondition}
	case g.Incarnation.IsZero():
		return shardcfg.Incarnation{}, codedError{fmt.Errorf("retire: not done: refused: group %d never came to life: it can leave", gid), ExitRefused}
	}
	return g.Incarnation, nil
}

// findRetired looks in the last configurations for a group that was retired since,
// so that who repeats a retirement by gid learns that it is done.
func findRetired(ctx context.Context, admin *clerk.Admin, latest *shardcfg.Config, gid shardcfg.GroupID) (g shardcfg.Group, found bool, err error) {
	const lookBack = 100
	for num := latest.Num; num > 0 && num+lookBack > latest.Num; {
		num--
		config, err := admin.Query(ctx, num)
		if errors.Is(err, clerk.ErrNotFound) {
			break // not kept any more
		}
		if err != nil {
			return shardcfg.Group{}, false, err
		}
		if g, listed := config.Groups[gid]; listed {
			return g, latest.IsRetired(g.Incarnation), nil
		}
	}
	return shardcfg.Group{}, false, nil
}

func (a *app) repairCommand() *cobra.Command {
	var w waiting
	var o clerk.Repairing
	cmd := &cobra.Command{
		Use:   "repair [SHARD...]",
		Short: "Let shards be served again that waited for retired groups",
		Long: `Asks every group what it has of the shards that are not served, and says what can
become of each. With --accept-data-loss they are served again as far as possible:

  thawed     the shard was frozen on its way to a group that was retired; the copy
             that it was frozen from serves again. Writes that the lost group
             acknowledged, if it had begun to serve the shard, are lost: nobody
             that is left can say whether it had. A group that was reformed from
             a disk ("shoal reform") shows what it has in the same way
  lost       the group that had the shard was retired, and the data is gone: the
             shard begins anew, empty
  moving     it is on its way to a group that lives: nothing to repair
  granted    an earlier repair is being carried out
  ownerless  like lost, but no group is a member that could begin it anew
  served, uncreated  (of shards that were named) a group serves it, or its owner
             will create it: nothing to repair

Retire every group that is destroyed first. Every other one must answer, else the
exit code is 3 and nothing is done. Repeating it is safe. The exit code is 5 if a
shard waits for --accept-data-loss.`,
		Example: "  shoal repair --plan\n  shoal repair --accept-data-loss --wait\n  shoal repair --accept-data-loss 17 18",
		Args:    arguments(0, -1),
	}
	f := cmd.Flags()
	f.BoolVar(&o.Plan, "plan", false, "change nothing, and print what was found")
	f.BoolVar(&o.LossAccepted, "accept-data-loss", false, "let shards serve again though acknowledged writes are lost, or may be")
	f.BoolVar(&o.CopiesOnly, "copies-only", false, "let no shard begin anew, empty: repair those of which a copy is left")
	w.flags(f, "every shard is where it should be")
	cmd.RunE = a.clerkCommand(func(ctx context.Context, c *clerk.Clerk, args []string) error {
		for _, arg := range args {
			shard, err := parseShard(arg)
			if err != nil {
				return err
			}
			o.Shards = append(o.Shards, shard)
		}
		fates, err := c.Admin().Repair(ctx, o)
		if err != nil {
			return err
		}
		if err := a.printFates(fates); err != nil || o.Plan {
			return err
		}
		if err := leftLost(fates); err != nil || !w.wait {
			return err
		}
		return a.waitSettled(ctx, c.Admin(), &w, settling{verb: "repair"})
	})
	return cmd
}

// fateResult is one shard that was looked at, as JSON.
type fateResult struct {
	Shard   shardcfg.ShardID `json:"shard"`
	Fate    string           `json:"fate"`
	Group   shardcfg.GroupID `json:"group"` // who serves it, or will; 0: nobody
	Granted bool             `json:"granted"`
}

func (a *app) printFates(fates []clerk.ShardFate) error {
	results, rows := []fateResult{}, [][]string{}
	for _, f := range fates {
		results = append(results, fateResult(f))
		repair := ""
		switch {
		case f.Granted:
			repair = "granted"
		case f.Fate == "thawed" || f.Fate == "lost":
			repair = "needs --accept-data-loss"
		}
		rows = append(rows, []string{fmt.Sprint(f.Shard), f.Fate, gidText(f.Group), repair})
	}
	if a.out.IsJSON() {
		return a.out.Object(results)
	}
	if len(rows) == 0 {
		return a.out.Linef("nothing to repair")
	}
	return a.out.Rows([]string{"SHARD", "FATE", "GROUP", "REPAIR"}, rows)
}

// leftLost is the error of a repair that left shards unserved.
func leftLost(fates []clerk.ShardFate) error {
	counts := map[string]int{}
	for _, f := range fates {
		if !f.Granted {
			counts[f.Fate]++
		}
	}
	var left []string
	if n := counts["thawed"]; n > 0 {
		left = append(left, output.Plural(n, "shard")+" frozen for a retired group: --accept-data-loss lets them serve again, without what that group acknowledged")
	}
	if n := counts["lost"]; n > 0 {
		left = append(left, output.Plural(n, "shard")+" lost with their group: --accept-data-loss lets them begin anew, empty")
	}
	if n := counts["ownerless"]; n > 0 {
		left = append(left, output.Plural(n, "shard")+" lost, and no group is a member: join one first")
	}
	if len(left) == 0 {
		return nil
	}
	return codedError{errors.New("repair: " + strings.Join(left, "; ")), ExitRefused}
}
