package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

// A settling is a change that was made, and is waited for.
type settling struct {
	verb  string
	num   shardcfg.ConfigNum // the configuration that it made
	moves []clerk.Move       // as far as the change says
}

// An unsettledError is the end of a wait for a change: the change is done,
// whatever ended the wait.
type unsettledError struct {
	verb    string
	shards  int // on their way; below 0: not known
	leaving []shardcfg.GroupID
	cause   error
}

func (e *unsettledError) Unwrap() error { return e.cause }

// Error names the one family that is true of the change, and none of the wait.
func (e *unsettledError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: done; not settled yet: ", e.verb)
	if e.shards < 0 {
		b.WriteString("how many shards are on their way is not known")
	} else {
		b.WriteString(output.Plural(e.shards, "shard") + " on their way")
	}
	if len(e.leaving) > 0 {
		fmt.Fprintf(&b, ", %s leaving", output.Plural(len(e.leaving), "group"))
	}
	var failed *clerk.Error
	switch {
	case errors.Is(e.cause, context.DeadlineExceeded):
		b.WriteString(": the wait timed out")
	case errors.Is(e.cause, context.Canceled):
		b.WriteString(": the wait was interrupted")
	case errors.As(e.cause, &failed):
		b.WriteString(": " + failed.Cause.Error())
	default:
		b.WriteString(": " + e.cause.Error())
	}
	if errors.As(e.cause, &failed) && failed.Detail != "" {
		b.WriteString("; the last look failed: " + failed.Detail)
	}
	b.WriteString(" ('shoal status' says what they wait for)")
	return b.String()
}

// waitSettled shows the shards' way to their owners until all have arrived.
func (a *app) waitSettled(ctx context.Context, admin *clerk.Admin, w *waiting, s settling) error {
	ctx, cancel := w.context(ctx)
	defer cancel()
	if err := a.out.Flush(); err != nil {
		return err
	}
	start := time.Now()
	var latest shared[output.State]
	progress := output.StartProgress(a.env.Stderr, "shards", latest.get)
	unsettled := unsettledError{verb: s.verb, shards: -1}
	err := admin.WaitSettled(ctx, s.num, func(p clerk.Progress) {
		latest.set(shardsState(p))
		unsettled.shards = p.Total - p.Settled
	})
	progress.Stop()
	if err != nil {
		unsettled.cause = err
		return &unsettled
	}
	return a.printDone(s, start, "")
}

// waitDrained waits until groups hold nothing any more.
func (a *app) waitDrained(ctx context.Context, c *clerk.Clerk, w *waiting, s settling, gids []shardcfg.GroupID) error {
	ctx, cancel := w.context(ctx)
	defer cancel()
	if err := a.out.Flush(); err != nil {
		return err
	}
	start := time.Now()
	var latest, looked shared[output.State]
	progress := output.StartProgress(a.env.Stderr, "drain", latest.get)
	// Two looks at the same thing: the groups that are left decide, the shards on
	// their way are for people.
	watch, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = c.Admin().WaitSettled(watch, s.num, func(p clerk.Progress) {
			latest.set(shardsState(p))
			looked.set(output.State{Done: uint64(max(p.Settled, 0)), Total: uint64(max(p.Total, 0))})
		})
	}()
	unsettled := unsettledError{verb: s.verb, shards: -1, leaving: gids}
	err := c.Admin().WaitDrained(ctx, gids, func(left []shardcfg.GroupID) { unsettled.leaving = left })
	stop()
	<-watched
	progress.Stop()
	if err != nil {
		if last := looked.get(); last.Total > 0 {
			unsettled.shards = int(last.Total - last.Done)
		}
		unsettled.cause = err
		return &unsettled
	}
	return a.printDone(s, start, "; nothing is left on "+groupList(gids))
}

// shardsState shows how far shards are on their way.
func shardsState(p clerk.Progress) output.State {
	s := output.State{Done: uint64(max(p.Settled, 0)), Total: uint64(max(p.Total, 0))}
	if p.TotalBytes > 0 {
		s.Text = fmt.Sprintf("%s of %s copied", output.Bytes(p.CopiedBytes), output.Bytes(p.TotalBytes))
	}
	return s
}

// groupList names groups in a sentence: group 1; groups 1, 2.
func groupList(gids []shardcfg.GroupID) string {
	if len(gids) == 1 {
		return "group " + gidText(gids[0])
	}
	var names []string
	for _, gid := range gids {
		names = append(names, gidText(gid))
	}
	return "groups " + strings.Join(names, ", ")
}
