package cli

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/cmd/shoal/internal/transfer"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

// The exit codes: a contract with scripts.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitUnavailable = 3 // unavailable or timed out
	ExitCondition   = 4 // not found, or a condition did not hold
	ExitRefused     = 5 // would lose data or quorum, wrong cluster or identity, not permitted
	// ExitServerUsage is ExitUsage of the commands that run a replica (EX_USAGE of
	// sysexits.h): Go ends a process that panics with 2, and a supervisor must start
	// that one again.
	ExitServerUsage = 64
)

// A usageError is a command line that can't be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// A codedError ends the program with a code of its own.
type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

// exitCode returns the code that an error of a command ends the program with.
// The first rule that fits counts: the more special ones come first.
func exitCode(err error) int {
	coded, refused := codedError{}, (*clerk.RefusedError)(nil)
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, new(usageError)):
		return ExitUsage
	case errors.As(err, new(*transfer.RefusedError)):
		return ExitRefused
	case errors.As(err, &refused):
		return refusalCode(refused.Reason)
	case errors.Is(err, clerk.ErrNotFound), errors.Is(err, clerk.ErrVersionMismatch):
		return ExitCondition
	case errors.Is(err, clerk.ErrWrongCluster), errors.Is(err, clerk.ErrRefused):
		return ExitRefused
	case errors.Is(err, clerk.ErrInvalid):
		return ExitUsage
	case errors.Is(err, context.Canceled), errors.Is(err, clerk.ErrSessionExpired):
		return ExitFailed
	case errors.Is(err, clerk.ErrUnavailable), errors.Is(err, clerk.ErrTimeout),
		errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, clerk.ErrOutcomeUnknown), errors.Is(err, clerk.ErrNotDone):
		return ExitUnavailable
	}
	return statusCode(err)
}

// refusalCode maps the controllers' reasons.
func refusalCode(reason ctrlpb.Reason) int {
	switch reason {
	case ctrlpb.Reason_BAD_REQUEST:
		return ExitUsage
	case ctrlpb.Reason_UNKNOWN_GROUP, ctrlpb.Reason_UNKNOWN_CONFIG:
		return ExitCondition
	case ctrlpb.Reason_REQUEST_EXPIRED:
		return ExitFailed
	case ctrlpb.Reason_GROUP_SILENT, ctrlpb.Reason_STALE_REPORT:
		return ExitUnavailable // it may pass
	}
	return ExitRefused
}

// statusCode maps the status of a call that went past the clerk.
func statusCode(err error) int {
	s, ok := status.FromError(err)
	if !ok {
		return ExitFailed
	}
	switch s.Code() {
	case codes.InvalidArgument:
		return ExitUsage
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return ExitUnavailable
	case codes.NotFound:
		return ExitCondition
	case codes.FailedPrecondition, codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated:
		return ExitRefused
	}
	return ExitFailed
}
