package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
)

func (a *app) scanCommand() *cobra.Command {
	var prefix string
	var limit int
	var keysOnly, ordered bool
	cmd := &cobra.Command{
		Use:     "scan",
		Aliases: []string{"ls"},
		Short:   "List keys and values",
		Long: `Prints a line for each key: the key, a tab, and the value, as they are. Keys come
shard by shard, in order within a shard; with --ordered, in order over all. A key
that is present throughout comes exactly once, also while shards move. A prefix
with a complete {tag} reads one shard only.

With -o json, one object a line, which "shoal import" can read back.`,
		Example: "  shoal scan --prefix user/ --limit 10\n  shoal scan --keys-only --ordered\n  shoal scan -o json > all.jsonl",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	f.StringVar(&prefix, "prefix", "", "only keys that begin with this `text`")
	f.IntVar(&limit, "limit", 0, "at most this `number` of keys; 0: all")
	f.BoolVar(&keysOnly, "keys-only", false, "leave the values out")
	f.BoolVar(&ordered, "ordered", false, "in order of key over all shards")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usagef("--limit is %d: it must not be negative", limit)
		}
		options := []clerk.ScanOption{clerk.Limit(limit)}
		if keysOnly {
			options = append(options, clerk.KeysOnly())
		}
		if ordered {
			options = append(options, clerk.Ordered())
		}
		return a.withStore(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			for e, err := range c.Scan(ctx, []byte(prefix), options...) {
				if err != nil {
					return err
				}
				if err := a.printEntry(e, keysOnly); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func (a *app) printEntry(e clerk.Entry, keysOnly bool) error {
	if !a.out.IsJSON() {
		if keysOnly {
			return a.out.Raw(e.Key, []byte("\n"))
		}
		return a.out.Raw(e.Key, []byte("\t"), e.Value, []byte("\n"))
	}
	value := output.Value{}
	if !keysOnly {
		value = output.ValueOf(e.Value)
	}
	return a.out.Object(struct {
		output.Key
		output.Value
		Version clerk.Version `json:"version"`
	}{output.KeyOf(e.Key), value, e.Version})
}
