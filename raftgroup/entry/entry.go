// Package entry is the envelope of a log entry: the commands that one proposal
// packs together, with the leader's clock and a checksum.
//
// Row 0 of the layers: a pure codec, standard library only.
//
// An encoded entry is, in big-endian order:
//
//	magic    u16  0x5348 ("SH")
//	format   u8   1
//	feature  u8   the feature level that the proposer wrote with
//	clock    u64  the leader's clock in ms since 1970, never backwards in a log
//	count    u32  number of commands
//	count x { length u32 (of kind and body), kind u8, body }
//	crc      u32  CRC32C of everything before it
package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A Kind says what a command means. Kinds below KindMachineMin belong to
// raftgroup; the others to the machine that the group replicates. Kinds are
// append-only: a number is never given a second meaning.
type Kind uint8

const (
	// KindNoop does nothing; a new leader commits one in its own term.
	KindNoop Kind = 0
	// KindRaiseFeature raises the group's feature level to its one-byte body.
	KindRaiseFeature Kind = 1
	// KindMember records the label of a server id in the group. Its body is an
	// encoding of package raftgroup.
	KindMember Kind = 2
	// KindHandover records that the leader hands over because it limps. It has no
	// body: the entry's clock says when.
	KindHandover Kind = 3
	// KindReplacement notes which member is being replaced by which. Its body is
	// an encoding of package raftgroup.
	KindReplacement Kind = 4
	// KindMachineMin is the first kind that machines may define.
	KindMachineMin Kind = 16
)

// A Command is one command of an entry.
type Command struct {
	Kind Kind
	Body []byte
}

// An Entry is the unit of the log: commands that are appended, replicated,
// and applied together, in order.
type Entry struct {
	// Index and Term are the entry's place in the log. They are not part of the
	// encoding.
	Index, Term uint64
	// Clock is the leader's clock in ms since 1970. It never falls from one
	// entry of a log to a later one; it may stand far off the true time.
	Clock uint64
	// Feature is the feature level that the proposer wrote with.
	Feature uint8
	// Commands share the memory of the buffer that Decode was given.
	Commands []Command
}

// FeatureLevel is the highest feature level that this build understands.
const FeatureLevel uint8 = 1

const (
	magic       = 0x5348
	format      = 1
	headerBytes = 2 + 1 + 1 + 8 + 4
	crcBytes    = 4

	// CommandOverheadBytes is what the envelope adds to a command's body.
	CommandOverheadBytes = 4 + 1
	// OverheadBytes is what the envelope adds to the sum of its commands.
	OverheadBytes = headerBytes + crcBytes
)

// Errors of Decode. ErrCorrupt covers every damage; a replica that meets either
// while applying must stop, never skip.
var (
	ErrCorrupt = errors.New("log entry is damaged")
	ErrFormat  = errors.New("log entry is of a format that this version does not know")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Size is the number of bytes that Append will add.
func (e *Entry) Size() int {
	n := OverheadBytes
	for _, c := range e.Commands {
		n += CommandOverheadBytes + len(c.Body)
	}
	return n
}

// Append appends the encoding of e to dst and returns the extended slice.
func (e *Entry) Append(dst []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, magic)
	dst = append(dst, format, e.Feature)
	dst = binary.BigEndian.AppendUint64(dst, e.Clock)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(e.Commands)))
	for _, c := range e.Commands {
		dst = binary.BigEndian.AppendUint32(dst, uint32(1+len(c.Body)))
		dst = append(dst, byte(c.Kind))
		dst = append(dst, c.Body...)
	}
	sum := crc32.Checksum(dst[start:], castagnoli)
	return binary.BigEndian.AppendUint32(dst, sum)
}

// Decode reads an encoded entry. The commands alias b. Errors wrap ErrCorrupt
// or ErrFormat.
func Decode(b []byte) (Entry, error) {
	if len(b) < headerBytes+crcBytes || binary.BigEndian.Uint16(b) != magic {
		return Entry{}, fmt.Errorf("%w: no header in %d bytes", ErrCorrupt, len(b))
	}
	body, sum := b[:len(b)-crcBytes], binary.BigEndian.Uint32(b[len(b)-crcBytes:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return Entry{}, fmt.Errorf("%w: checksum %08x, want %08x", ErrCorrupt, got, sum)
	}
	if b[2] != format {
		return Entry{}, fmt.Errorf("%w: format %d", ErrFormat, b[2])
	}
	e := Entry{Feature: b[3], Clock: binary.BigEndian.Uint64(b[4:])}
	count := binary.BigEndian.Uint32(b[12:])
	body = body[headerBytes:]
	if uint64(count)*CommandOverheadBytes > uint64(len(body)) {
		return Entry{}, fmt.Errorf("%w: %d commands in %d bytes", ErrCorrupt, count, len(body))
	}
	e.Commands = make([]Command, count)
	for i := range e.Commands {
		if len(body) < CommandOverheadBytes {
			return Entry{}, fmt.Errorf("%w: command %d is cut off", ErrCorrupt, i)
		}
		n := binary.BigEndian.Uint32(body)
		if n < 1 || uint64(n) > uint64(len(body)-4) {
			return Entry{}, fmt.Errorf("%w: command %d has length %d of %d", ErrCorrupt, i, n, len(body)-4)
		}
		e.Commands[i] = Command{Kind: Kind(body[4]), Body: body[5 : 4+n : 4+n]}
		body = body[4+n:]
	}
	if len(body) != 0 {
		return Entry{}, fmt.Errorf("%w: %d bytes behind the last command", ErrCorrupt, len(body))
	}
	return e, nil
}
