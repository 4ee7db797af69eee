package clerk

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
)

// The two families of failure. Every error of a Clerk's operations matches
// (errors.Is) one of them, or is of the family "done": ErrNotFound or
// ErrVersionMismatch.
var (
	// ErrNotDone: the operation had no effect and never will. It is safe to do it
	// again, anywhere, in any way.
	ErrNotDone = errors.New("not done")
	// ErrOutcomeUnknown: the write may have been executed, or may yet be. Doing
	// it again as a new write may execute it twice; As, with the Identity of the
	// Error, does not.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// Causes. Each comes in an *Error that also says the family.
var (
	// ErrNotFound: a get or a delete met no key. Family "done".
	ErrNotFound = errors.New("not found")
	// ErrVersionMismatch: the condition of a write did not hold. Family "done";
	// the key's present version is in the *Error.
	ErrVersionMismatch = errors.New("version mismatch")
	// ErrTimeout: the call's deadline passed. It also matches
	// context.DeadlineExceeded.
	ErrTimeout = errors.New("timed out")
	// ErrInvalid: the request breaks a rule (a limit, an impossible option).
	ErrInvalid = errors.New("invalid request")
	// ErrSessionExpired: the write carries an explicit Identity that the cluster
	// can't tell from a forgotten one any more.
	ErrSessionExpired = errors.New("session expired")
	// ErrWrongCluster: the servers belong to another cluster than the one asked
	// for.
	ErrWrongCluster = errors.New("wrong cluster")
	// ErrRefused: the controllers refused a change; errors.As with a
	// *RefusedError says why.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: nothing that could answer could be reached.
	ErrUnavailable = errors.New("unavailable")
	// ErrClosed: the Clerk was closed.
	ErrClosed = errors.New("clerk is closed")
)

// A Family says what is known about an operation that returned.
type Family uint8

// The families of outcomes.
const (
	// FamilyDone: executed, and the answer is known.
	FamilyDone Family = iota
	// FamilyNotDone: not executed, and never will be.
	FamilyNotDone
	// FamilyOutcomeUnknown: it may have been executed, or may yet be.
	FamilyOutcomeUnknown
)

// String names the family as error messages do.
func (f Family) String() string {
	switch f {
	case FamilyDone:
		return "done"
	case FamilyNotDone:
		return "not done"
	}
	return "outcome unknown"
}

// FamilyOf returns the family of an error that a Clerk returned; nil is done.
// An error of unknown origin counts as outcome unknown, the cautious reading.
func FamilyOf(err error) Family {
	switch {
	case err == nil:
		return FamilyDone
	case errors.Is(err, ErrOutcomeUnknown):
		return FamilyOutcomeUnknown
	case errors.Is(err, ErrNotDone):
		return FamilyNotDone
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrVersionMismatch):
		return FamilyDone
	}
	return FamilyOutcomeUnknown
}

// An Error is the failure of one operation. It matches, with errors.Is, its
// family's error (ErrNotDone or ErrOutcomeUnknown) and its cause.
type Error struct {
	// Op is the operation: get, put, append, delete, scan, join, ...
	Op string
	// Key is the key it was for; nil for operations that have none.
	Key []byte
	// Family says what is known about the effect.
	Family Family
	// Cause is why: one of the package's errors, or wraps one, or is the error of
	// the caller's context.
	Cause error
	// Detail says in words what last stood in the way; may be empty.
	Detail string
	// Present is the key's present version, for ErrVersionMismatch; 0: absent.
	Present Version
	// Identity is that of a write whose outcome is unknown: a retry with As may
	// settle it. Zero for everything else.
	Identity Identity
}

// Error says operation, key, family and cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Key != nil {
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(shorten(e.Key)))
	}
	if e.Family != FamilyDone {
		b.WriteString(": ")
		b.WriteString(e.Family.String())
	}
	b.WriteString(": ")
	b.WriteString(e.Cause.Error())
	if errors.Is(e.Cause, ErrVersionMismatch) {
		fmt.Fprintf(&b, ": present version is %d", e.Present)
	}
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	return b.String()
}

// Is makes the error match its family.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotDone:
		return e.Family == FamilyNotDone
	case ErrOutcomeUnknown:
		return e.Family == FamilyOutcomeUnknown
	}
	return false
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// A RefusedError says why the controllers refused a change. It matches
// ErrRefused; with reason BAD_REQUEST also ErrInvalid, with CLUSTER_MISMATCH
// also ErrWrongCluster, with UNKNOWN_GROUP and UNKNOWN_CONFIG also ErrNotFound.
type RefusedError struct {
	Reason  ctrlpb.Reason
	Message string
}

// Error is the controllers' message, or the reason's name.
func (e *RefusedError) Error() string {
	if e.Message != "" {
		return "refused: " + e.Message
	}
	return "refused: " + strings.ToLower(strings.ReplaceAll(e.Reason.String(), "_", " "))
}

// Is makes the error match what its reason means.
func (e *RefusedError) Is(target error) bool {
	switch target {
	case ErrRefused:
		return true
	case ErrInvalid:
		return e.Reason == ctrlpb.Reason_BAD_REQUEST
	case ErrWrongCluster:
		return e.Reason == ctrlpb.Reason_CLUSTER_MISMATCH
	case ErrNotFound:
		return e.Reason == ctrlpb.Reason_UNKNOWN_CONFIG || e.Reason == ctrlpb.Reason_UNKNOWN_GROUP
	}
	return false
}

// shorten keeps a message readable when a key is long.
func shorten(key []byte) string {
	const bytesMax = 64
	if len(key) > bytesMax {
		return string(key[:bytesMax]) + "..."
	}
	return string(key)
}
