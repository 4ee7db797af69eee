// Package check finds out whether a cluster keeps its promises: it runs the
// mixed workload of integration/workload, reads every key at the end, and
// judges what the clients saw with integration/history.
//
// A check is bounded: by OpsMax operations (about 350 MB with all that is
// recorded of them), by a fresh key for every keyOpsMax operations, so that
// values and the search for an order stay small, and by DecideMax for the
// decision. Undecided is a failure. It is bounded in time whatever the cluster
// does: the workload ends within one operation's timeout of its duration, the final
// reads and the cleaning up take a minute each at most. What can't be read at the
// end leaves no verdict, and where nothing succeeded that is said at once.
//
// Run owns the workload's goroutines and those that delete the keys, and waits
// for them. The package imports clerk and the two packages named above.
package check

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/integration/workload"
)

// Bounds of a check.
const (
	// OpsMax is how many operations are recorded; the workload ends early there.
	OpsMax = 500_000
	// DecideMax is how long the decision may take.
	DecideMax = time.Minute
	// ClientsMax bounds the clients: each is a session with its own connections.
	ClientsMax = 256
	// KeysMax bounds the keys that are in use at once.
	KeysMax = 10_000

	keyOpsMax     = 1000
	readMax       = time.Minute // for the final reads
	pictureMax    = 20 * time.Second
	lookEach      = 20 * time.Millisecond
	deletesAtOnce = 64
)

// Options say what to run.
type Options struct {
	Clients   int
	Keys      int // registers, and as many keys that are only appended to
	Duration  time.Duration
	OpTimeout time.Duration // of one operation; 0: 10 s
	// HTML is a file for the picture of the offending key, or of the busiest one;
	// empty: none.
	HTML string
	// Watch, if not nil, shows a phase of the check until the function that it
	// returns is called.
	Watch func(phase string, sample func() Progress) (stop func())
}

// Progress is how far a phase is.
type Progress struct {
	Done, Total uint64
	Unit        string // what they count
	Text        string
}

// Check returns what is wrong with the options, for people.
func (o Options) Check() error {
	switch {
	case o.Clients < 1 || o.Clients > ClientsMax:
		return fmt.Errorf("--clients is %d: it is 1 to %d", o.Clients, ClientsMax)
	case o.Keys < 1 || o.Keys > KeysMax:
		return fmt.Errorf("--keys is %d: it is 1 to %d", o.Keys, KeysMax)
	case o.Duration <= 0:
		return fmt.Errorf("--duration is %v: it must be above 0", o.Duration)
	}
	return nil
}

// A Report is what was found.
type Report struct {
	Ops          int  `json:"ops"` // operations that were answered, in whatever way
	Unknown      int  `json:"unknown_outcomes"`
	Linearizable bool `json:"linearizable"`
	// Tokens of appends that are in the final value twice, and acknowledged ones
	// that are not there.
	Duplicates int `json:"duplicates"`
	Lost       int `json:"lost"`

	// Refused: appends that were not done, and are there; Disordered: appends of
	// one client that stand in another order than it made them.
	Refused    int `json:"refused_but_done"`
	Disordered int `json:"disordered"`
	NotDone    int `json:"not_done"`
	// Undecided: the time did not suffice to find out whether it is linearizable.
	Undecided bool    `json:"undecided"`
	Keys      int     `json:"keys"`
	Seconds   float64 `json:"seconds"`        // of the workload
	Decision  float64 `json:"decide_seconds"` // of the decision
	// Key is the key that decided against the cluster; empty if none did.
	Key string `json:"key,omitempty"`
	// Remaining begins the names of the keys that are still in the cluster; empty:
	// all were deleted.
	Remaining string `json:"remaining,omitempty"`
	// Tokens says in words what is wrong with the appends; empty if nothing is.
	Tokens string `json:"tokens,omitempty"`

	// Full: it ended early, at OpsMax.
	Full bool `json:"-"`
	// PictureErr, if not nil, is why there is no picture. The verdict stands.
	PictureErr error `json:"-"`
}

// OK reports whether every promise that was checked was kept.
func (r *Report) OK() bool {
	return r.Linearizable && !r.Undecided && r.Tokens == ""
}

// A run is one check in progress.
type run struct {
	o         Options
	witnesses []*witness
	prefix    string
	recorder  *history.Recorder
	load      *workload.Load
	report    Report
}

// Run checks the cluster behind the stores, of which each client uses one, for
// o.Duration, or until ctx ends; it judges either way. If the report is OK, the
// keys were deleted; else they stay, to be looked at. An error means that there
// is no verdict; the report then still says which keys remain.
func Run(ctx context.Context, stores []workload.Store, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.HTML != "" { // a run is too long to learn at its end that this fails
		if err := os.WriteFile(o.HTML, nil, 0o666); err != nil {
			return nil, err
		}
	}
	if o.Watch == nil {
		o.Watch = func(string, func() Progress) func() { return func() {} }
	}
	r := &run{o: o, prefix: "check/" + rand.Text()[:8] + "/", recorder: history.NewRecorder()}
	for _, s := range stores {
		r.witnesses = append(r.witnesses, &witness{store: s, within: context.Background()})
	}
	r.report.Remaining = r.prefix
	worked, err := r.work(ctx)
	if err != nil {
		return &r.report, err
	}
	if worked == 0 {
		return &r.report, because(errors.New("no verdict, because no operation succeeded"), r.lastFailure())
	}
	// Who interrupts the workload wants the verdict on what ran; who interrupts what
	// follows does not.
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	final, err := r.readAll(ctx)
	if err != nil {
		return &r.report, err
	}
	r.judge(final)
	if r.report.OK() {
		r.deleteAll(ctx)
	}
	return &r.report, nil
}

// work runs the workload and returns how many operations succeeded.
func (r *run) work(ctx context.Context) (succeeded uint64, err error) {
	start := time.Now()
	var stores []workload.Store
	for _, w := range r.witnesses {
		stores = append(stores, w)
	}
	r.load, err = workload.Start(stores, workload.Options{
		Prefix: r.prefix, Clients: r.o.Clients, Keys: r.o.Keys, KeyOpsMax: keyOpsMax, OpTimeout: r.o.OpTimeout,
		Seed: uint64(start.UnixNano()),
	}, r.recorder)
	if err != nil {
		return 0, err
	}
	stop := r.o.Watch("check", func() Progress {
		return Progress{
			Done: uint64(time.Since(start).Seconds()), Total: uint64(max(1, r.o.Duration.Seconds())), Unit: "s",
			Text: fmt.Sprintf("%d ops, %d unknown, longest wait %v",
				r.load.Calls(), r.load.Unknown(), r.load.LongestWait().Round(time.Millisecond)),
		}
	})
	defer stop()
	end := time.NewTimer(r.o.Duration)
	defer end.Stop()
	look := time.NewTicker(lookEach)
	defer look.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-end.C:
			running = false
		case <-look.C:
			r.report.Full = r.load.Calls() >= OpsMax
			running = !r.report.Full
		}
	}
	r.load.Stop()
	r.report.Seconds = time.Since(start).Seconds()
	return r.load.Finished(), nil
}

// readAll reads all keys, as a part of the history.
func (r *run) readAll(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readMax, fmt.Errorf("not read within %v", readMax))
	defer cancel()
	registers, appendOnly := r.load.Keys()
	r.report.Keys = len(registers) + len(appendOnly)
	reader := &witness{store: r.witnesses[0].store, within: ctx}
	defer r.o.Watch("final reads", func() Progress {
		p := Progress{Done: reader.succeeded.Load(), Total: uint64(r.report.Keys)}
		if err := reader.lastFailure(); err != nil {
			p.Text = err.Error()
		}
		return p
	})()
	final, err := r.load.ReadAll(ctx, reader)
	if err != nil {
		return nil, because(fmt.Errorf("no verdict, because a key could not be read at the end: %w", err), reader.lastFailure())
	}
	return final, nil
}

// because adds a cause, if there is one.
func because(err, cause error) error {
	if cause == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// lastFailure is why some operation of the workload failed last; nil: none did.
func (r *run) lastFailure() error {
	for _, w := range r.witnesses {
		if err := w.lastFailure(); err != nil {
			return err
		}
	}
	return nil
}

// judge decides, and draws the picture.
func (r *run) judge(final map[string]string) {
	defer r.o.Watch("decide", func() Progress { return Progress{} })()
	h := r.recorder.History()
	tokens := h.CheckTokens(final)
	start := time.Now()
	verdict := h.Linearizable(DecideMax)
	p := &r.report
	p.Ops, p.Unknown, p.NotDone = len(h), h.Count(history.Unknown), h.Count(history.NotDone)
	p.Linearizable, p.Undecided, p.Key = verdict.Linearizable, verdict.Undecided, verdict.Key
	p.Duplicates, p.Lost = len(tokens.Duplicated), len(tokens.Lost)
	p.Refused, p.Disordered = len(tokens.Forbidden), len(tokens.Disordered)
	p.Decision = time.Since(start).Seconds()
	if !tokens.OK() {
		p.Tokens = tokens.String()
		if p.Key == "" {
			p.Key = keyOfToken(h, slices.Concat(tokens.Lost, tokens.Duplicated, tokens.Forbidden, tokens.Disordered)[0])
		}
	}
	if r.o.HTML == "" {
		return
	}
	key := p.Key
	if key == "" {
		key = h.Busiest()
	}
	p.PictureErr = h.Visualize(key, r.o.HTML, pictureMax)
}

// keyOfToken finds the key that a token was appended to.
func keyOfToken(h history.History, token string) string {
	for i := range h {
		if h[i].Kind == history.Append && h[i].Value == token {
			return h[i].Key
		}
	}
	return ""
}

// deleteAll deletes the keys, many at a time. A write whose outcome is unknown
// might bring one back, late; the report then does not know.
func (r *run) deleteAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readMax)
	defer cancel()
	registers, appendOnly := r.load.Keys()
	keys := slices.Concat(registers, appendOnly)
	var done, failed atomic.Uint64
	defer r.o.Watch("clean up", func() Progress { return Progress{Done: done.Load(), Total: uint64(len(keys))} })()
	todo := make(chan string)
	var wait sync.WaitGroup
	for i := range min(deletesAtOnce, len(keys)) {
		store := r.witnesses[i%len(r.witnesses)]
		wait.Go(func() {
			for key := range todo {
				if err := store.Delete(ctx, []byte(key)); clerk.FamilyOf(err) != clerk.FamilyDone {
					failed.Add(1)
				}
				done.Add(1)
			}
		})
	}
	for _, key := range keys {
		todo <- key
	}
	close(todo)
	wait.Wait()
	if failed.Load() == 0 {
		r.report.Remaining = ""
	}
}
