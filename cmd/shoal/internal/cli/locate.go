package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) locateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "locate KEY",
		Short: "Show where a key lives",
		Long: `Shows the slot and the shard of a key, the group that holds the shard now, with
the epoch of its token and the address of the group's leader. The key need not
exist. "owner" is the group that should hold the shard; while the two differ,
the shard is on its way.`,
		Example: "  shoal locate user/7\n  shoal locate '{user7}/name' -o json",
		Args:    arguments(1, 1),
		PreRunE: checkKey,
		RunE: a.storeCommand(func(ctx context.Context, c *clerk.Clerk, args []string) error {
			at, err := c.Locate(ctx, []byte(args[0]))
			if err != nil {
				return err
			}
			if at.Epoch.IsZero() {
				// The group served the key without saying at which epoch.
				if at.Epoch, err = epochOf(ctx, c, at.Shard); err != nil {
					return err
				}
			}
			if a.out.IsJSON() {
				return a.out.Object(struct {
					output.Key
					Slot       shardcfg.Slot    `json:"slot"`
					Shard      shardcfg.ShardID `json:"shard"`
					Epoch      uint64           `json:"epoch"`
					Generation uint32           `json:"generation"`
					Group      shardcfg.GroupID `json:"group"`
					Leader     string           `json:"leader"`
					Owner      shardcfg.GroupID `json:"owner"`
				}{output.KeyOf([]byte(args[0])), at.Slot, at.Shard, at.Epoch.Num, at.Epoch.Gen, at.Group, at.Leader, at.Owner})
			}
			return a.out.Rows([]string{"SLOT", "SHARD", "EPOCH", "GROUP", "LEADER", "OWNER"}, [][]string{{
				strconv.Itoa(int(at.Slot)), strconv.Itoa(int(at.Shard)), at.Epoch.String(), gidText(at.Group), orDash(at.Leader), gidText(at.Owner),
			}})
		}),
	}
}

// epochOf asks the groups for the epoch of a shard; zero: none of them told.
func epochOf(ctx context.Context, c *clerk.Clerk, shard shardcfg.ShardID) (shardcfg.Epoch, error) {
	list, err := shardList(ctx, c)
	if err != nil {
		return shardcfg.Epoch{}, err
	}
	for _, s := range list {
		if s.Shard == shard {
			return s.Epoch, nil
		}
	}
	return shardcfg.Epoch{}, nil
}

// gidText shows a gid; none is a dash.
func gidText(gid shardcfg.GroupID) string {
	if gid == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(gid), 10)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
