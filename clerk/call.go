package clerk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A call is one operation under way. Its caller's goroutine owns it.
type call struct {
	name  string // of the operation, for errors
	key   []byte
	op    *kvpb.Operation // nil for a scan
	route route.Op
	// send makes one attempt at an address and returns how it ended.
	send func(ctx context.Context, addr string) ending
	// slots has one for it, while it is under way.
	slots slots
	// Of a write.
	session *route.Session
	own     bool // the session is of the book; else the identity is explicit
	// outcome is that of the last reply, clock the cluster's clock as it told it.
	outcome *kvpb.Outcome
	clock   uint64
}

// do executes one operation of the key/value service.
func (c *Clerk) do(ctx context.Context, name string, op *kvpb.Operation, o writeOptions) (*kvpb.Outcome, error) {
	if problem := check(op, o); problem != "" {
		return nil, &Error{Op: name, Key: op.GetKey(), Family: FamilyNotDone, Cause: ErrInvalid, Detail: problem}
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	write := op.GetGet() == nil
	explicit := write && !o.identity.IsZero()
	w := &call{name: name, key: op.GetKey(), op: op}
	w.route = route.NewOp(shardcfg.SlotOf(op.GetKey()), write, explicit || !c.config.Session.IsZero(), explicit)
	w.send = func(ctx context.Context, addr string) ending { return c.attempt(ctx, w, addr) }
	switch {
	case explicit:
		// It acknowledges nothing: it can't know what else of that session is open.
		w.session = &route.Session{ID: o.identity.Session, BirthMS: o.identity.BirthMS}
		op.Sequence = o.identity.Sequence
	case write:
		w.own = true
	}
	if err := c.acquire(ctx, w); err != nil {
		return nil, err
	}
	defer w.release()
	if w.own {
		w.session, op.Sequence = c.sessions.begin(c.now())
	}
	err := c.drive(ctx, w)
	if w.own {
		c.sessions.finish(w.session, w.op.GetSequence(), FamilyOf(err) != FamilyOutcomeUnknown)
	}
	if err != nil {
		return nil, err
	}
	return w.outcome, nil
}

// drive takes the routing machine's decisions and carries them out, until the
// operation ends.
func (c *Clerk) drive(ctx context.Context, w *call) error {
	d := c.table.step(func(t *route.Table) route.Decision { return t.Start(&w.route) })
	for {
		// An answer that has come counts, even if it is late. Nothing else is begun
		// for a call that is over.
		if d.Kind != route.Done && d.Kind != route.Fail {
			if why := c.over(ctx); why != nil {
				return c.failure(w, why)
			}
		}
		switch d.Kind {
		case route.Send:
			e := w.send(ctx, d.Addr)
			if e.abandoned {
				c.table.change(func(t *route.Table) { t.Abandon(&w.route, e.sent, e.lost) })
				return c.failure(w, c.over(ctx))
			}
			d = c.table.step(func(t *route.Table) route.Decision {
				if e.lost != "" {
					return t.Lost(&w.route, e.sent, e.lost)
				}
				return t.Reply(&w.route, e.reply)
			})
			w.outcome, w.clock = e.outcome, e.clock
		case route.Wait:
			if d.Refresh {
				c.refresh.want()
			}
			c.pause(ctx, d)
			d = c.table.step(func(t *route.Table) route.Decision { return t.Tick(&w.route) })
		case route.Restamp:
			c.sessions.refused(w.session, w.op.GetSequence(), d.Ahead, w.clock, c.now())
			c.pause(ctx, d)
			w.restamp(c)
			d = c.table.step(func(t *route.Table) route.Decision { return t.Start(&w.route) })
		case route.Fail:
			return c.failure(w, causeOf(d.Reason, w.outcome))
		case route.Done:
			return w.done()
		}
	}
}

// over is why a call is not to go on: its context ended, or the Clerk was closed;
// nil: it is.
func (c *Clerk) over(ctx context.Context) error {
	switch {
	case c.life.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ended(ctx)
	}
	return nil
}

// restamp gives the write a fresh identity. The operation is copied: the old one
// may still be on its way through a lane.
func (w *call) restamp(c *Clerk) {
	fresh := &kvpb.Operation{Key: w.op.GetKey(), Kind: w.op.GetKind()}
	w.session, fresh.Sequence = c.sessions.begin(c.now())
	w.op = fresh
}

// again marks the operation as one that may have been executed before. It is copied
// for the same reason.
func (w *call) again() {
	w.op = &kvpb.Operation{Key: w.op.GetKey(), Kind: w.op.GetKind(), Sequence: w.op.GetSequence(), Retry: true}
}

// attempt makes one attempt through the lane of an address.
func (c *Clerk) attempt(ctx context.Context, w *call, addr string) ending {
	l, err := c.pool.lane(addr)
	if err != nil {
		return ending{lost: err.Error()}
	}
	if w.route.Unresolved() && !w.op.GetRetry() {
		w.again()
	}
	const overheadBytes = 64
	a := &attempt{
		op: w.op, session: w.session, done: make(chan ending, 1),
		bytes: len(w.op.GetKey()) + len(operand(w.op)) + overheadBytes,
	}
	a.deadline, _ = ctx.Deadline()
	l.enqueue(a)
	select {
	case e := <-a.done:
		return e
	case <-ctx.Done():
	case <-c.life.Done():
	}
	return l.withdraw(a)
}

// pause waits as a decision says, spread over the upper half of the time.
func (c *Clerk) pause(ctx context.Context, d route.Decision) {
	if d.WaitMS == 0 {
		return
	}
	limit := time.Duration(d.WaitMS) * time.Millisecond
	var learned <-chan struct{}
	if d.Blind {
		learned = c.table.changes()
	}
	timer := time.NewTimer(limit/2 + rand.N(limit/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-learned:
	case <-ctx.Done():
	case <-c.life.Done():
	}
}

// done turns the outcome of an executed operation into the caller's error.
func (w *call) done() error {
	switch w.outcome.GetCode() {
	case kvpb.Code_NOT_FOUND:
		return &Error{Op: w.name, Key: w.key, Cause: ErrNotFound}
	case kvpb.Code_VERSION_MISMATCH:
		return &Error{Op: w.name, Key: w.key, Cause: ErrVersionMismatch, Present: Version(w.outcome.GetVersion())}
	}
	return nil
}

// failure makes the error of an operation that ends without an answer. What it
// says of the effect is true whatever the cause: it rests on the attempts.
func (c *Clerk) failure(w *call, cause error) error {
	e := &Error{Op: w.name, Key: w.key, Family: FamilyNotDone, Cause: cause}
	if w.route.Unresolved() {
		e.Family = FamilyOutcomeUnknown
		if w.session != nil {
			e.Identity = Identity{Session: w.session.ID, BirthMS: w.session.BirthMS, Sequence: w.op.GetSequence()}
		}
	}
	e.Detail = c.obstacle(w, cause)
	return e
}

// obstacle says in words what stood in the way of an operation: which shard of
// which group it was for, and what that last said.
func (c *Clerk) obstacle(w *call, cause error) string {
	met := w.route.Obstacles()
	if errors.Is(cause, ErrInvalid) || errors.Is(cause, ErrClosed) {
		if len(met) == 0 {
			return ""
		}
		return met[len(met)-1].Text
	}
	said := "no server could be asked"
	if len(met) > 0 {
		words := make([]string, len(met))
		for i, o := range met {
			words[i] = o.Addr + " " + o.Text
			if o.Code != 0 {
				words[i] = strings.TrimSuffix(fmt.Sprintf("%s said %s: %s", o.Addr, kvpb.Code(o.Code), o.Text), ": ")
			}
		}
		said = strings.Join(words, "; ")
	}
	return c.table.whereabouts(&w.route) + ": " + said
}

// ended is why a context ended: ErrTimeout with the context's error, or its
// cause.
func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timedOut{}
	}
	return context.Cause(ctx)
}

// timedOut matches ErrTimeout and the context's error.
type timedOut struct{}

func (timedOut) Error() string { return ErrTimeout.Error() }

func (timedOut) Is(target error) bool {
	return target == ErrTimeout || target == context.DeadlineExceeded
}

func causeOf(reason route.Reason, out *kvpb.Outcome) error {
	switch reason {
	case route.ReasonInvalid:
		return ErrInvalid
	case route.ReasonCluster:
		return ErrWrongCluster
	}
	if out.GetCode() == kvpb.Code_SESSION_EXPIRED {
		return ErrSessionExpired
	}
	return fmt.Errorf("%w: the session can't be used: %s", ErrInvalid, out.GetCode())
}
