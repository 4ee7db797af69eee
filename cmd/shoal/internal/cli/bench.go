package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/bench"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func (a *app) benchCommand() *cobra.Command {
	o := bench.Options{}
	var load bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put load on the cluster and measure it",
		Long: `Reads and writes evenly drawn keys (bench/0000000000 and up) through the client
library, and reports throughput and latency for reads, writes, and both.

Without --rate each client sends its next operation when the last one is
answered: that finds the throughput. With --rate operations are due at fixed
times, and latencies count from when an operation was due, also if it had to wait
for a client: that finds the latency at a load. All writes are as durable as any.

The keys stay in the store: "shoal bench clean" removes them, and touches no
others. Reads of keys that were never written are cheaper: --load writes each key
once before the measurement.`,
		Example: "  shoal bench --duration 30s --load\n  shoal bench --rate 2000 --read-fraction 0.9 -o json",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	f.IntVar(&o.Clients, "clients", 64, "operations in flight at most")
	f.DurationVar(&o.Duration, "duration", 10*time.Second, "of the measurement")
	f.Float64Var(&o.ReadFraction, "read-fraction", 0.5, "reads among the operations, 0 to 1")
	f.IntVar(&o.ValueSize, "value-size", 128, "`bytes` of a written value")
	f.IntVar(&o.Keys, "keys", 100_000, "number of keys")
	f.Float64Var(&o.Rate, "rate", 0, "operations per second; 0: as fast as answers come")
	f.BoolVar(&load, "load", false, "write every key once, first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Timeout, o.Seed = a.timeout, rand.Uint64()
		if err := o.Check(); err != nil {
			return usageError{err}
		}
		if err := shardcfg.CheckValue(make([]byte, min(o.ValueSize, shardcfg.ValueBytesMax+1))); err != nil {
			return usagef("--value-size is %d: %w", o.ValueSize, err)
		}
		return a.withStore(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			if load {
				if err := a.loadBench(ctx, c, o); err != nil {
					return err
				}
			}
			return a.runBench(ctx, c, o, load)
		})
	}
	cmd.AddCommand(a.benchCleanCommand())
	return cmd
}

func (a *app) benchCleanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove the keys that benchmarks left",
		Long: `Removes the keys that "shoal bench" wrote (bench/ and ten digits or more), of all
runs, and no others. It may be repeated.`,
		Example: "  shoal bench clean",
		Args:    arguments(0, 0),
		RunE: a.storeCommand(func(ctx context.Context, c *clerk.Clerk, _ []string) error {
			var removed atomic.Uint64
			progress := output.StartProgress(a.env.Stderr, "clean", func() output.State { return output.State{Done: removed.Load()} })
			err := bench.Clean(ctx, store{c}, &removed)
			progress.Stop()
			if err != nil {
				return fmt.Errorf("clean ended early, after %s: %w", output.Plural(removed.Load(), "key"), err)
			}
			if a.out.IsJSON() {
				return a.out.Object(struct {
					Deleted uint64 `json:"deleted"`
				}{removed.Load()})
			}
			return a.out.Linef("removed %s", output.Plural(removed.Load(), "key"))
		}),
	}
}

func (a *app) loadBench(ctx context.Context, c *clerk.Clerk, o bench.Options) error {
	var done atomic.Uint64
	progress := output.StartProgress(a.env.Stderr, "load", func() output.State {
		return output.State{Done: done.Load(), Total: uint64(o.Keys)}
	})
	defer progress.Stop()
	return bench.Load(ctx, store{c}, o, &done)
}

func (a *app) runBench(ctx context.Context, c *clerk.Clerk, o bench.Options, loaded bool) error {
	var live bench.Live
	start := time.Now()
	progress := output.StartProgress(a.env.Stderr, "bench", func() output.State {
		elapsed := time.Since(start)
		text := fmt.Sprintf("%.0f ops/s", output.Rate(live.Ops(), elapsed))
		if n := live.Errors(); n > 0 {
			text += fmt.Sprintf(", %s errors", output.Count(n))
		}
		return output.State{Done: uint64(elapsed.Seconds()), Total: uint64(max(1, o.Duration.Seconds())), Unit: "s", Text: text}
	})
	report, err := bench.Run(ctx, store{c}, o, &live)
	progress.Stop()
	if err != nil {
		return err
	}
	if loaded {
		report.KeysLeft = uint64(o.Keys)
	}
	if err := a.printBench(report); err != nil {
		return err
	}
	if report.KeysLeft > 0 {
		atMost := ""
		if report.Writes.Errors > 0 {
			atMost = "up to "
		}
		a.note("%s%s stay in the store (%s and up): 'shoal bench clean' removes them", atMost, output.Plural(report.KeysLeft, "key"), bench.Key(0))
	}
	if misses := report.Reads.NotFound; misses*10 > report.Reads.Ops {
		a.note("%s of %s reads met no key; --load writes all of them first", output.Count(misses), output.Count(report.Reads.Ops))
	}
	if report.FirstError != nil {
		a.note("%s operations failed, the first one with: %v", output.Count(report.All.Errors), report.FirstError)
		if report.All.Ops == 0 {
			return fmt.Errorf("no operation succeeded: %w", report.FirstError)
		}
	}
	return ctx.Err()
}

func (a *app) printBench(r *bench.Report) error {
	if a.out.IsJSON() {
		return a.out.Object(r)
	}
	var rows [][]string
	for _, row := range []struct {
		name string
		s    bench.Summary
	}{{"reads", r.Reads}, {"writes", r.Writes}, {"all", r.All}} {
		micros := func(us int64) string { return output.Duration(time.Duration(us) * time.Microsecond) }
		rows = append(rows, []string{
			row.name, output.Count(row.s.Ops), strconv.FormatFloat(row.s.OpsPerSecond, 'f', 0, 64), output.Count(row.s.Errors),
			micros(row.s.P50us), micros(row.s.P99us), micros(row.s.P999us), micros(row.s.MaxUs),
		})
	}
	return a.out.Rows([]string{"", "OPS", "OPS/S", "ERRORS", "P50", "P99", "P99.9", "MAX"}, rows)
}
