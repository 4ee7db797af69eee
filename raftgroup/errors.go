package raftgroup

import (
	"errors"
	"fmt"
	"time"
)

// The two families of failure. Every error that Propose, ProposeAll and the
// membership calls return belongs to exactly one of them, by errors.Is.
// ReadBarrier fails in the first family only: a read changes nothing.
var (
	// ErrNotDone: the command was not and will not be applied. It may be retried
	// anywhere.
	ErrNotDone = errors.New("not done")
	// ErrOutcomeUnknown: the command may have been applied, or may yet be. Only a
	// retry that the machine recognises (same session and sequence) is safe.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

var (
	// ErrBusy: what is queued uses up the budget, or would take too long. Not done.
	// See BusyError.
	ErrBusy error = &familyError{family: ErrNotDone, text: "too many proposals are queued"}
	// ErrTooLarge: a command is larger than Options.CommandBytesMax. Not done,
	// and it never will be.
	ErrTooLarge error = &familyError{family: ErrNotDone, text: "the command is too large"}
	// ErrTransferring: the leader is handing over leadership. Not done.
	ErrTransferring error = &familyError{family: ErrNotDone, text: "leadership is being handed over"}
	// ErrClosed: the replica is closing or has failed. Its family says whether
	// the command had reached Raft.
	ErrClosed = errors.New("the replica is closed")
	// ErrRefused: a change of membership would cost the group its quorum, or
	// makes no sense. See RefusedError.
	ErrRefused = errors.New("refused")
)

// A BusyError is ErrBusy, and says when it is worth while to try again.
type BusyError struct {
	// Wait is until then, by the pace of late; 0: not known.
	Wait time.Duration
}

func (e *BusyError) Error() string { return ErrBusy.Error() }

// Unwrap returns ErrBusy.
func (e *BusyError) Unwrap() error { return ErrBusy }

// A NotLeaderError says that this replica does not lead. Not done.
type NotLeaderError struct {
	// Leader is the address of the replica that leads, as far as this one knows;
	// empty if it does not.
	Leader string
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "this replica does not lead, and knows no leader"
	}
	return "this replica does not lead; the leader is " + e.Leader
}

// Unwrap puts the error into its family.
func (e *NotLeaderError) Unwrap() error { return ErrNotDone }

// A RefusedError says why a change of membership was not made. It is both
// ErrRefused and ErrNotDone.
type RefusedError struct {
	Reason string
	// Silent are the voters of the resulting group that do not answer, where that
	// is the reason.
	Silent []SilentMember
}

// A SilentMember is a voter that did not answer when it was asked.
type SilentMember struct {
	Label    string // empty if it is not known
	ServerID string
}

// String is the label, or else the server id.
func (m SilentMember) String() string {
	if m.Label == "" {
		return m.ServerID
	}
	return m.Label
}

func (e *RefusedError) Error() string { return "refused: " + e.Reason }

// Unwrap puts the error into its families.
func (e *RefusedError) Unwrap() []error { return []error{ErrRefused, ErrNotDone} }

// A ProposalError stands in the result slice of ProposeAll for a command that
// is not known to be applied. Machines do not return this type.
type ProposalError struct {
	// Err belongs to one of the two families.
	Err error
}

func (e *ProposalError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ProposalError) Unwrap() error { return e.Err }

// A StallError is a storage operation that did not end within the limit.
type StallError struct {
	Op    string
	Limit string
}

func (e *StallError) Error() string {
	return fmt.Sprintf("%s did not end within %s", e.Op, e.Limit)
}

// familyError is an error with its family and, perhaps, a cause.
type familyError struct {
	family error
	text   string
	cause  error
}

func (e *familyError) Error() string {
	text := e.text
	if text == "" {
		text = e.family.Error()
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *familyError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.family}
	}
	return []error{e.family, e.cause}
}

func notDone(cause error) error { return &familyError{family: ErrNotDone, cause: cause} }

func outcomeUnknown(cause error) error {
	return &familyError{family: ErrOutcomeUnknown, cause: cause}
}
