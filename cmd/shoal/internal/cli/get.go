package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
)

func (a *app) getCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Prints the value of a key, as it is, and a newline. The value reflects every
write that anyone saw acknowledged before. Where there is no such key, the exit
code is 4 and nothing is printed to stdout.

With -o json also its version, a number that only grows for a key; a value that
is not UTF-8 is in "value_base64".`,
		Example: "  shoal get user/7\n  shoal get user/7 -o json",
		Args:    arguments(1, 1),
		PreRunE: checkKey,
		RunE: a.storeCommand(func(ctx context.Context, c *clerk.Clerk, args []string) error {
			v, err := c.Get(ctx, []byte(args[0]))
			if err != nil {
				return err
			}
			if !a.out.IsJSON() {
				return a.out.Raw(v.Bytes, []byte("\n"))
			}
			return a.out.Object(struct {
				output.Key
				output.Value
				Version clerk.Version `json:"version"`
			}{output.KeyOf([]byte(args[0])), output.ValueOf(v.Bytes), v.Version})
		}),
	}
}
