package shardkv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

// controllerAttemptMax bounds one call to one controller, so that a silent one
// does not use up the time of the others.
const controllerAttemptMax = 2 * time.Second

// errNoController is wrapped when no controller could serve a call.
var errNoController = errors.New("no controller could serve the call")

// A dialer returns a shared connection to an address; the caller does not close
// it.
type dialer func(address string) (grpc.ClientConnInterface, error)

// controllers is the way to the shard controller: it remembers who served last,
// follows leader hints, and goes round the addresses when that fails. Safe for
// concurrent use.
type controllers struct {
	addresses []string
	dial      dialer

	mu struct {
		sync.Mutex
		preferred string // served last; empty: not known
	}
}

func newControllers(addresses []string, dial dialer) *controllers {
	return &controllers{addresses: slices.Clone(addresses), dial: dial}
}

// call runs do with one controller after the other until one serves it, or one
// gives a definite refusal, which is returned as it is.
func (c *controllers) call(ctx context.Context, do func(context.Context, ctrlpb.ControllerClient) error) error {
	queue := c.order()
	tried := make(map[string]bool, len(queue))
	last := errors.New("no controller is configured")
	for len(queue) > 0 && ctx.Err() == nil {
		address := queue[0]
		queue = queue[1:]
		if tried[address] {
			continue
		}
		tried[address] = true
		hint, err := c.attempt(ctx, address, do)
		if err == nil || !elsewhere(err) {
			c.prefer(address)
			return err
		}
		last = fmt.Errorf("%s: %w", address, err)
		if hint != "" && !tried[hint] {
			queue = slices.Insert(queue, 0, hint)
		}
	}
	c.prefer("")
	return fmt.Errorf("%w: %w", errNoController, last)
}

// attempt runs do at one address. hint is the leader, if that address names one.
func (c *controllers) attempt(ctx context.Context, address string, do func(context.Context, ctrlpb.ControllerClient) error) (hint string, err error) {
	conn, err := c.dial(address)
	if err != nil {
		return "", status.Error(codes.Unavailable, err.Error())
	}
	client := ctrlpb.NewControllerClient(conn)
	bounded, cancel := context.WithTimeout(ctx, controllerAttemptMax)
	defer cancel()
	err = do(bounded, client)
	return leaderHint(err), err
}

// leaderHint is the leader that a controller names when it can't serve a call
// itself; empty: it names none.
func leaderHint(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if hint, ok := detail.(*ctrlpb.LeaderHint); ok {
			return hint.GetLeader()
		}
	}
	return ""
}

// elsewhere reports whether another controller may serve what this one did not.
func elsewhere(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.NotFound,
		codes.AlreadyExists, codes.OutOfRange, codes.Unauthenticated:
		return false
	}
	return true
}

func (c *controllers) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.preferred == "" {
		return slices.Clone(c.addresses)
	}
	return append([]string{c.mu.preferred}, c.addresses...)
}

func (c *controllers) prefer(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.preferred = address
}

// backoff is a wait that doubles from min to max.
type backoff struct {
	min, max time.Duration
	now      time.Duration
}

func (b *backoff) next() time.Duration {
	b.now = min(max(2*b.now, b.min), b.max)
	return b.now
}

func (b *backoff) reset() { b.now = 0 }
