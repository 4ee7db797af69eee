package kvfsm

import (
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Code is the outcome of one operation. The numbers are those of the public
// protocol (shoal.kv.v1.Code) and are stored in session records: append-only.
type Code uint8

// The outcomes, by family.
const (
	// Family "done".

	// CodeOK: the operation took effect, or the key was found.
	CodeOK Code = 0
	// CodeNotFound: a get or a delete met no key.
	CodeNotFound Code = 1
	// CodeVersionMismatch: the condition did not hold.
	CodeVersionMismatch Code = 2

	// Family "not done": no effect, nothing remembered.

	// CodeWrongGroup: this group does not serve the shard; Where says who might.
	CodeWrongGroup Code = 16
	// CodeBusy: the session must acknowledge results first.
	CodeBusy Code = 18
	// CodeInvalid: the operation breaks a rule; Why says which.
	CodeInvalid Code = 19
	// CodeSessionExpired: the session was born before the shard's floor.
	CodeSessionExpired Code = 20
	// CodeSessionAhead: the session's birth is too far in the future.
	CodeSessionAhead Code = 21
	// CodeStaleSequence: the sequence was acknowledged before.
	CodeStaleSequence Code = 22
)

// Done reports whether the operation was executed.
func (c Code) Done() bool { return c < CodeWrongGroup }

var codeNames = map[Code]string{
	CodeOK: "ok", CodeNotFound: "not found", CodeVersionMismatch: "version mismatch",
	CodeWrongGroup: "wrong group", CodeBusy: "busy", CodeInvalid: "invalid",
	CodeSessionExpired: "session expired", CodeSessionAhead: "session ahead", CodeStaleSequence: "stale sequence",
}

// String is the code's name in lower case.
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// An Outcome is the result of a Write.
type Outcome struct {
	Code Code
	// Version is the key's afterwards; 0: absent.
	Version shardcfg.Revision
	// Length is, of an append, the value's length afterwards.
	Length uint64
	// Repeat says that the write had been executed before, and this is how it
	// ended then.
	Repeat bool
	// Why says more of CodeBusy and CodeInvalid.
	Why Reason
	// Where is set with CodeWrongGroup.
	Where Where
	// Floor is set with CodeSessionExpired: sessions born before it are expired,
	// in ms since 1970.
	Floor uint64
}

// Where says what a group that does not serve a shard knows of it.
type Where struct {
	Shard shardcfg.ShardID
	Phase Phase
	Epoch shardcfg.Epoch
	// Next is where to look: the receiver of a Frozen or Passed shard, else the
	// owner by the adopted config. Zero: unknown, or this group itself.
	Next Peer
	// Staging says that this group is fetching the shard.
	Staging bool
}

// A Verdict is the result of every command but Write.
type Verdict struct {
	// Done says that the command's guard held and it took effect. Otherwise
	// nothing changed, and Why says what failed.
	Done bool
	Why  Reason
	// Count is, of a Prune, how many sessions went.
	Count int
}

// A Reason says why a guard failed.
type Reason uint8

// The reasons; ReasonNone: the guard held.
const (
	// ReasonNone: the guard held.
	ReasonNone Reason = iota
	// ReasonOutOfRange: a shard beyond the shard count.
	ReasonOutOfRange
	// ReasonPhase: the shard's phase does not allow it.
	ReasonPhase
	// ReasonEpoch: the epoch is not the record's, or not above it.
	ReasonEpoch
	// ReasonHandoff: the handoff is not the record's.
	ReasonHandoff
	// ReasonNotAdopted: the config is not the adopted one, or not adopted yet.
	ReasonNotAdopted
	// ReasonOldConfig: a config at or above it was adopted.
	ReasonOldConfig
	// ReasonCluster: the config is of another cluster.
	ReasonCluster
	// ReasonShardCount: the config has another shard count.
	ReasonShardCount
	// ReasonOwner: the config's owner forbids it.
	ReasonOwner
	// ReasonNotUs: addressed to another incarnation.
	ReasonNotUs
	// ReasonRetired: the source was declared destroyed.
	ReasonRetired
	// ReasonNoStaging: there is no staging of that epoch and handoff.
	ReasonNoStaging
	// ReasonKept: the same staging exists and is kept.
	ReasonKept
	// ReasonOlderStaging: a newer staging exists.
	ReasonOlderStaging
	// ReasonCursor: the staging's cursor has moved on.
	ReasonCursor
	// ReasonItems: items are malformed or out of order.
	ReasonItems
	// ReasonDigest: the staged copy differs from the holder's: it starts again. An alarm.
	ReasonDigest
	// ReasonFloor: the floor is not above the present one, or in the future.
	ReasonFloor
	// ReasonKey: the key is empty or too long.
	ReasonKey
	// ReasonValueSize: the value would be too large.
	ReasonValueSize
	// ReasonSequence: a sequence without a session.
	ReasonSequence
	// ReasonSessionFull: too many unacknowledged results.
	ReasonSessionFull
	// ReasonOperation: an unknown operation.
	ReasonOperation
	// ReasonCreated: the shard had a token here before.
	ReasonCreated
	// ReasonEntryFull: the entry has as many effects as it may; the write belongs
	// into another.
	ReasonEntryFull
)

var reasonNames = [...]string{
	"", "shard out of range", "phase does not allow it", "epoch differs", "handoff differs", "config not adopted",
	"config is not newer", "another cluster", "another shard count", "owner does not allow it", "addressed to another group",
	"source is retired", "no such staging", "staging kept", "a newer staging exists", "cursor has moved on",
	"malformed items", "digest differs", "floor does not rise", "bad key length", "value too large",
	"sequence without session", "too many unacknowledged results", "unknown operation", "token existed before",
	"the log entry is full",
}

// String says the reason in words.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}
