package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
)

// written is what a write reports.
type written struct {
	output.Key
	Version clerk.Version `json:"version"`
	Length  *uint64       `json:"length,omitempty"` // of an append
}

func (a *app) printWritten(w written) error {
	if a.out.IsJSON() {
		return a.out.Object(w)
	}
	return a.out.Linef("version %d", w.Version)
}

func (a *app) putCommand() *cobra.Command {
	var ifVersion uint64
	var ifAbsent bool
	cmd := &cobra.Command{
		Use:     "put KEY VALUE|-",
		Aliases: []string{"set"},
		Short:   "Set the value of a key",
		Long: `Sets the value of a key, and prints the key's new version. When it is printed,
the write is on the disks of a majority of the group's replicas.

The value "-" is read from stdin. With --if-version the write takes effect only
if the key has that version (0: is absent), with --if-absent only if there is no
such key; else the exit code is 4, and the message has the present version.

If the write fails, the message says "not done" (it had no effect, and never
will) or "outcome unknown" (it may have been executed, or may yet be).`,
		Example: "  shoal put user/7 Ada\n  shoal put page - < index.html\n  shoal put user/7 Grace --if-version 3\n  shoal put -- -key -value",
		Args:    arguments(2, 2),
		PreRunE: checkKey,
	}
	cmd.Flags().Uint64Var(&ifVersion, "if-version", 0, "write only if the key has this `version`; 0: is absent")
	cmd.Flags().BoolVar(&ifAbsent, "if-absent", false, "write only if there is no such key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var options []clerk.WriteOption
		if cmd.Flags().Changed("if-version") {
			options = append(options, clerk.IfVersion(clerk.Version(ifVersion)))
		}
		if ifAbsent {
			if len(options) > 0 {
				return usagef("not done: --if-version and --if-absent exclude each other")
			}
			options = append(options, clerk.IfAbsent())
		}
		return a.write(cmd, args, func(ctx context.Context, c *clerk.Clerk, key, value []byte) (written, error) {
			version, err := c.Put(ctx, key, value, options...)
			return written{Key: output.KeyOf(key), Version: version}, err
		})
	}
	return cmd
}

func (a *app) appendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "append KEY VALUE|-",
		Short: "Add bytes at the end of a key's value",
		Long: `Adds bytes at the end of a key's value, exactly once, whatever fails and is
retried on the way. A key that does not exist begins empty. The value "-" is
read from stdin.`,
		Example: "  shoal append log/today 'it began'\n  date | shoal append log/today -",
		Args:    arguments(2, 2),
		PreRunE: checkKey,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.write(cmd, args, func(ctx context.Context, c *clerk.Clerk, key, value []byte) (written, error) {
			appended, err := c.Append(ctx, key, value)
			return written{Key: output.KeyOf(key), Version: appended.Version, Length: &appended.Length}, err
		})
	}
	return cmd
}

// write runs a command of a key and a value.
func (a *app) write(cmd *cobra.Command, args []string, do func(context.Context, *clerk.Clerk, []byte, []byte) (written, error)) error {
	value, err := a.readOperand(args[1])
	if err != nil {
		return err
	}
	return a.withStore(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
		w, err := do(ctx, c, []byte(args[0]), value)
		if err != nil {
			return err
		}
		return a.printWritten(w)
	})
}
