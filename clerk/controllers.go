package clerk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

const (
	// controllerMax bounds one call to one controller, without the time in which
	// its answer is arriving, so that a silent one does not use up the time of the
	// others. A change waits for a majority, and a
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
		why = append(why, addr+" "+obstacleOf(ctx, err))
		if ctx.Err() != nil {
			failed.cause = fmt.Errorf("%w: %s", ErrUnavailable, strings.Join(why, "; "))
		} else {
			failed.cause = fmt.Errorf("%w: no controller serves: %s", ErrUnavailable, strings.Join(why, "; "))
		}
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
func obstacleOf(ctx context.Context, err error) string {
	s, ok := status.FromError(err)
	switch {
	case ctx.Err() != nil && ok:
		return "had not answered yet"
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
	ctx, cancel := k.c.pool.attend(ctx, addr, controllerMax, nil)
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

// A preliminary error is of a question that came before a change.
type preliminary struct{ error }

func (p preliminary) Unwrap() error              { return p.error }
func (p preliminary) GRPCStatus() *status.Status { return status.Convert(p.error) }

// harmless reports whether an error says that the controller did nothing: it
// does not know the call, is too busy to begin, or was only asked something.
func harmless(err error) bool {
	if errors.As(err, new(preliminary)) {
		return true
	}
	switch status.Code(err) {
	case codes.Unimplemented, codes.ResourceExhausted:
		return true
	}
	return false
}
