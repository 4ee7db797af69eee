package ctrlfsm

import "fmt"

// A Reason says why a command was refused. The numbers are those of the wire
// (ctrlpb.Reason) and of recorded results: append-only.
type Reason uint8

const (
	// BadRequest: malformed, or over a limit.
	BadRequest Reason = 1
	// UnknownGroup: the gid or the incarnation is not listed.
	UnknownGroup Reason = 2
	// GroupLeaving: the group is on its way out.
	GroupLeaving Reason = 3
	// LastGroup: the last group cannot leave while it holds data.
	LastGroup Reason = 4
	// GroupExists: a group of that gid with other replicas is listed.
	GroupExists Reason = 5
	// ReplicaMismatch is not the machine's: see ctrlpb.
	ReplicaMismatch Reason = 6
	// IncarnationBound: the gid is bound to another incarnation, or the
	// incarnation to another gid.
	IncarnationBound Reason = 7
	// IncarnationRetired: the incarnation was declared destroyed.
	IncarnationRetired Reason = 8
	// RequestExpired: the request id is too old to be told from a repeat.
	RequestExpired Reason = 9
	// ClusterMismatch is not the machine's: see ctrlpb.
	ClusterMismatch Reason = 10
	// UnknownConfig: no configuration of that number is kept.
	UnknownConfig Reason = 11
	// NotLeaving: a group that is not leaving says that it is drained.
	NotLeaving Reason = 12
	// StaleReport: the group had not adopted the config in which it leaves.
	StaleReport Reason = 13
	// AddressInUse: a replica's address belongs to another group.
	AddressInUse Reason = 14
	// GroupSilent: a group that must be asked did not answer.
	GroupSilent Reason = 15
	// GroupAlive is not the machine's: see ctrlpb.
	GroupAlive Reason = 16
	// EntryFull: the log entry of the command makes as many configs as one may. It is
	// no answer to the request, which may be made again.
	EntryFull Reason = 17
)

var reasonTexts = [...]string{
	BadRequest:         "bad request",
	UnknownGroup:       "unknown group",
	GroupLeaving:       "the group is leaving",
	LastGroup:          "the last group cannot leave",
	GroupExists:        "a group of that gid exists",
	ReplicaMismatch:    "replica mismatch",
	IncarnationBound:   "bound to another incarnation",
	IncarnationRetired: "the incarnation is retired",
	RequestExpired:     "the request has expired",
	ClusterMismatch:    "another cluster",
	UnknownConfig:      "unknown configuration",
	NotLeaving:         "the group is not leaving",
	StaleReport:        "the report is stale",
	AddressInUse:       "the address is in use",
	GroupSilent:        "a group does not answer",
	GroupAlive:         "the group lives",
	EntryFull:          "the log entry is full",
}

// String names the reason for people.
func (r Reason) String() string {
	if int(r) < len(reasonTexts) && reasonTexts[r] != "" {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// A Refusal is the definite answer to a command that changed nothing.
type Refusal struct {
	Reason  Reason
	Message string // for people
}

// Error is the message.
func (r *Refusal) Error() string { return r.Message }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
