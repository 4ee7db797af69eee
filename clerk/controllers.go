package clerk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const (
	// controllerMax bounds one call to one controller, so that a silent one does
	// not use up the time of the others. A change waits for a majority, and a
	// join for its replicas' word.
	controllerMax = 3 * time.Second
	infoMax       = 500 * time.Millisecond
	// peekMax bounds the look at what a controller has applied.
	peekMax = time.Second
	// unreachableMax is how long a call to the controllers goes on while none of
	// them accepts a connection, leaderlessMax while those that do can't serve it:
	// longer than a restart, or an election, takes.
	unreachableMax = 3 * time.Second
	leaderlessMax  = 6 * time.Second
	retryMin       = 10 * time.Millisecond
	retryMax       = 500 * time.Millisecond
)

// controllers is the way to the shard controllers: it remembers who served last,
// follows those that name a leader, and goes round the addresses.
type controllers struct {
	c  *Clerk
	mu struct {
		sync.Mutex
		preferred string   // served last; empty: not known
		members   []string // further controllers that were heard of
	}
}

func newControllers(c *Clerk) *controllers { return &controllers{c: c} }

// addresses are the controllers to ask, best first, each once.
func (k *controllers) addresses() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, addr := range slices.Concat([]string{k.mu.preferred}, k.c.config.Controllers, k.mu.members) {
		if addr != "" && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

func (k *controllers) prefer(addr string) {
	k.mu.Lock()
	k.mu.preferred = addr
	k.mu.Unlock()
}

// A roundError is why no controller served a call.
type roundError struct {
	cause error
	// unresolved: some attempt may have had an effect, or may yet have.
	unresolved bool
	// reached: some controller was there, whatever it said.
	reached bool
}

func (e *roundError) Error() string { return e.cause.Error() }
func (e *roundError) Unwrap() error { return e.cause }

// once runs do at one controller after the other until one serves it, or gives
// a definite refusal. Each controller is asked once at most. Its error is a
// *roundError.
func (k *controllers) once(ctx context.Context, do func(context.Context, ctrlpb.ControllerClient) error) error {
	queue := k.addresses()
	failed := &roundError{cause: fmt.Errorf("%w: no controller is configured", ErrUnavailable)}
	var tried, why []string
	for len(queue) > 0 && ctx.Err() == nil {
		addr := queue[0]
		queue = queue[1:]
		if slices.Contains(tried, addr) {
			continue
		}
		tried = append(tried, addr)
		sent, err := k.attempt(ctx, addr, do)
		if err == nil {
			k.prefer(addr)
			return nil
		}
		refused := refusalOf(err)
		if errors.Is(err, ErrWrongCluster) {
			refused = err
		}
		if refused != nil {
			return &roundError{cause: refused, unresolved: failed.unresolved, reached: true}
		}
		why = append(why, addr+" "+obstacleOf(err))
		failed.cause = fmt.Errorf("%w: no controller serves: %s", ErrUnavailable, strings.Join(why, "; "))
		failed.reached = failed.reached || sent
		hint, follower := hintOf(err)
		failed.unresolved = failed.unresolved || sent && !follower && !harmless(err)
		if sent && !follower {
			hint = k.leader(ctx, addr)
		}
		if hint != "" {
			queue = slices.Insert(queue, 0, hint)
		}
	}
	return failed
}

// obstacleOf says why a controller did not serve a call, as the end of a sentence
// that begins with its address.
func obstacleOf(err error) string {
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return err.Error()
	case s.Code() == codes.Unimplemented:
		return "is no controller (perhaps a replica of a group, which may be named as a seed)"
	case s.Code() == codes.DeadlineExceeded || s.Code() == codes.Canceled:
		return "did not answer in time"
	}
	return "says: " + s.Message()
}

// attempt runs do at one address; sent tells whether it can have had an effect.
func (k *controllers) attempt(ctx context.Context, addr string, do func(context.Context, ctrlpb.ControllerClient) error) (sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, controllerMax)
	defer cancel()
	conn, err := k.c.pool.ready(ctx, addr)
	if err != nil {
		return false, err
	}
	return true, do(ctx, ctrlpb.NewControllerClient(conn))
}

// leader asks a controller that did not serve who leads, and notes the members.
func (k *controllers) leader(ctx context.Context, addr string) string {
	ctx, cancel := context.WithTimeout(ctx, infoMax)
	defer cancel()
	conn, err := k.c.pool.conn(addr)
	if err != nil {
		return ""
	}
	info, err := ctrlpb.NewControllerClient(conn).Info(ctx, &ctrlpb.InfoRequest{Cluster: k.c.table.clusterBytes()})
	if err != nil {
		return ""
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.members = k.mu.members[:0]
	for _, m := range info.GetMembers() {
		k.mu.members = append(k.mu.members, m.GetAddress())
	}
	return info.GetLeader()
}

// refusalOf is the definite refusal in a call's error, else nil.
func refusalOf(err error) error {
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if r, ok := detail.(*ctrlpb.Refusal); ok {
			return &RefusedError{Reason: r.GetReason(), Message: r.GetMessage()}
		}
	}
	switch s.Code() {
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %s", ErrInvalid, s.Message())
	case codes.NotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, s.Message())
	case codes.FailedPrecondition, codes.PermissionDenied, codes.AlreadyExists, codes.OutOfRange, codes.Unauthenticated:
		return fmt.Errorf("%w: %s", ErrRefused, s.Message())
	}
	return nil
}

// hintOf is whom a controller that does not lead names as the leader (empty: not
// known); such a controller did nothing.
func hintOf(err error) (leader string, follower bool) {
	for _, detail := range status.Convert(err).Details() {
		if h, ok := detail.(*ctrlpb.LeaderHint); ok {
			return h.GetLeader(), true
		}
	}
	return "", false
}

// harmless reports whether an error says that the controller did nothing: it
// does not know the call, or is too busy to begin.
func harmless(err error) bool {
	switch status.Code(err) {
	case codes.Unimplemented, codes.ResourceExhausted:
		return true
	}
	return false
}

// change makes one change of configuration, exactly once: every attempt carries
// the same request id.
func (a *Admin) change(ctx context.Context, name string, o changeOptions,
	do func(context.Context, ctrlpb.ControllerClient, *ctrlpb.RequestID, []byte) (*ctrlpb.ChangeReply, error),
) (Change, error) {
	id := draw128[shardcfg.ID128]()
	request := &ctrlpb.RequestID{Id: id[:], BirthMs: a.c.sessions.birth(a.c.now())}
	var reply *ctrlpb.ChangeReply
	err := a.insist(ctx, name, !o.plan, func(ctx context.Context, client ctrlpb.ControllerClient) (err error) {
		reply, err = do(ctx, client, request, a.c.table.clusterBytes())
		return err
	})
	if err != nil {
		return Change{}, err
	}
	change := Change{Num: shardcfg.ConfigNum(reply.GetNum()), Changed: reply.GetChanged()}
	for _, m := range reply.GetMoves() {
		change.Moves = append(change.Moves, Move{
			Shard: shardcfg.ShardID(m.GetShard()), Bytes: m.GetBytes(),
			From: shardcfg.GroupID(m.GetFrom()), To: shardcfg.GroupID(m.GetTo()),
		})
	}
	if !o.plan {
		a.c.refresh.want()
	}
	return change, nil
}

// insist runs do, round after round, until a controller serves or refuses it, the
// deadline passes, or there seems to be nobody who could. effect: an attempt
// without an answer leaves the outcome unknown.
func (a *Admin) insist(ctx context.Context, name string, effect bool, do func(context.Context, ctrlpb.ControllerClient) error) error {
	ctx, cancel := a.c.deadline(ctx)
	defer cancel()
	ctx, drop := a.c.whileOpen(ctx)
	defer drop()
	unresolved, reached := false, false
	wait, start := retryMin, time.Now()
	for {
		err := a.c.ctl.once(ctx, do)
		if err == nil {
			return nil
		}
		var round *roundError
		errors.As(err, &round)
		unresolved = unresolved || effect && round.unresolved
		e := &Error{Op: name, Family: FamilyNotDone, Cause: round.cause}
		if unresolved {
			e.Family = FamilyOutcomeUnknown
		}
		if !errors.Is(round.cause, ErrUnavailable) {
			if !effect && errors.Is(round.cause, ErrNotFound) {
				e.Family = FamilyDone
			}
			return e
		}
		// Who asked learns more from an error now than from one at the deadline.
		reached = reached || round.reached
		took, nobody := time.Since(start), len(a.c.ctl.addresses()) == 0
		if nobody || !unresolved && (took >= leaderlessMax || took >= unreachableMax && !reached) {
			return e
		}
		if !sleep(ctx, wait) {
			e.Cause, e.Detail = ended(ctx), round.cause.Error()
			if a.c.life.Err() != nil {
				e.Cause = ErrClosed
			}
			return e
		}
		wait = min(2*wait, retryMax)
	}
}

// query returns a numbered config, or the latest.
func (a *Admin) query(ctx context.Context, num *uint64) (*shardcfg.Config, error) {
	var config *shardcfg.Config
	err := a.insist(ctx, "config", false, func(ctx context.Context, client ctrlpb.ControllerClient) error {
		reply, err := client.Query(ctx, &ctrlpb.QueryRequest{Cluster: a.c.table.clusterBytes(), Num: num})
		if err != nil {
			return err
		}
		if err := a.c.table.belongs(reply.GetCluster()); err != nil {
			return err
		}
		if config, err = ctrlpb.ToConfig(reply.GetConfig()); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		a.c.sessions.observe(reply.GetClockMs())
		if num == nil && a.c.config.Pinned == nil {
			a.c.adopt(config, reply.GetHints())
		}
		return nil
	})
	return config, err
}

// watch goes from one controller's stream to the next.
func (a *Admin) watch(ctx context.Context) iter.Seq2[*shardcfg.Config, error] {
	return func(yield func(*shardcfg.Config, error) bool) {
		ctx, drop := a.c.whileOpen(ctx)
		defer drop()
		var have *shardcfg.Config
		wait := retryMin
		for turn := 0; ; turn++ {
			before := have
			addresses := a.c.ctl.addresses()
			if len(addresses) == 0 {
				yield(nil, &Error{Op: "watch", Family: FamilyNotDone, Cause: ErrUnavailable, Detail: "no controller is configured"})
				return
			}
			err := a.follow(ctx, addresses[turn%len(addresses)], &have, yield)
			switch {
			case err == nil:
				return
			case errors.Is(err, ErrWrongCluster):
				yield(nil, &Error{Op: "watch", Family: FamilyNotDone, Cause: err})
				return
			case have != before:
				wait = retryMin
			}
			if !sleep(ctx, wait) {
				cause := ended(ctx)
				if a.c.life.Err() != nil {
					cause = ErrClosed
				}
				yield(nil, &Error{Op: "watch", Family: FamilyNotDone, Cause: cause, Detail: err.Error()})
				return
			}
			wait = min(2*wait, retryMax)
		}
	}
}

// follow yields what one controller's stream brings; nil: the loop ended.
func (a *Admin) follow(ctx context.Context, addr string, have **shardcfg.Config, yield func(*shardcfg.Config, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connecting, stop := context.WithTimeout(ctx, controllerMax)
	conn, err := a.c.pool.ready(connecting, addr)
	stop()
	if err != nil {
		return fmt.Errorf("%s %w", addr, err)
	}
	r := &ctrlpb.WatchRequest{Cluster: a.c.table.clusterBytes()}
	if *have != nil {
		r.Have = uint64((*have).Num)
	}
	stream, err := ctrlpb.NewControllerClient(conn).Watch(ctx, r)
	if err != nil {
		return err
	}
	for {
		reply, err := stream.Recv()
		if err != nil {
			if refused := refusalOf(err); errors.Is(refused, ErrWrongCluster) {
				return refused
			}
			return err
		}
		if err := a.c.table.belongs(reply.GetCluster()); err != nil {
			return err
		}
		next, err := configOf(reply, *have)
		if err != nil {
			*have = nil // start over with a whole config
			return err
		}
		if *have != nil && next.Num <= (*have).Num {
			continue
		}
		*have = next
		if a.c.config.Pinned == nil {
			a.c.adopt(next, nil)
		}
		if !yield(next, nil) {
			return nil
		}
	}
}

// configOf is the config that a message of a watch leads to.
func configOf(reply *ctrlpb.WatchReply, have *shardcfg.Config) (*shardcfg.Config, error) {
	if reply.GetDelta() == nil {
		return ctrlpb.ToConfig(reply.GetConfig())
	}
	if have == nil {
		return nil, errors.New("a delta came before any configuration")
	}
	delta, err := ctrlpb.ToDelta(reply.GetDelta(), len(have.Shards))
	if err != nil {
		return nil, err
	}
	return delta.Apply(have)
}

// whileOpen ends a context with the Clerk's life.
func (c *Clerk) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// sleep waits; false: the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
