package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// copyRateMin is the least rate of copying that groups accept, in bytes/s.
const copyRateMin = 64 << 10

func (a *app) rebalanceCommand() *cobra.Command {
	var rate byteSize
	cmd := &cobra.Command{
		Use:   "rebalance pause|resume|status",
		Short: "Hold shards back, let them go, or set how fast they are copied",
		Long: `"pause" holds back every handoff that has not begun; those under way go on.
"resume" lets them go. --rate sets how fast each group copies shards, in any of
the three; "status --rate" changes nothing else.

Every replica of every group is told, and the exit code is 3 if one did not
answer. Replicas keep this in memory: one that restarts is neither paused nor at
another rate than the default, and nor is a group that joins later. So look at
the "status", and repeat the command, after either.`,
		Example: "  shoal rebalance pause\n  shoal rebalance resume --rate 32MiB\n  shoal rebalance status",
		Args:    arguments(1, 1),
	}
	cmd.Flags().Var(&rate, "rate", "copy shards this fast, per group, in `bytes/s`: 33554432, 32MiB; at least 64KiB")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change := &kvpb.RebalanceRequest{}
		switch args[0] {
		case "pause", "resume":
			paused := args[0] == "pause"
			change.Paused = &paused
		case "status":
		default:
			return usagef("%q is not pause, resume or status", args[0])
		}
		if cmd.Flags().Changed("rate") {
			if rate < copyRateMin {
				return usagef("--rate is %s: it is at least 64KiB", &rate)
			}
			r := uint64(rate)
			change.BytesPerSecond = &r
		}
		return a.withClerk(cmd.Context(), func(ctx context.Context, c *clerk.Clerk) error {
			return a.rebalance(ctx, c, change)
		})
	}
	return cmd
}

// rebalanceResult is what the replicas answered, as JSON.
type rebalanceResult struct {
	// State is paused or running, or mixed where the replicas differ; empty: none
	// answered.
	State    string             `json:"state"`
	Replicas []rebalanceReplica `json:"replicas"`
}

type rebalanceReplica struct {
	GID            shardcfg.GroupID `json:"gid"`
	ID             string           `json:"id"`
	Address        string           `json:"address"`
	Paused         bool             `json:"paused"`
	BytesPerSecond uint64           `json:"bytes_per_second"`
	Problem        string           `json:"problem,omitempty"` // why it did not answer
}

// rebalance tells every replica of every group.
func (a *app) rebalance(ctx context.Context, c *clerk.Clerk, change *kvpb.RebalanceRequest) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	s, err := c.Admin().Status(ctx)
	if err != nil {
		return err
	}
	cluster := c.Cluster()
	change.Cluster = cluster[:]
	result := rebalanceResult{Replicas: []rebalanceReplica{}}
	for _, g := range s.Groups {
		for _, m := range g.Replicas {
			result.Replicas = append(result.Replicas, rebalanceReplica{GID: g.GID, ID: m.ID, Address: m.Address})
		}
	}
	var asked sync.WaitGroup
	for i := range result.Replicas {
		r := &result.Replicas[i]
		asked.Go(func() {
			conn, err := c.Conn(r.Address)
			if err == nil {
				var answer *kvpb.RebalanceResponse
				answer, err = kvpb.NewKVClient(conn).Rebalance(ctx, change)
				r.Paused, r.BytesPerSecond = answer.GetPaused(), answer.GetBytesPerSecond()
			}
			if err != nil {
				r.Problem = callProblem(err)
			}
		})
	}
	asked.Wait()
	return a.printRebalance(&result)
}

// callProblem is why a call failed, without what gRPC wraps around a connection that
// was refused, or on which the server's first words did not come.
func callProblem(err error) string {
	message := status.Convert(err).Message()
	before, wrapped, _ := strings.Cut(message, "connection error: desc = \"")
	before = strings.TrimSuffix(before, "latest balancer error: ")
	switch _, dialing, refused := strings.Cut(wrapped, "Error while dialing: "); {
	case refused:
		return before + strings.TrimSuffix(dialing, "\"")
	case strings.HasPrefix(wrapped, "error reading server preface"):
		return before + "accepts connections, but does not answer"
	}
	return message
}

func (a *app) printRebalance(result *rebalanceResult) error {
	silent := 0
	var rows [][]string
	for _, r := range result.Replicas {
		state, rate := "running", output.Bytes(r.BytesPerSecond)+"/s"
		switch {
		case r.Problem != "":
			silent++
			rows = append(rows, []string{gidText(r.GID), orDash(r.ID), r.Address, "-", "-", "NO ANSWER " + r.Problem})
			continue
		case r.Paused:
			state = "paused"
		}
		rows = append(rows, []string{gidText(r.GID), orDash(r.ID), r.Address, state, rate, ""})
		if result.State != "" && result.State != state {
			state = "mixed"
		}
		result.State = state
	}
	headings := []string{"GROUP", "ID", "ADDRESS", "REBALANCING", "RATE", "PROBLEM"}
	if silent == 0 {
		headings = headings[:5]
	}
	print := func() error { return a.out.Rows(headings, rows) }
	if a.out.IsJSON() {
		print = func() error { return a.out.Object(result) }
	}
	if err := print(); err != nil {
		return err
	}
	if silent > 0 {
		return codedError{fmt.Errorf("%d of %s did not answer: repeat the command when they are back",
			silent, output.Plural(len(result.Replicas), "replica")), ExitUnavailable}
	}
	return nil
}
