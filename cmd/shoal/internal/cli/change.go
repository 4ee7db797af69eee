package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A changing is what the commands share that change the configuration.
type changing struct {
	waiting
	plan    bool
	verbose bool // a plan is shown shard by shard
}

func (g *changing) planFlags(f *pflag.FlagSet) {
	f.BoolVar(&g.plan, "plan", false, "change nothing, and print what would move")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "print a plan shard by shard")
}

func (g *changing) flags(f *pflag.FlagSet, settled string) {
	g.planFlags(f)
	g.waiting.flags(f, settled)
}

// options are those of the change itself.
func (g *changing) options() []clerk.ChangeOption {
	if g.plan {
		return []clerk.ChangeOption{clerk.Plan()}
	}
	return nil
}

// A makeChange makes a change of configuration.
type makeChange func(ctx context.Context, admin *clerk.Admin, options []clerk.ChangeOption) (clerk.Change, error)

// changeCommand runs a command that changes the configuration: it makes the
// change, prints it, and waits until it has settled if that is asked for.
func (a *app) changeCommand(cmd *cobra.Command, g *changing, change makeChange) error {
	return a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
		made, err := a.makeChange(ctx, c, g, change)
		if err != nil || g.plan || !g.wait {
			return err
		}
		return a.waitSettled(ctx, c.Admin(), &g.waiting, settling{verb: cmd.Name(), num: made.Num, moves: made.Moves})
	})
}

// makeChange makes a change of configuration, and prints it.
func (a *app) makeChange(ctx context.Context, c *clerk.Clerk, g *changing, change makeChange) (clerk.Change, error) {
	made, err := change(ctx, c.Admin(), g.options())
	if err != nil {
		return made, err
	}
	return made, a.printChange(made, g)
}

// A changeResult is what a change of configuration reports.
type changeResult struct {
	Config shardcfg.ConfigNum `json:"config"`
	Plan   bool               `json:"plan,omitempty"`
	Moves  []moveResult       `json:"moves"`
}

type moveResult struct {
	Shard shardcfg.ShardID `json:"shard"`
	From  shardcfg.GroupID `json:"from"` // 0: no owner
	To    shardcfg.GroupID `json:"to"`   // 0: no owner
	Bytes uint64           `json:"bytes"`
}

// printChange reports a change that was made or, with plan, that would be.
func (a *app) printChange(c clerk.Change, g *changing) error {
	result := changeResult{Config: c.Num, Plan: g.plan, Moves: []moveResult{}}
	for _, m := range c.Moves {
		result.Moves = append(result.Moves, moveResult{m.Shard, m.From, m.To, m.Bytes})
	}
	total := fmt.Sprintf("%s to move, %s", output.Plural(len(c.Moves), "shard"), output.Bytes(moveBytes(c.Moves)))
	switch {
	case a.out.IsJSON():
		return a.out.Object(result)
	case !g.plan && !c.Changed && len(c.Moves) == 0:
		return a.out.Linef("config %d: nothing to change", c.Num)
	case !g.plan:
		return a.out.Linef("config %d: %s", c.Num, total)
	case len(c.Moves) == 0:
		return a.out.Linef("nothing would move")
	}
	if err := a.printPlan(result.Moves, g.verbose); err != nil {
		return err
	}
	return a.out.Linef("%s", total)
}

// printPlan shows what would move, from group to group or shard by shard.
func (a *app) printPlan(moves []moveResult, verbose bool) error {
	var rows [][]string
	if verbose {
		for _, m := range moves {
			rows = append(rows, []string{fmt.Sprint(m.Shard), gidText(m.From), gidText(m.To), output.Bytes(m.Bytes)})
		}
		return a.out.Rows([]string{"SHARD", "FROM", "TO", "SIZE"}, rows)
	}
	type way struct{ from, to shardcfg.GroupID }
	type sum struct {
		way
		shards int
		bytes  uint64
	}
	var sums []sum
	for _, m := range moves {
		i := slices.IndexFunc(sums, func(s sum) bool { return s.way == way{m.From, m.To} })
		if i < 0 {
			i = len(sums)
			sums = append(sums, sum{way: way{m.From, m.To}})
		}
		sums[i].shards++
		sums[i].bytes += m.Bytes
	}
	slices.SortFunc(sums, func(a, b sum) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	for _, s := range sums {
		rows = append(rows, []string{gidText(s.from), gidText(s.to), output.Count(s.shards), output.Bytes(s.bytes)})
	}
	return a.out.Rows([]string{"FROM", "TO", "SHARDS", "SIZE"}, rows)
}

func moveBytes(moves []clerk.Move) (sum uint64) {
	for _, m := range moves {
		sum += m.Bytes
	}
	return sum
}

// printDone says, for people, that a change has settled.
func (a *app) printDone(s settling, start time.Time, more string) error {
	switch {
	case a.out.IsJSON():
		return nil
	case len(s.moves) == 0:
		return a.out.Linef("done: every shard is in place%s", more)
	default:
		return a.out.Linef("done: %s, %s, %.1f s%s", output.Plural(len(s.moves), "shard"), output.Bytes(moveBytes(s.moves)), time.Since(start).Seconds(), more)
	}
}
