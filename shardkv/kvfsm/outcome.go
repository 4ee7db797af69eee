package kvfsm

import (
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Code is the outcome of one operation. The numbers are those of the public
// protocol (shoal.kv.v1.Code) and are stored in session records: append-only.
type Code uint8

const (
	// Family "done".

	CodeOK              Code = 0
	CodeNotFound        Code = 1
	CodeVersionMismatch Code = 2

	// Family "not done": no effect, nothing remembered.

	CodeWrongGroup     Code = 16
	CodeBusy           Code = 18
	CodeInvalid        Code = 19
	CodeSessionExpired Code = 20
	CodeSessionAhead   Code = 21
	CodeStaleSequence  Code = 22
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

const (
	ReasonNone         Reason = iota
	ReasonOutOfRange          // a shard beyond the shard count
	ReasonPhase               // the shard's phase does not allow it
	ReasonEpoch               // the epoch is not the record's, or not above it
	ReasonHandoff             // the handoff is not the record's
	ReasonNotAdopted          // the config is not the adopted one, or not adopted yet
	ReasonOldConfig           // a config at or above it was adopted
	ReasonCluster             // the config is of another cluster
	ReasonShardCount          // the config has another shard count
	ReasonOwner               // the config's owner forbids it
	ReasonNotUs               // addressed to another incarnation
	ReasonRetired             // the source was declared destroyed
	ReasonNoStaging           // there is no staging of that epoch and handoff
	ReasonKept                // the same staging exists and is kept
	ReasonOlderStaging        // a newer staging exists
	ReasonCursor              // the staging's cursor has moved on
	ReasonItems               // items are malformed or out of order
	ReasonDigest              // the staged copy differs from the holder's: it starts again. An alarm
	ReasonFloor               // the floor is not above the present one, or in the future
	ReasonKey                 // the key is empty or too long
	ReasonValueSize           // the value would be too large
	ReasonSequence            // a sequence without a session
	ReasonSessionFull         // too many unacknowledged results
	ReasonOperation           // an unknown operation
	ReasonCreated             // the shard had a token here before
)

var reasonNames = [...]string{
	"", "shard out of range", "phase does not allow it", "epoch differs", "handoff differs", "config not adopted",
	"config is not newer", "another cluster", "another shard count", "owner does not allow it", "addressed to another group",
	"source is retired", "no such staging", "staging kept", "a newer staging exists", "cursor has moved on",
	"malformed items", "digest differs", "floor does not rise", "bad key length", "value too large",
	"sequence without session", "too many unacknowledged results", "unknown operation", "token existed before",
}

// String says the reason in words.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}
