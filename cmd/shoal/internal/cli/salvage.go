package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/cmd/shoal/internal/replica"
	"github.com/shoalkv/shoal/cmd/shoal/internal/transfer"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/salvage"
)

func (a *app) salvageCommand() *cobra.Command {
	var frozen, stateOnly bool
	cmd := &cobra.Command{
		Use:   "salvage DIR OUT",
		Short: "Export what the directory of a stopped replica holds",
		Long: `For a group that has lost a majority of its disks: writes what the data directory DIR
of one replica that is left holds to OUT, which "shoal import" reads. OUT is a new
file that ends in .jsonl, or a directory for a file each (see "shoal export").

The replica must be stopped. DIR is not changed, and needs no cluster around it. The
copy that is read is made beside OUT, and deleted. It is brought up to the end of the
replica's log: nobody can tell which of the entries behind its state were
acknowledged, so all are applied. What the group acknowledged without this replica is
not there; the command says from which entry the export is.

Only shards that the group served then are exported. Shards that it had frozen, on
their way to another group, are named: that group may serve newer data by now. So are
shards that it should have served and whose data DIR lacks. "shoal reform" brings the
group back from the same directory, and asks the other groups first who has newer
data.`,
		Example: "  shoal salvage /var/lib/shoal/g2b rescued.jsonl",
		Args:    arguments(2, 2),
	}
	cmd.Flags().BoolVar(&frozen, "frozen", false, "export frozen shards too: older than what their receivers may serve")
	cmd.Flags().BoolVar(&stateOnly, "state-only", false, "leave the log alone, if it is damaged: more writes are lacking then")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, out := args[0], args[1]
		parent := filepath.Dir(filepath.Clean(out))
		temp, err := os.MkdirTemp(parent, ".shoal-salvage-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		return a.withSalvage(salvage.Options{Dir: dir, Copy: filepath.Join(temp, "copy"), Link: true, StateOnly: stateOnly}, func(s *salvage.Salvage) error {
			return a.exportSalvage(cmd.Context(), s, out, frozen)
		})
	}
	return cmd
}

// withSalvage opens the copy of a directory, and closes it.
func (a *app) withSalvage(o salvage.Options, do func(*salvage.Salvage) error) error {
	progress := output.StartProgress(a.env.Stderr, "copy "+o.Dir, func() output.State { return output.State{} })
	s, err := salvage.Open(o)
	if err == nil {
		err = s.Check()
	}
	progress.Stop()
	if s == nil {
		return salvageFailure(err)
	}
	if err == nil {
		err = do(s)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		err = errors.Join(err, os.RemoveAll(o.Copy)) // half of it is of no use
	}
	return salvageFailure(err)
}

// salvageFailure gives an error its exit code.
func salvageFailure(err error) error {
	refused := (*salvage.RefusedError)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused), errors.As(err, new(*host.LockedError)), replica.Refused(err):
		return codedError{fmt.Errorf("not done: %w", err), ExitRefused}
	case replica.Usage(err):
		return usageError{err}
	case errors.Is(err, fs.ErrExist):
		return codedError{fmt.Errorf("not done: %w: name one that does not exist", err), ExitRefused}
	case errors.Is(err, fs.ErrNotExist):
		return codedError{fmt.Errorf("not done: %w", err), ExitCondition}
	}
	return err
}

func (a *app) exportSalvage(ctx context.Context, s *salvage.Salvage, out string, frozen bool) error {
	var live transfer.Live
	progress := output.StartProgress(a.env.Stderr, "salvage", transferState(&live))
	var result transfer.ExportResult
	var err error
	if strings.HasSuffix(out, ".jsonl") {
		result, err = transfer.ExportLines(ctx, s.Reader(frozen), out, &live)
	} else {
		result, err = transfer.Export(ctx, s.Reader(frozen), nil, out, &live)
	}
	progress.Stop()
	if err != nil {
		return err
	}
	r := salvageResultOf(s.Found())
	r.Out, r.Keys, r.Bytes, r.Seconds = out, result.Keys, result.Bytes, result.Seconds
	if a.out.IsJSON() {
		return a.out.Object(r)
	}
	text := []string{fmt.Sprintf("exported %s, %s, of %s of group %d, as replica %s had them, to %s", output.Plural(r.Keys, "key"), output.Bytes(r.Bytes),
		output.Plural(len(s.Found().Served), "shard"), r.GID, r.ID, out)}
	text = append(text, r.describe()...)
	if frozen && len(r.Frozen) > 0 {
		text = append(text, "exported too, though frozen: shards "+rangesText(r.Frozen))
	}
	return a.out.Linef("%s", strings.Join(text, "\n"))
}

// salvageResult is what a directory held, as JSON.
type salvageResult struct {
	GID          shardcfg.GroupID   `json:"gid"`
	ID           string             `json:"id"`
	Incarnation  string             `json:"incarnation"`
	StateIndex   uint64             `json:"state_index"`   // the state stood here; committed
	AppliedIndex uint64             `json:"applied_index"` // with the log's tail applied
	TailEntries  int                `json:"tail_entries"`  // perhaps never committed
	Clock        time.Time          `json:"clock"`         // of the last entry
	Config       shardcfg.ConfigNum `json:"config"`
	Served       []rangeResult      `json:"served"`
	Frozen       []rangeResult      `json:"frozen"`
	Lacking      []rangeResult      `json:"lacking"`
	Out          string             `json:"out"`
	Keys         uint64             `json:"keys"`
	Bytes        uint64             `json:"bytes"`
	Seconds      float64            `json:"seconds"`
}

func salvageResultOf(f salvage.Found) salvageResult {
	return salvageResult{
		GID: f.Identity.Group, ID: f.Identity.Label, Incarnation: f.Identity.Incarnation.String(),
		StateIndex: f.StateIndex, AppliedIndex: f.AppliedIndex, TailEntries: f.Entries, Clock: time.UnixMilli(int64(f.Clock)).UTC(),
		Config: f.Config, Served: rangesOf(f.Served), Frozen: rangesOf(f.Frozen), Lacking: rangesOf(f.Lacking),
	}
}

// describe says what may be missing.
func (r *salvageResult) describe() []string {
	text := []string{fmt.Sprintf("from entry %d of the group's log, written at %s", r.AppliedIndex, r.Clock.Format(time.RFC3339))}
	if r.TailEntries > 0 {
		text = append(text, fmt.Sprintf("certain up to entry %d; what the log holds behind it, %d more, was applied too and may never have been acknowledged", r.StateIndex, r.TailEntries))
	}
	text = append(text, "what the group acknowledged later, without this replica, is not in it")
	if len(r.Frozen) > 0 {
		text = append(text, "frozen, on their way to another group that may have newer data: shards "+rangesText(r.Frozen))
	}
	if len(r.Lacking) > 0 {
		text = append(text, "LACKING, though the group should have served them: shards "+rangesText(r.Lacking))
	}
	return text
}

// rangesOf puts ascending shards into ranges.
func rangesOf(shards []shardcfg.ShardID) []rangeResult {
	out := []rangeResult{}
	for _, s := range shards {
		if n := len(out); n > 0 && out[n-1].Last+1 == s {
			out[n-1].Last = s
		} else {
			out = append(out, rangeResult{s, s})
		}
	}
	return out
}

func rangesText(ranges []rangeResult) string {
	var parts []string
	for _, r := range ranges {
		if r.First == r.Last {
			parts = append(parts, fmt.Sprint(r.First))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	return strings.Join(parts, ", ")
}

func (a *app) reformCommand() *cobra.Command {
	var gid uint64
	var id, address string
	var stateOnly bool
	cmd := &cobra.Command{
		Use:   "reform DIR NEW-DIR --address HOST:PORT",
		Short: "Begin a new group with what the directory of a stopped replica holds",
		Long: `For a group that has lost a majority of its disks: makes of the data directory DIR of
one replica that is left the data directory NEW-DIR of the first replica of a new
group. DIR is not changed, and its replica must be stopped and never be started
again. If several are left, take the one for which this command names the latest
entry.

The new group serves nothing by itself. Retire the old group, start the new one's
first replica on NEW-DIR, let it join, and repair:

  shoal retire GID --destroyed
  shoal reform DIR NEW-DIR --address HOST:PORT
  shoal server --data NEW-DIR --listen HOST:PORT --id ID --group GID ...
  shoal join GID HOST:PORT
  shoal repair --plan
  shoal repair --accept-data-loss --copies-only --wait

"repair" asks every group who has newer data, and lets the new group's copy of a shard
be served again where nobody has. What the old group acknowledged without this
replica is lost; every client's session begins anew, so that no retry from before is
executed twice. Then add replicas ("shoal replicas GID add").`,
		Example: "  shoal reform /var/lib/shoal/g2b /var/lib/shoal/g2-new --address 10.0.0.7:7400",
		Args:    arguments(2, 2),
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "`HOST:PORT` at which the new replica will be reached")
	f.Uint64Var(&gid, "group", 0, "`gid` of the new group (default: the old one's)")
	f.StringVar(&id, "id", "", "`label` of the new replica (default: the old one's)")
	f.BoolVar(&stateOnly, "state-only", false, "leave the log alone, if it is damaged: more writes are lacking then")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkAddress(address); err != nil {
			return usagef("--address: %w", err)
		}
		return a.withSalvage(salvage.Options{Dir: args[0], Copy: args[1], StateOnly: stateOnly}, func(s *salvage.Salvage) error {
			found := s.Found()
			if gid != 0 {
				found.Identity.Group = shardcfg.GroupID(gid)
			}
			if id != "" {
				found.Identity.Label = id
			}
			fresh, err := s.Reform(found.Identity.Group, found.Identity.Label, address)
			if err != nil {
				return err
			}
			r := salvageResultOf(s.Found())
			r.GID, r.ID, r.Incarnation, r.Out = fresh.Group, fresh.Label, fresh.Incarnation.String(), args[1]
			if a.out.IsJSON() {
				return a.out.Object(r)
			}
			text := append([]string{fmt.Sprintf("made %s the directory of replica %s of a new group %d, incarnation %s: %s wait for a repair", args[1], r.ID, r.GID,
				r.Incarnation, output.Plural(len(found.Served)+len(found.Frozen), "shard"))}, r.describe()...)
			return a.out.Linef("%s", strings.Join(text, "\n"))
		})
	}
	return cmd
}
