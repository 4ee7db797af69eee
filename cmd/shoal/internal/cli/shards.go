package cli

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// shardResult is one shard as JSON.
type shardResult struct {
	Shard      shardcfg.ShardID  `json:"shard"`
	Owner      shardcfg.GroupID  `json:"owner"`  // 0: none
	Holder     shardcfg.GroupID  `json:"holder"` // 0: none, or not known
	Epoch      uint64            `json:"epoch"`
	Generation uint32            `json:"generation"`
	Phase      string            `json:"phase"`
	Keys       uint64            `json:"keys"`
	Bytes      uint64            `json:"bytes"`
	Digest     string            `json:"digest"`
	Revision   shardcfg.Revision `json:"revision"`
}

func (a *app) shardsCommand() *cobra.Command {
	var group uint64
	cmd := &cobra.Command{
		Use:   "shards",
		Short: "Show every shard: who should hold it, who does, what is in it",
		Long: `Shows every shard: its owner (the group that should hold it), its holder (the
group that does), the epoch of its token, its phase, and how much is in it. The
digest is the same on every replica that has applied the same writes. With
--group, only the shards that the group owns or holds; exit code 4 where no such
group is listed. With -o json, one object a line.`,
		Example: "  shoal shards --group 2",
		Args:    arguments(0, 0),
	}
	cmd.Flags().Uint64Var(&group, "group", 0, "only shards that this `gid` owns or holds")
	cmd.RunE = a.clerkCommand(func(ctx context.Context, c *clerk.Clerk, _ []string) error {
		st, err := c.Admin().Status(ctx)
		if err != nil {
			return err
		}
		gid := shardcfg.GroupID(group)
		if _, listed := st.Config.Groups[gid]; gid != 0 && !listed {
			return codedError{fmt.Errorf("group %d is not listed ('shoal config' lists the groups)", gid), ExitCondition}
		}
		var rows [][]string
		for _, s := range st.Shards {
			if gid != 0 && s.Owner != gid && s.Holder != gid {
				continue
			}
			r := shardResult{
				s.Shard, s.Owner, s.Holder, s.Epoch.Num, s.Epoch.Gen, s.Phase, s.Keys, s.Bytes,
				hex.EncodeToString(s.Digest), shardcfg.Revision(s.Revision),
			}
			if a.out.IsJSON() {
				if err := a.out.Object(r); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []string{
				fmt.Sprint(r.Shard), gidText(r.Owner), gidText(r.Holder), s.Epoch.String(), r.Phase,
				output.Count(r.Keys), output.Bytes(r.Bytes), shortDigest(r.Digest),
			})
		}
		if a.out.IsJSON() {
			return nil
		}
		return a.out.Rows([]string{"SHARD", "OWNER", "HOLDER", "EPOCH", "PHASE", "KEYS", "SIZE", "DIGEST"}, rows)
	})
	return cmd
}

// shortDigest keeps as much of a digest as tells two apart at a glance.
func shortDigest(digest string) string { return orDash(digest[:min(len(digest), 12)]) }

// shardList returns every shard, as its owner and holder describe it.
func shardList(ctx context.Context, c *clerk.Clerk) ([]clerk.ShardStatus, error) {
	s, err := c.Admin().Status(ctx)
	if err != nil {
		return nil, err
	}
	return s.Shards, nil
}
