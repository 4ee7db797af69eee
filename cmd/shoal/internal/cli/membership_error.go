package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/cmd/shoal/internal/output"
	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// A membershipError is a change of membership that did not complete, with what is
// known of it. It is what the family in its words is derived from.
type membershipError struct {
	verb string
	// cause is the last thing that stood in the way.
	cause error
	// ended: ctx ended first, and this is its error; nil: cause is a leader's word.
	ended error
	// begun: a leader was asked, and its answer does not say that nothing was begun.
	begun bool
	// obstacle is the last word of a leader that had begun nothing, to be asked again.
	obstacle string
	// phases is how many steps a leader began, as it reported: all but the last one
	// are done. state is how far the last one is.
	phases int
	state  output.State
}

// note takes in what a leader answered; false: to ask again would not help.
func (e *membershipError) note(ctx context.Context, err error) (again bool) {
	e.cause = err
	_, elsewhere := fence.Refused(err)
	if refusal(err) {
		return elsewhere
	}
	e.begun = e.begun || !raftpb.IsNotBegun(err)
	if raftpb.IsNotBegun(err) && !callEnded(err) {
		e.obstacle = callProblem(err)
	}
	e.ended = over(ctx)
	return e.ended == nil && status.Code(err) == codes.Unavailable
}

// over is ctx's error, also where its deadline has passed and its timer has yet to
// fire: the leader, who was told the deadline, ends the call in that moment.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// callEnded reports whether an error says no more than that its call was ended.
func callEnded(err error) bool {
	s := status.Code(err)
	return s == codes.Canceled || s == codes.DeadlineExceeded
}

// refusal reports whether an error is a replica's word that holds for good.
func refusal(err error) bool {
	switch statusCode(err) {
	case ExitUsage, ExitCondition, ExitRefused:
		return true
	}
	return false
}

// code is the exit code.
func (e *membershipError) code() int {
	switch {
	case errors.Is(e.ended, context.Canceled):
		return ExitFailed
	case e.ended == nil && refusal(e.cause):
		return statusCode(e.cause)
	}
	return ExitUnavailable
}

// Error says what is done of the change. One that a leader has begun goes on when
// the command is repeated; what it did until then stands.
func (e *membershipError) Error() string {
	message := e.cause.Error()
	if _, ok := status.FromError(e.cause); ok {
		message = callProblem(e.cause)
	}
	if e.ended != nil && callEnded(e.cause) {
		message = "timed out"
		if errors.Is(e.ended, context.Canceled) {
			message = "interrupted"
		}
		if e.obstacle != "" {
			message += "; before that: " + e.obstacle
		}
	}
	const repeat = "; repeat the command (with --wait if it takes long), or look with: shoal replicas"
	switch {
	case e.phases > 1 && e.ended != nil:
		return fmt.Sprintf("%s: done; not settled yet: %s, %s of %s entries: %s%s",
			e.verb, e.state.Text, output.Count(e.state.Done), output.Count(e.state.Total), message, repeat)
	case e.phases > 1:
		return fmt.Sprintf("%s: done in part: %s%s", e.verb, message, repeat)
	case e.begun:
		return fmt.Sprintf("%s: outcome unknown: %s%s", e.verb, message, repeat)
	}
	return fmt.Sprintf("%s: not done: %s", e.verb, message)
}
