package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config [NUM]",
		Short: "Show a configuration: where every shard should be",
		Long: `Shows the latest configuration, or the one of a number: the groups with their
replicas, how many shards each should hold, and the shards that are pinned. With
-o json also the owner of every shard; 0 is none. Where shards really are,
"shoal shards" shows. The exit code is 4 for a number that is not kept.`,
		Example: "  shoal config\n  shoal config 3 -o json",
		Args:    arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := (*clerk.Admin).Latest
			if len(args) > 0 {
				num, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil {
					return usagef("%q is no number of a configuration", args[0])
				}
				query = func(admin *clerk.Admin, ctx context.Context) (*shardcfg.Config, error) {
					return admin.Query(ctx, shardcfg.ConfigNum(num))
				}
			}
			return a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
				config, err := query(c.Admin(), ctx)
				if err != nil {
					return err
				}
				if a.out.IsJSON() {
					return a.out.Object(configJSON(config))
				}
				return a.printConfig(config)
			})
		},
	}
}

// configResult is a configuration as JSON.
type configResult struct {
	Num    shardcfg.ConfigNum                    `json:"num"`
	Shards []shardcfg.GroupID                    `json:"shards"`
	Groups map[shardcfg.GroupID]configGroup      `json:"groups"`
	Pins   map[shardcfg.ShardID]shardcfg.GroupID `json:"pins"`
	// MaxPauseMS are the pins with a pause budget of their own.
	MaxPauseMS map[shardcfg.ShardID]uint32 `json:"max_pause_ms,omitempty"`
}

type configGroup struct {
	Replicas    []string `json:"replicas"`
	Weight      uint32   `json:"weight"`
	State       string   `json:"state"`
	Incarnation string   `json:"incarnation,omitempty"` // empty: not bound yet
}

func configJSON(c *shardcfg.Config) configResult {
	r := configResult{
		Num: c.Num, Shards: append([]shardcfg.GroupID{}, c.Shards...),
		Groups: map[shardcfg.GroupID]configGroup{}, Pins: map[shardcfg.ShardID]shardcfg.GroupID{},
		MaxPauseMS: map[shardcfg.ShardID]uint32{},
	}
	for gid, g := range c.Groups {
		out := configGroup{Replicas: append([]string{}, g.Replicas...), Weight: g.Weight, State: g.State.String()}
		if !g.Incarnation.IsZero() {
			out.Incarnation = g.Incarnation.String()
		}
		r.Groups[gid] = out
	}
	for shard, pin := range c.Pins {
		r.Pins[shard] = pin.Group
		if pin.MaxPauseMS > 0 {
			r.MaxPauseMS[shard] = pin.MaxPauseMS
		}
	}
	return r
}

func (a *app) printConfig(c *shardcfg.Config) error {
	owned, pinned := map[shardcfg.GroupID]int{}, map[shardcfg.GroupID]int{}
	for _, gid := range c.Shards {
		owned[gid]++
	}
	for _, pin := range c.Pins {
		pinned[pin.Group]++
	}
	if err := a.out.Linef("config %d: %s, %s", c.Num, output.Plural(len(c.Shards), "shard"), output.Plural(len(c.Groups), "group")); err != nil {
		return err
	}
	var rows [][]string
	for _, gid := range c.GroupIDs() {
		g := c.Groups[gid]
		rows = append(rows, []string{
			gidText(gid), g.State.String(), fmt.Sprint(g.Weight), output.Count(owned[gid]), output.Count(pinned[gid]),
			strings.Join(g.Replicas, ","),
		})
	}
	if n := owned[0]; n > 0 {
		rows = append(rows, []string{"-", "no owner", "", output.Count(n), "", ""})
	}
	return a.out.Rows([]string{"GROUP", "STATE", "WEIGHT", "SHARDS", "PINNED", "REPLICAS"}, rows)
}
