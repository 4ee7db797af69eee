package kvfsm

import (
	"errors"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// Kinds of the machine's commands. Append-only.
const (
	KindWrite      = entry.KindMachineMin + 0
	KindRaiseFloor = entry.KindMachineMin + 1
	KindPrune      = entry.KindMachineMin + 2
	KindAdopt      = entry.KindMachineMin + 3
	KindCreate     = entry.KindMachineMin + 4
	KindStart      = entry.KindMachineMin + 5
	KindStage      = entry.KindMachineMin + 6
	KindChunk      = entry.KindMachineMin + 7
	KindInstall    = entry.KindMachineMin + 8
	KindFreeze     = entry.KindMachineMin + 9
	KindDrop       = entry.KindMachineMin + 10
	KindDiscard    = entry.KindMachineMin + 11
	KindThaw       = entry.KindMachineMin + 12
)

// A Command is a typed command. Each concerns one shard, except Adopt. Guards
// are evaluated when it is applied; a failed guard changes nothing.
type Command interface {
	// Kind is the command's number in the log.
	Kind() entry.Kind
	// Append appends the body's encoding.
	Append(dst []byte) []byte
}

// Encode returns c as a command of a log entry.
func Encode(c Command) entry.Command {
	return entry.Command{Kind: c.Kind(), Body: c.Append(nil)}
}

// Errors of Decode. A replica that meets one while applying must stop.
var (
	ErrCorrupt     = errors.New("command is damaged")
	ErrFormat      = errors.New("command is of a format that this version does not know")
	ErrUnknownKind = errors.New("command is of a kind that this version does not know")
)

// An Op is what a Write does. Numbers are in the log: append-only.
type Op uint8

const (
	// OpPut gives the key the value.
	OpPut Op = 1
	// OpAppend appends the value; an absent key counts as empty.
	OpAppend Op = 2
	// OpDelete removes the key.
	OpDelete Op = 3
)

// A Condition must hold for a write to take effect. The zero Condition always
// does.
type Condition struct {
	Set bool
	// Version is the key's; 0: absent.
	Version shardcfg.Revision
}

// A Write changes one key. Its result is an Outcome; every other command's is a
// Verdict.
type Write struct {
	Op        Op
	Key       []byte
	Value     []byte // none for OpDelete
	Condition Condition
	Stamp     session.Stamp
}

// Check returns why w is malformed, for use before it is proposed; nil if it
// is not. Apply checks again, and refuses with CodeInvalid.
func (w *Write) Check() error {
	if why := w.check(); why != ReasonNone {
		return fmt.Errorf("write: %v", why)
	}
	return nil
}

func (w *Write) check() Reason {
	switch {
	case w.Op < OpPut || w.Op > OpDelete:
		return ReasonOperation
	case shardcfg.CheckKey(w.Key) != nil:
		return ReasonKey
	case shardcfg.CheckValue(w.Value) != nil, w.Op == OpDelete && len(w.Value) > 0:
		return ReasonValueSize
	case w.Stamp.Sequence != 0 && w.Stamp.Key.ID == shardcfg.SessionID{}:
		return ReasonSequence
	}
	return ReasonNone
}

// RaiseFloor raises a shard's session floor to Floor, in ms since 1970.
// Guards: the shard is held; present floor < Floor <= the entry's clock.
type RaiseFloor struct {
	Shard shardcfg.ShardID
	Floor uint64
}

// Prune deletes the records of up to Max sessions that were born before the
// floor, oldest first. Guard: the shard is held.
type Prune struct {
	Shard shardcfg.ShardID
	Max   uint32
}

// Adopt makes Config the newest that the group knows. The first one pins the
// cluster.
type Adopt struct {
	Cluster shardcfg.ClusterID
	Config  *shardcfg.Config
}

// Create makes a token of the shard, at epoch (Gen, 1): its first one, or the
// first of a shard that begins anew. Only a group whom the controllers granted
// that proposes it.
type Create struct {
	Shard   shardcfg.ShardID
	Claimer shardcfg.Incarnation
	// Gen is 0, or that of the repair of a shard whose data was destroyed.
	Gen uint32
}

// Thaw lets a frozen copy serve again, at epoch (Gen, 1), because the group that
// it was frozen for was destroyed. Only a group whom the controllers granted that
// proposes it.
type Thaw struct {
	Shard shardcfg.ShardID
	Epoch shardcfg.Epoch // of the frozen copy
	Gen   uint32
}

// Start begins the handoff towards the owner that config Handoff names.
type Start struct {
	Shard   shardcfg.ShardID
	Handoff shardcfg.ConfigNum
}

// Stage begins a staging.
type Stage struct {
	Shard   shardcfg.ShardID
	Epoch   shardcfg.Epoch // that installing will mint: e+1
	Handoff shardcfg.ConfigNum
	From    Peer
	To      shardcfg.Incarnation
	// Frozen says that the holder was seen Frozen towards To at (e, h).
	Frozen bool
}

// Chunk adds a page to a staging.
type Chunk struct {
	Shard   shardcfg.ShardID
	Epoch   shardcfg.Epoch
	Handoff shardcfg.ConfigNum
	From    Cursor // the page's start: the staging's cursor
	Next    Cursor
	Items   []Item
}

// Install adds the last page to a staging and makes it the served copy.
type Install struct {
	Shard   shardcfg.ShardID
	Epoch   shardcfg.Epoch
	Handoff shardcfg.ConfigNum
	From    Cursor
	Items   []Item
	Summary Summary
}

// Freeze ends serving, irrevocably.
type Freeze struct {
	Shard   shardcfg.ShardID
	Epoch   shardcfg.Epoch
	Handoff shardcfg.ConfigNum
}

// Drop deletes a frozen copy whose successor was seen; the tombstone stays.
type Drop struct {
	Shard shardcfg.ShardID
	Epoch shardcfg.Epoch // of the frozen copy
}

// Discard deletes a staging that can never be installed.
type Discard struct {
	Shard   shardcfg.ShardID
	Epoch   shardcfg.Epoch
	Handoff shardcfg.ConfigNum
}

func (*Write) Kind() entry.Kind      { return KindWrite }
func (*RaiseFloor) Kind() entry.Kind { return KindRaiseFloor }
func (*Prune) Kind() entry.Kind      { return KindPrune }
func (*Adopt) Kind() entry.Kind      { return KindAdopt }
func (*Create) Kind() entry.Kind     { return KindCreate }
func (*Start) Kind() entry.Kind      { return KindStart }
func (*Stage) Kind() entry.Kind      { return KindStage }
func (*Chunk) Kind() entry.Kind      { return KindChunk }
func (*Install) Kind() entry.Kind    { return KindInstall }
func (*Freeze) Kind() entry.Kind     { return KindFreeze }
func (*Drop) Kind() entry.Kind       { return KindDrop }
func (*Discard) Kind() entry.Kind    { return KindDiscard }
func (*Thaw) Kind() entry.Kind       { return KindThaw }

// HandoffShard returns the shard whose record a command of the handoff changes;
// false for every other command.
func HandoffShard(c Command) (shardcfg.ShardID, bool) {
	switch c := c.(type) {
	case *Create:
		return c.Shard, true
	case *Start:
		return c.Shard, true
	case *Stage:
		return c.Shard, true
	case *Chunk:
		return c.Shard, true
	case *Install:
		return c.Shard, true
	case *Freeze:
		return c.Shard, true
	case *Drop:
		return c.Shard, true
	case *Discard:
		return c.Shard, true
	case *Thaw:
		return c.Shard, true
	}
	return 0, false
}
