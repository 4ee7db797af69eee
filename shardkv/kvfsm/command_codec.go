package kvfsm

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// Every body begins with its format, so that a kind can grow fields.
const commandFormat = 1

// Flags of a Write.
const (
	writeCondition = 1 << 0
	writeSession   = 1 << 1
	writeFlagsMask = writeCondition | writeSession
)

// Append appends
//
//	format u8 1, op u8, flags u8,
//	version uvarint            if flag 1
//	id [16]byte, birth uvarint, acked below uvarint, sequence uvarint   if flag 2
//	length uvarint, key, then the value up to the end
//
// The session is left out where there is no sequence.
func (w *Write) Append(dst []byte) []byte {
	var flags byte
	if w.Condition.Set {
		flags |= writeCondition
	}
	if w.Stamp.Sequence != 0 {
		flags |= writeSession
	}
	dst = append(dst, commandFormat, byte(w.Op), flags)
	if w.Condition.Set {
		dst = binary.AppendUvarint(dst, uint64(w.Condition.Version))
	}
	if w.Stamp.Sequence != 0 {
		dst = append(dst, w.Stamp.Key.ID[:]...)
		dst = binary.AppendUvarint(dst, w.Stamp.Key.Birth)
		dst = binary.AppendUvarint(dst, w.Stamp.AckedBelow)
		dst = binary.AppendUvarint(dst, w.Stamp.Sequence)
	}
	return append(appendBytes(dst, w.Key), w.Value...)
}

func (w *Write) decode(d *decoder) {
	w.Op = Op(d.byteMax(0xFF))
	flags := d.byteMax(writeFlagsMask)
	if flags&writeCondition != 0 {
		w.Condition = Condition{Set: true, Version: shardcfg.Revision(d.uvarint())}
	}
	if flags&writeSession != 0 {
		w.Stamp = session.Stamp{Key: session.Key{ID: d.id(), Birth: d.uvarint()},
			AckedBelow: d.uvarint(), Sequence: d.uvarint()}
		if w.Stamp.Sequence == 0 {
			d.bad = true
		}
	}
	w.Key = d.bytes()
	if len(d.b) > 0 {
		w.Value = d.take(uint64(len(d.b)))
	}
}

// Append appends format, shard, floor.
func (c *RaiseFloor) Append(dst []byte) []byte {
	return binary.AppendUvarint(appendHead(dst, c.Shard), c.Floor)
}

func (c *RaiseFloor) decode(d *decoder) { c.Shard, c.Floor = d.shard(), d.uvarint() }

// Append appends format, shard, max.
func (c *Prune) Append(dst []byte) []byte {
	return binary.AppendUvarint(appendHead(dst, c.Shard), uint64(c.Max))
}

func (c *Prune) decode(d *decoder) { c.Shard, c.Max = d.shard(), uint32(d.uvarintMax(1<<32-1)) }

// Append appends format, cluster, and the config's own encoding up to the end.
func (c *Adopt) Append(dst []byte) []byte {
	dst = append(append(dst, commandFormat), c.Cluster[:]...)
	return shardcfg.AppendConfig(dst, c.Config)
}

func (c *Adopt) decode(d *decoder) {
	c.Cluster = d.id()
	config, err := shardcfg.DecodeConfig(d.take(uint64(len(d.b))))
	if err != nil {
		d.bad = true
	}
	c.Config = config
}

// Append appends format, shard, claimer, gen.
func (c *Create) Append(dst []byte) []byte {
	dst = append(appendHead(dst, c.Shard), c.Claimer[:]...)
	return binary.AppendUvarint(dst, uint64(c.Gen))
}

func (c *Create) decode(d *decoder) {
	c.Shard, c.Claimer, c.Gen = d.shard(), d.id(), uint32(d.uvarintMax(1<<32-1))
}

// Append appends format, shard, handoff.
func (c *Start) Append(dst []byte) []byte {
	return binary.AppendUvarint(appendHead(dst, c.Shard), uint64(c.Handoff))
}

func (c *Start) decode(d *decoder) { c.Shard, c.Handoff = d.shard(), d.handoff() }

// Append appends format, shard, epoch, handoff, from, to, frozen.
func (c *Stage) Append(dst []byte) []byte {
	dst = appendPeer(appendMark(dst, c.Shard, c.Epoch, c.Handoff), c.From)
	return appendBool(append(dst, c.To[:]...), c.Frozen)
}

func (c *Stage) decode(d *decoder) {
	c.Shard, c.Epoch, c.Handoff = d.mark()
	c.From, c.To, c.Frozen = d.peer(), d.id(), d.bool()
}

// Append appends format, shard, epoch, handoff, from, next, items.
func (c *Chunk) Append(dst []byte) []byte {
	dst = appendCursor(appendMark(dst, c.Shard, c.Epoch, c.Handoff), c.From)
	return appendItems(appendCursor(dst, c.Next), c.Items)
}

func (c *Chunk) decode(d *decoder) {
	c.Shard, c.Epoch, c.Handoff = d.mark()
	c.From, c.Next, c.Items = d.cursor(), d.cursor(), d.items()
}

// Append appends format, shard, epoch, handoff, from, items, summary.
func (c *Install) Append(dst []byte) []byte {
	dst = appendCursor(appendMark(dst, c.Shard, c.Epoch, c.Handoff), c.From)
	dst = appendItems(dst, c.Items)
	dst = binary.AppendUvarint(dst, uint64(c.Summary.Revision))
	dst = binary.AppendUvarint(dst, uint64(c.Summary.RemovalRevision))
	return appendContent(dst, c.Summary.Content)
}

func (c *Install) decode(d *decoder) {
	c.Shard, c.Epoch, c.Handoff = d.mark()
	c.From, c.Items = d.cursor(), d.items()
	c.Summary.Revision = shardcfg.Revision(d.uvarint())
	c.Summary.RemovalRevision = shardcfg.Revision(d.uvarint())
	c.Summary.Content = d.content()
}

// Append appends format, shard, epoch, handoff.
func (c *Freeze) Append(dst []byte) []byte { return appendMark(dst, c.Shard, c.Epoch, c.Handoff) }

func (c *Freeze) decode(d *decoder) { c.Shard, c.Epoch, c.Handoff = d.mark() }

// Append appends format, shard, epoch.
func (c *Drop) Append(dst []byte) []byte { return appendEpoch(appendHead(dst, c.Shard), c.Epoch) }

func (c *Drop) decode(d *decoder) { c.Shard, c.Epoch = d.shard(), d.epoch() }

// Append appends format, shard, epoch, handoff.
func (c *Discard) Append(dst []byte) []byte { return appendMark(dst, c.Shard, c.Epoch, c.Handoff) }

func (c *Discard) decode(d *decoder) { c.Shard, c.Epoch, c.Handoff = d.mark() }

// Append appends format, shard, epoch, gen.
func (c *Thaw) Append(dst []byte) []byte {
	return binary.AppendUvarint(appendEpoch(appendHead(dst, c.Shard), c.Epoch), uint64(c.Gen))
}

func (c *Thaw) decode(d *decoder) {
	c.Shard, c.Epoch, c.Gen = d.shard(), d.epoch(), uint32(d.uvarintMax(1<<32-1))
}

func appendHead(dst []byte, s shardcfg.ShardID) []byte {
	return binary.AppendUvarint(append(dst, commandFormat), uint64(s))
}

func appendMark(dst []byte, s shardcfg.ShardID, e shardcfg.Epoch, h shardcfg.ConfigNum) []byte {
	return binary.AppendUvarint(appendEpoch(appendHead(dst, s), e), uint64(h))
}

func (d *decoder) mark() (shardcfg.ShardID, shardcfg.Epoch, shardcfg.ConfigNum) {
	s := d.shard()
	e := d.epoch()
	return s, e, d.handoff()
}

// Decode reads a command of a log entry. What it returns aliases c.Body. It
// accepts only what Append writes; errors wrap ErrCorrupt, ErrFormat or
// ErrUnknownKind.
func Decode(c entry.Command) (Command, error) {
	var cmd interface {
		Command
		decode(*decoder)
	}
	switch c.Kind {
	case KindWrite:
		cmd = &Write{}
	case KindRaiseFloor:
		cmd = &RaiseFloor{}
	case KindPrune:
		cmd = &Prune{}
	case KindAdopt:
		cmd = &Adopt{}
	case KindCreate:
		cmd = &Create{}
	case KindStart:
		cmd = &Start{}
	case KindStage:
		cmd = &Stage{}
	case KindChunk:
		cmd = &Chunk{}
	case KindInstall:
		cmd = &Install{}
	case KindFreeze:
		cmd = &Freeze{}
	case KindDrop:
		cmd = &Drop{}
	case KindDiscard:
		cmd = &Discard{}
	case KindThaw:
		cmd = &Thaw{}
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrUnknownKind, c.Kind)
	}
	if err := decodeInto(c, cmd); err != nil {
		return nil, err
	}
	return cmd, nil
}

// decodeInto reads the body of c into cmd, which is zero and of c's kind.
func decodeInto(c entry.Command, cmd interface{ decode(*decoder) }) error {
	if len(c.Body) == 0 {
		return fmt.Errorf("%w: empty body of kind %d", ErrCorrupt, c.Kind)
	}
	if c.Body[0] != commandFormat {
		return fmt.Errorf("%w: format %d of kind %d", ErrFormat, c.Body[0], c.Kind)
	}
	d := decoder{b: c.Body[1:]}
	cmd.decode(&d)
	if err := d.finish(); err != nil {
		return fmt.Errorf("%w: kind %d, %d bytes", err, c.Kind, len(c.Body))
	}
	return nil
}
