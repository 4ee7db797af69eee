package ctrlfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// The kinds of the controller's commands. Numbers are never reused. A body is a
// format byte (1) and the fields of the command's type in their order: numbers
// as uvarints, names as 16 bytes, lists and strings with their length before
// them, flags as a byte.
const (
	KindJoin    = entry.KindMachineMin + 0
	KindLeave   = entry.KindMachineMin + 1
	KindMove    = entry.KindMachineMin + 2
	KindUnpin   = entry.KindMachineMin + 3
	KindBind    = entry.KindMachineMin + 4
	KindClaim   = entry.KindMachineMin + 5
	KindDrained = entry.KindMachineMin + 6

	KindRetire = entry.KindMachineMin + 7
	KindRepair = entry.KindMachineMin + 8
)

const commandFormat = 1

// Bounds of the lists in a command.
const (
	JoinGroupsMax    = shardcfg.GroupsMax
	LeaveGIDsMax     = shardcfg.GroupsMax
	RepairCasesMax   = 1024
	RepairAnswersMax = 32_768 // of all cases together
)

// ErrCommand is wrapped by the errors of Decode. A replica that meets one in
// its log must stop.
var ErrCommand = errors.New("controller command is damaged or of an unknown kind")

// A RequestID recognises a repeated admin request.
type RequestID struct {
	ID shardcfg.ID128 // random, not zero
	// BirthMS is when it was drawn, in ms since 1970. A repeat carries the same.
	BirthMS uint64
}

// A Command is one of the types Join, Leave, Move, Unpin, Bind, Claim, Drained,
// Retire, RepairShards.
type Command interface {
	// Encode returns the command for a log entry.
	Encode() entry.Command
}

// Join adds groups, cancels the leave of groups that come back, or changes the
// weight of members.
type Join struct {
	Request RequestID
	Groups  []JoinGroup
}

// A JoinGroup is one group of a Join.
type JoinGroup struct {
	ID       shardcfg.GroupID
	Replicas []string
	// Weight 0 means 1, or unchanged for a group that is listed.
	Weight uint32
	// Identity is what the replicas said of themselves.
	Identity Identity
	// Incarnation is theirs if Identity is IdentityFormed; else zero.
	Incarnation shardcfg.Incarnation
}

// Identity says what is known about the replicas of a group that joins.
type Identity uint8

const (
	// IdentityUnknown: nobody asked them (a forced join).
	IdentityUnknown Identity = iota
	// IdentityEmpty: they answered, and do not belong to a formed group yet.
	IdentityEmpty
	// IdentityFormed: they answered, as members of an incarnation.
	IdentityFormed
)

// Leave removes groups: all of them, or none.
type Leave struct {
	Request RequestID
	Groups  []shardcfg.GroupID
}

// Move pins one shard to a group.
type Move struct {
	Request RequestID
	Shard   shardcfg.ShardID
	Group   shardcfg.GroupID
	// MaxPauseMS is the pin's.
	MaxPauseMS uint32
}

// Unpin lets a pinned shard be balanced again.
type Unpin struct {
	Request RequestID
	Shard   shardcfg.ShardID
}

// Bind ties a gid to a new incarnation, at the group's first contact; later it
// tells the addresses of the group's present replicas.
type Bind struct {
	Group       shardcfg.GroupID
	Incarnation shardcfg.Incarnation
	Replicas    []string
}

// Claim asks for the right to create the first token of shards.
type Claim struct {
	Incarnation shardcfg.Incarnation
	Shards      []shardcfg.ShardID
}

// Drained reports that a leaving group holds nothing any more, and will not,
// having adopted a config.
type Drained struct {
	Incarnation shardcfg.Incarnation
	Adopted     shardcfg.ConfigNum
}

// Retire declares an incarnation destroyed, for good. Its group is not listed any
// more, and nobody takes anything from it.
type Retire struct {
	Request     RequestID
	Incarnation shardcfg.Incarnation
}

// RepairShards grants repairs, by the answers that the groups gave after they had
// adopted config Num. Apply judges them, see Judge.
type RepairShards struct {
	Num shardcfg.ConfigNum
	// Asked are the groups that answered, in ascending order.
	Asked []shardcfg.Incarnation
	// LossAccepted lets frozen copies thaw and lost shards begin anew.
	LossAccepted bool
	Cases        []RepairCase
}

// A RepairCase is one shard of RepairShards.
type RepairCase struct {
	Shard shardcfg.ShardID
	// LastGen is the generation of the shard's last repair when the groups were
	// asked; 0: none.
	LastGen uint32
	Answers []Answer
}

// Encode returns the command for a log entry.
func (c Join) Encode() entry.Command {
	b := appendRequest(nil, c.Request)
	b = binary.AppendUvarint(b, uint64(len(c.Groups)))
	for _, g := range c.Groups {
		b = binary.AppendUvarint(b, uint64(g.ID))
		b = appendStrings(b, g.Replicas)
		b = binary.AppendUvarint(b, uint64(g.Weight))
		b = append(b, byte(g.Identity))
		b = append(b, g.Incarnation[:]...)
	}
	return entry.Command{Kind: KindJoin, Body: b}
}

// Encode returns the command for a log entry.
func (c Leave) Encode() entry.Command {
	b := appendRequest(nil, c.Request)
	b = binary.AppendUvarint(b, uint64(len(c.Groups)))
	for _, gid := range c.Groups {
		b = binary.AppendUvarint(b, uint64(gid))
	}
	return entry.Command{Kind: KindLeave, Body: b}
}

// Encode returns the command for a log entry.
func (c Move) Encode() entry.Command {
	b := appendRequest(nil, c.Request)
	b = binary.AppendUvarint(b, uint64(c.Shard))
	b = binary.AppendUvarint(b, uint64(c.Group))
	return entry.Command{Kind: KindMove, Body: binary.AppendUvarint(b, uint64(c.MaxPauseMS))}
}

// Encode returns the command for a log entry.
func (c Unpin) Encode() entry.Command {
	b := appendRequest(nil, c.Request)
	return entry.Command{Kind: KindUnpin, Body: binary.AppendUvarint(b, uint64(c.Shard))}
}

// Encode returns the command for a log entry.
func (c Bind) Encode() entry.Command {
	b := binary.AppendUvarint([]byte{commandFormat}, uint64(c.Group))
	b = append(b, c.Incarnation[:]...)
	return entry.Command{Kind: KindBind, Body: appendStrings(b, c.Replicas)}
}

// Encode returns the command for a log entry.
func (c Claim) Encode() entry.Command {
	b := append([]byte{commandFormat}, c.Incarnation[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Shards)))
	for _, s := range c.Shards {
		b = binary.AppendUvarint(b, uint64(s))
	}
	return entry.Command{Kind: KindClaim, Body: b}
}

// Encode returns the command for a log entry.
func (c Drained) Encode() entry.Command {
	b := append([]byte{commandFormat}, c.Incarnation[:]...)
	return entry.Command{Kind: KindDrained, Body: binary.AppendUvarint(b, uint64(c.Adopted))}
}

// Encode returns the command for a log entry.
func (c Retire) Encode() entry.Command {
	b := appendRequest(nil, c.Request)
	return entry.Command{Kind: KindRetire, Body: append(b, c.Incarnation[:]...)}
}

// Encode returns the command for a log entry.
func (c RepairShards) Encode() entry.Command {
	b := binary.AppendUvarint([]byte{commandFormat}, uint64(c.Num))
	b = binary.AppendUvarint(b, uint64(len(c.Asked)))
	for _, inc := range c.Asked {
		b = append(b, inc[:]...)
	}
	b = append(b, flag(c.LossAccepted))
	b = binary.AppendUvarint(b, uint64(len(c.Cases)))
	for _, k := range c.Cases {
		b = binary.AppendUvarint(b, uint64(k.Shard))
		b = binary.AppendUvarint(b, uint64(k.LastGen))
		b = binary.AppendUvarint(b, uint64(len(k.Answers)))
		for _, a := range k.Answers {
			b = append(b, a.Group[:]...)
			b = binary.AppendUvarint(b, uint64(a.Epoch.Gen))
			b = binary.AppendUvarint(b, a.Epoch.Num)
			b = append(b, byte(a.Holding))
			b = append(b, a.To[:]...)
		}
	}
	return entry.Command{Kind: KindRepair, Body: b}
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// Decode reads a command of the log; it shares no memory with it. Errors wrap
// ErrCommand. It judges the form only: what the command asks for may be
// nonsense, which Apply refuses.
func Decode(ec entry.Command) (Command, error) {
	r := &reader{b: ec.Body}
	if f := r.byte(); f != commandFormat && r.err == nil {
		r.fail("format %d", f)
	}
	var c Command
	switch ec.Kind {
	case KindJoin:
		c = r.join()
	case KindLeave:
		c = Leave{Request: r.request(), Groups: list(r, LeaveGIDsMax, r.groupID)}
	case KindMove:
		c = Move{Request: r.request(), Shard: r.shard(), Group: r.groupID(), MaxPauseMS: uint32(r.uvarint(math.MaxUint32))}
	case KindUnpin:
		c = Unpin{Request: r.request(), Shard: r.shard()}
	case KindBind:
		c = Bind{Group: r.groupID(), Incarnation: r.name(), Replicas: r.strings()}
	case KindClaim:
		c = Claim{Incarnation: r.name(), Shards: list(r, shardcfg.ShardCountMax, r.shard)}
	case KindDrained:
		c = Drained{Incarnation: r.name(), Adopted: shardcfg.ConfigNum(r.uvarint(^uint64(0)))}
	case KindRetire:
		c = Retire{Request: r.request(), Incarnation: r.name()}
	case KindRepair:
		c = r.repairShards()
	default:
		r.fail("kind %d", ec.Kind)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes behind the end", len(r.b))
	}
	if r.err != nil {
		return nil, fmt.Errorf("command of kind %d: %w", ec.Kind, r.err)
	}
	return c, nil
}

func appendRequest(b []byte, id RequestID) []byte {
	b = append(b, commandFormat)
	b = append(b, id.ID[:]...)
	return binary.AppendUvarint(b, id.BirthMS)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}
