package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A waiting is what commands share that can wait for what they began.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(f *pflag.FlagSet, what string) {
	f.BoolVar(&w.wait, "wait", false, "return when "+what)
	f.DurationVar(&w.timeout, "wait-timeout", 0, "how long --wait may take; 0: as long as it takes")
}

// context bounds the wait.
func (w *waiting) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if w.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, w.timeout)
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
func (a *app) printChange(c clerk.Change, plan bool) error {
	result := changeResult{Config: c.Num, Plan: plan, Moves: []moveResult{}}
	bytes := uint64(0)
	for _, m := range c.Moves {
		result.Moves = append(result.Moves, moveResult{m.Shard, m.From, m.To, m.Bytes})
		bytes += m.Bytes
	}
	switch {
	case a.out.IsJSON():
		return a.out.Object(result)
	case !plan && !c.Changed && len(c.Moves) == 0:
		return a.out.Linef("config %d: nothing to change", c.Num)
	case !plan:
		return a.out.Linef("config %d: %s to move, %s", c.Num, output.Plural(len(c.Moves), "shard"), output.Bytes(bytes))
	}
	var rows [][]string
	for _, m := range result.Moves {
		rows = append(rows, []string{fmt.Sprint(m.Shard), gidText(m.From), gidText(m.To), output.Bytes(m.Bytes)})
	}
	if err := a.out.Rows([]string{"SHARD", "FROM", "TO", "SIZE"}, rows); err != nil {
		return err
	}
	return a.out.Linef("%s to move, %s", output.Plural(len(c.Moves), "shard"), output.Bytes(bytes))
}

// waitSettled shows the shards' way to their owners until all have arrived.
func (a *app) waitSettled(ctx context.Context, admin *clerk.Admin, w *waiting, num shardcfg.ConfigNum) error {
	ctx, cancel := w.context(ctx)
	defer cancel()
	if err := a.out.Flush(); err != nil {
		return err
	}
	var latest shared[output.State]
	progress := output.StartProgress(a.env.Stderr, "shards", latest.get)
	defer progress.Stop()
	err := admin.WaitSettled(ctx, num, func(p clerk.Progress) {
		s := output.State{Done: uint64(max(p.Settled, 0)), Total: uint64(max(p.Total, 0))}
		if p.TotalBytes > 0 {
			s.Text = fmt.Sprintf("%s of %s copied", output.Bytes(p.CopiedBytes), output.Bytes(p.TotalBytes))
		}
		latest.set(s)
	})
	if err != nil {
		return fmt.Errorf("config %d is made, but its shards have not all arrived: %w", num, err)
	}
	return nil
}

// waitDrained waits until groups hold nothing any more.
func (a *app) waitDrained(ctx context.Context, c *clerk.Clerk, w *waiting, gids []shardcfg.GroupID) error {
	ctx, cancel := w.context(ctx)
	defer cancel()
	if err := a.out.Flush(); err != nil {
		return err
	}
	var latest shared[output.State]
	progress := output.StartProgress(a.env.Stderr, "drain", latest.get)
	defer progress.Stop()
	// Two looks at the same thing: the groups that are left decide, the shards on
	// their way are for the display only.
	watch, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = c.Admin().WaitSettled(watch, 0, func(p clerk.Progress) {
			latest.set(output.State{Done: uint64(max(p.Settled, 0)), Total: uint64(max(p.Total, 0)), Text: "shards in place"})
		})
	}()
	err := c.Admin().WaitDrained(ctx, gids, nil)
	stop()
	<-watched
	if err != nil {
		return fmt.Errorf("leaving, but not drained yet: %w", err)
	}
	return nil
}

// changeCommand makes the RunE of a command that changes the configuration.
func (a *app) changeCommand(w *waiting, plan *bool, change func(context.Context, *clerk.Admin, []clerk.ChangeOption, []string) (clerk.Change, error)) func(*cobra.Command, []string) error {
	return a.clerkCommand(func(ctx context.Context, c *clerk.Clerk, args []string) error {
		var options []clerk.ChangeOption
		if *plan {
			options = append(options, clerk.Plan())
		}
		made, err := change(ctx, c.Admin(), options, args)
		if err != nil {
			return err
		}
		if err := a.printChange(made, *plan); err != nil || *plan || !w.wait {
			return err
		}
		return a.waitSettled(ctx, c.Admin(), w, made.Num)
	})
}
