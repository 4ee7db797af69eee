package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/check"
	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/integration/workload"
)

func (a *app) checkCommand() *cobra.Command {
	o := check.Options{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find out whether the cluster keeps its promises",
		Long: fmt.Sprintf(`Runs gets, puts, appends, conditional puts and deletes against a live cluster,
each client with a session of its own, and records what every client asked and
was told. Then it reads every key, and decides: is there one order of all
operations that explains all answers (linearizability, with porcupine), and is
every appended token there exactly once? Break the cluster meanwhile: kill
leaders, join and leave groups.

The exit code is 0 only if the history was proved linearizable, with no append
lost or doubled. Undecided within %v counts as a failure. Ctrl-C ends the
workload early, and what ran is judged. If keys can't be read for a minute after
the workload (or until Ctrl-C), there is no verdict, and the message says which
shard did not serve.

Half of the keys are only appended to. After a thousand operations a fresh key
takes a key's place, and after %s operations the workload ends, so that
memory (about 350 MB) and the decision (seconds) stay bounded. The keys have a
random prefix, check/XXXXXXXX/, and are deleted in the end; if the check fails
they stay.

--html writes a picture of the history of the key that shows what is wrong, or of
the busiest key.`, check.DecideMax, output.Count(check.OpsMax)),
		Example: "  shoal check --duration 1m\n  shoal check --clients 32 --keys 16 --html history.html -o json",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	f.IntVar(&o.Clients, "clients", 16, "clients, each with a session of its own and one operation in flight")
	f.IntVar(&o.Keys, "keys", 64, "number of keys to read and write; and again to append to")
	f.DurationVar(&o.Duration, "duration", 30*time.Second, "of the workload")
	f.StringVar(&o.HTML, "html", "", "write the picture of a key's history to this `file`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Check(); err != nil {
			return usageError{err}
		}
		o.OpTimeout = a.timeout
		o.Watch = func(phase string, sample func() check.Progress) func() {
			return output.StartProgress(a.env.Stderr, phase, func() output.State { return output.State(sample()) }).Stop
		}
		return a.withClerks(cmd.Context(), o.Clients, func(ctx context.Context, clerks []*clerk.Clerk) error {
			var stores []workload.Store
			for _, c := range clerks {
				stores = append(stores, c)
			}
			return a.runCheck(ctx, stores, o)
		})
	}
	return cmd
}

// withClerks opens n Clerks for the time of one command.
func (a *app) withClerks(ctx context.Context, n int, do func(context.Context, []*clerk.Clerk) error) error {
	clerks := make([]*clerk.Clerk, n)
	var open errgroup.Group
	for i := range clerks {
		open.Go(func() (err error) {
			clerks[i], err = a.open(ctx)
			return err
		})
	}
	err := open.Wait()
	if err == nil {
		err = a.needGroup(ctx, clerks[0])
	}
	if err == nil {
		err = do(ctx, clerks)
	}
	for _, c := range clerks {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

func (a *app) runCheck(ctx context.Context, stores []workload.Store, o check.Options) error {
	r, err := check.Run(ctx, stores, o)
	if err != nil {
		if r != nil {
			a.noteRemaining(r)
		}
		return codedError{err, ExitFailed}
	}
	if err := a.printCheck(r); err != nil {
		return err
	}
	switch {
	case r.Full:
		a.note("ended early, after %s operations: more are not recorded", output.Count(check.OpsMax))
	case ctx.Err() != nil:
		a.note("interrupted after %s; what ran was judged", output.Duration(time.Duration(r.Seconds*float64(time.Second))))
	}
	if o.HTML != "" && r.PictureErr == nil {
		a.note("the picture of a key's history is in %s", o.HTML)
	}
	a.noteRemaining(r)
	return checkFailure(r)
}

// noteRemaining names the keys that the check left.
func (a *app) noteRemaining(r *check.Report) {
	if r.Remaining != "" {
		a.note("the check's keys remain: shoal scan --keys-only --prefix %s", r.Remaining)
	}
}

// checkFailure says what was found; nil: nothing.
func checkFailure(r *check.Report) error {
	var found []error
	switch {
	case r.Undecided:
		found = append(found, fmt.Errorf("not decided within %v whether key %q is linearizable", check.DecideMax, r.Key))
	case !r.Linearizable:
		found = append(found, fmt.Errorf("not linearizable: no order of the operations on key %q explains their answers", r.Key))
	}
	if r.Tokens != "" {
		found = append(found, fmt.Errorf("not exactly once: appends: %s", r.Tokens))
	}
	if r.PictureErr != nil {
		found = append(found, fmt.Errorf("the verdict stands, but its picture was not written: %w", r.PictureErr))
	}
	if len(found) == 0 {
		return nil
	}
	return codedError{errors.Join(found...), ExitFailed}
}

func (a *app) printCheck(r *check.Report) error {
	if a.out.IsJSON() {
		return a.out.Object(r)
	}
	verdict := "yes"
	switch {
	case r.Undecided:
		verdict = "undecided"
	case !r.Linearizable:
		verdict = "NO"
	}
	return a.out.Rows([]string{"OPS", "NOT DONE", "UNKNOWN", "KEYS", "SECONDS", "LINEARIZABLE", "DUPLICATES", "LOST"}, [][]string{{
		output.Count(r.Ops), output.Count(r.NotDone), output.Count(r.Unknown), output.Count(r.Keys),
		fmt.Sprintf("%.1f", r.Seconds), verdict, output.Count(r.Duplicates), output.Count(r.Lost),
	}})
}
