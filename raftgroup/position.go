package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// raftgroup's own keys. They are written in the batch of the entries that they
// describe, so that state and position can't part.
var (
	keyPosition      = []byte{0xFF, 0xFF, 1}
	keyConfiguration = []byte{0xFF, 0xFF, 2}
	// keyMember is followed by a server id.
	keyMember = []byte{0xFF, 0xFF, 3}
	// keyHandover holds the entry clock of the last handover of a leader that limped,
	// u64 big-endian.
	keyHandover = []byte{0xFF, 0xFF, 4}
)

// featureLevelFirst is the level of a group that was never raised.
const featureLevelFirst uint8 = 1

// errPosition says that one of raftgroup's own records can't be read.
var errPosition = errors.New("a record of the replica's position is damaged")

// errFeature says that a state was written by a later version, in ways that this
// one may not know.
var errFeature = errors.New("the state is of a feature level that this version does not understand")

// A position is where the visible state stands. On disk it is, in big-endian
// order:
//
//	format u8 1 | index u64 | term u64 | clock u64 | feature u8
type position struct {
	index, term uint64
	clock       uint64
	feature     uint8
}

const (
	positionFormat = 1
	positionBytes  = 1 + 3*8 + 1
)

func (p position) encode() []byte {
	b := make([]byte, 0, positionBytes)
	b = append(b, positionFormat)
	b = binary.BigEndian.AppendUint64(b, p.index)
	b = binary.BigEndian.AppendUint64(b, p.term)
	b = binary.BigEndian.AppendUint64(b, p.clock)
	return append(b, p.feature)
}

// readPosition returns the zero position, with the first feature level, for an
// empty store. A state of a later feature level is refused, with errFeature.
func readPosition(r store.Reader) (position, error) {
	b, ok, err := r.Get(keyPosition)
	if err != nil {
		return position{}, fmt.Errorf("read the applied index: %w", err)
	}
	if !ok {
		return position{feature: featureLevelFirst}, nil
	}
	if len(b) != positionBytes || b[0] != positionFormat {
		return position{}, fmt.Errorf("%w: applied index %x", errPosition, b)
	}
	if level := b[25]; level > entry.FeatureLevel {
		return position{}, fmt.Errorf("%w: %d, known is %d: start a version that understands it", errFeature, level, entry.FeatureLevel)
	}
	return position{
		index:   binary.BigEndian.Uint64(b[1:]),
		term:    binary.BigEndian.Uint64(b[9:]),
		clock:   binary.BigEndian.Uint64(b[17:]),
		feature: b[25],
	}, nil
}

// members is a configuration of Raft with the index of its entry. On disk it
// is, in big-endian order:
//
//	format u8 1 | index u64 | count u16 | count x { suffrage u8, id, address }
//
// where id and address are length u16 and bytes.
type members struct {
	index  uint64
	config raft.Configuration
}

const membersFormat = 1

func (m members) encode() []byte {
	b := []byte{membersFormat}
	b = binary.BigEndian.AppendUint64(b, m.index)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.config.Servers)))
	for _, s := range m.config.Servers {
		b = append(b, byte(s.Suffrage))
		b = appendString(b, string(s.ID))
		b = appendString(b, string(s.Address))
	}
	return b
}

func decodeMembers(b []byte) (members, error) {
	if len(b) < 11 || b[0] != membersFormat {
		return members{}, fmt.Errorf("%w: configuration %x", errPosition, b)
	}
	m := members{index: binary.BigEndian.Uint64(b[1:])}
	count, rest := int(binary.BigEndian.Uint16(b[9:])), b[11:]
	for range count {
		if len(rest) < 1 {
			return members{}, fmt.Errorf("%w: configuration %x", errPosition, b)
		}
		s := raft.Server{Suffrage: raft.ServerSuffrage(rest[0])}
		var id, address string
		var ok bool
		if id, rest, ok = cutString(rest[1:]); !ok {
			return members{}, fmt.Errorf("%w: configuration %x", errPosition, b)
		}
		if address, rest, ok = cutString(rest); !ok {
			return members{}, fmt.Errorf("%w: configuration %x", errPosition, b)
		}
		s.ID, s.Address = raft.ServerID(id), raft.ServerAddress(address)
		m.config.Servers = append(m.config.Servers, s)
	}
	if len(rest) != 0 {
		return members{}, fmt.Errorf("%w: configuration %x", errPosition, b)
	}
	return m, nil
}

func readMembers(r store.Reader) (members, error) {
	b, ok, err := r.Get(keyConfiguration)
	if err != nil {
		return members{}, fmt.Errorf("read the configuration: %w", err)
	}
	if !ok {
		return members{}, nil
	}
	return decodeMembers(b)
}

func memberKey(serverID string) []byte {
	return append(append([]byte(nil), keyMember...), serverID...)
}

// encodeMemberRecord makes the body of an entry.KindMember: label, server id and
// address, each as length u16 and bytes.
func encodeMemberRecord(m formation.Member) []byte {
	b := appendString(nil, m.Label)
	b = appendString(b, m.ServerID)
	return appendString(b, m.Address)
}

func decodeMemberRecord(b []byte) (formation.Member, error) {
	var m formation.Member
	var ok [3]bool
	m.Label, b, ok[0] = cutString(b)
	m.ServerID, b, ok[1] = cutString(b)
	m.Address, b, ok[2] = cutString(b)
	if !ok[0] || !ok[1] || !ok[2] || len(b) != 0 || m.ServerID == "" {
		return formation.Member{}, fmt.Errorf("%w: member", errPosition)
	}
	return m, nil
}

// readLabels returns the known members by server id.
func readLabels(r store.Reader) (labels map[string]formation.Member, err error) {
	labels = make(map[string]formation.Member)
	it, err := r.Iterate(keyMember, store.PrefixEnd(keyMember))
	if err != nil {
		return nil, fmt.Errorf("read the members: %w", err)
	}
	for it.Next() {
		m, bad := decodeMemberRecord(it.Value())
		if bad != nil {
			it.Close()
			return nil, bad
		}
		labels[m.ServerID] = m
	}
	if err := it.Close(); err != nil {
		return nil, fmt.Errorf("read the members: %w", err)
	}
	return labels, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return "", nil, false
	}
	return string(b[2 : 2+n]), b[2+n:], true
}
