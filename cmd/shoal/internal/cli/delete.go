package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
)

func (a *app) deleteCommand() *cobra.Command {
	var ifVersion uint64
	cmd := &cobra.Command{
		Use:     "delete KEY",
		Aliases: []string{"del"},
		Short:   "Remove a key",
		Long: `Removes a key and prints "deleted". Where there is no such key, or --if-version
does not hold, the exit code is 4. A key that is created again gets a higher
version than it ever had.`,
		Example: "  shoal delete user/7\n  shoal delete user/7 --if-version 3",
		Args:    arguments(1, 1),
		PreRunE: checkKey,
	}
	cmd.Flags().Uint64Var(&ifVersion, "if-version", 0, "remove only if the key has this `version`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var options []clerk.WriteOption
		if cmd.Flags().Changed("if-version") {
			options = append(options, clerk.IfVersion(clerk.Version(ifVersion)))
		}
		return a.withStore(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			if err := c.Delete(ctx, []byte(args[0]), options...); err != nil {
				return err
			}
			if !a.out.IsJSON() {
				return a.out.Linef("deleted")
			}
			return a.out.Object(struct {
				output.Key
				Deleted bool `json:"deleted"`
			}{output.KeyOf([]byte(args[0])), true})
		})
	}
	return cmd
}
