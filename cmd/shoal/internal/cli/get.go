package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
)

func (a *app) getCommand() *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Prints the value of a key, as it is, and a newline. The value reflects every
write that anyone saw acknowledged before. Where there is no such key, the exit
code is 4 and nothing is printed to stdout.

With --raw no newline follows, so that the output is the value, byte by byte.
With -o json also its version, a number that only grows for a key; a value that
is not UTF-8 is in "value_base64".`,
		Example: "  shoal get user/7\n  shoal get user/7 -o json\n  shoal get picture --raw > picture.png",
		Args:    arguments(1, 1),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if raw && a.out.IsJSON() {
				return usagef("--raw and -o json exclude each other")
			}
			return checkKey(cmd, args)
		},
		RunE: a.storeCommand(func(ctx context.Context, c *clerk.Clerk, args []string) error {
			v, err := c.Get(ctx, []byte(args[0]))
			switch {
			case err != nil:
				return err
			case raw:
				return a.out.Raw(v.Bytes)
			case !a.out.IsJSON():
				return a.out.Raw(v.Bytes, []byte("\n"))
			}
			return a.out.Object(struct {
				output.Key
				output.Value
				Version clerk.Version `json:"version"`
			}{output.KeyOf([]byte(args[0])), output.ValueOf(v.Bytes), v.Version})
		}),
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "print the value and nothing else, no newline")
	return cmd
}
