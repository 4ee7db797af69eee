package kvfsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Kinds of a shard's stored keys. Append-only.
const (
	kindMeta    byte = 0x01 // the shard's own values, such as the session floor
	kindSession byte = 0x02 // session.Key -> session.Record
	kindLock    byte = 0x03 // reserved for transactions
	kindRecord  byte = 0x04 // user key -> value header and value

	// KindLocalMin is the first kind that serves one copy only.
	KindLocalMin byte = 0x80
	// The change log names the items that changed since a handoff began, each
	// once, with the revision of its last change, in both directions.
	kindLogByRevision byte = 0x80 // revision u64 | item key -> size of the item, uvarint
	kindLogByKey      byte = 0x81 // item key -> revision u64
)

// metaFloor is the session floor: u64 ms since 1970. Absent: 0.
var metaFloor = []byte{kindMeta, 0x01}

const copyPrefixBytes = 2 + 8

// A copyID is one copy of a shard: the prefix of its stored keys.
type copyID struct {
	shard shardcfg.ShardID
	n     uint64
}

func (c copyID) prefix(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(c.shard))
	return binary.BigEndian.AppendUint64(dst, c.n)
}

// key returns the stored key of an item.
func (c copyID) key(dst, item []byte) []byte { return append(c.prefix(dst), item...) }

// at returns the stored key that is nothing but a kind and a rest.
func (c copyID) at(kind byte, rest ...byte) []byte {
	dst := append(c.prefix(make([]byte, 0, copyPrefixBytes+1+len(rest))), kind)
	return append(dst, rest...)
}

// bounds returns the range of everything that belongs to the copy.
func (c copyID) bounds() (lower, upper []byte) {
	return c.prefix(nil), copyID{c.shard, c.n + 1}.prefix(nil)
}

// itemBounds returns the range of the items: what is digested and passed on.
func (c copyID) itemBounds() (lower, upper []byte) { return c.at(0), c.at(KindLocalMin) }

// logBounds returns the range of the change log.
func (c copyID) logBounds() (lower, upper []byte) {
	return c.at(kindLogByRevision), c.at(kindLogByKey + 1)
}

// itemRecord appends the item key of a user key.
func itemRecord(dst, user []byte) []byte { return append(append(dst, kindRecord), user...) }

func (c copyID) logByRevision(dst []byte, rev shardcfg.Revision, item []byte) []byte {
	dst = append(c.prefix(dst), kindLogByRevision)
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev))
	return append(dst, item...)
}

func (c copyID) logByKey(dst, item []byte) []byte {
	return append(append(c.prefix(dst), kindLogByKey), item...)
}

// Machine-wide keys.
const (
	machinePrefix  = 0xFFFE
	machineRecord  = 1
	machineAdopted = 2
	machineCluster = 3
	// machineAdoptedNum repeats the adopted config's number, u64: readers ask for
	// it often, and the config is long.
	machineAdoptedNum = 4
)

func machineKey(what byte) []byte { return []byte{machinePrefix >> 8, machinePrefix & 0xFF, what} }

func recordKey(s shardcfg.ShardID) []byte {
	return binary.BigEndian.AppendUint16(machineKey(machineRecord), uint16(s))
}

// ErrState is wrapped by errors that say that stored state is damaged, or of a
// format that this version does not know. A replica that meets one must stop.
var ErrState = errors.New("stored state is damaged")

// ErrRequest is wrapped by errors that say that an argument from outside makes
// no sense. It says nothing about the store.
var ErrRequest = errors.New("bad request")

// A value in the store begins with
//
//	format   u8   1
//	type     u8   1: bytes
//	flags    u8   0
//	version  u64
//	expiry   u64  ms since 1970; 0: none
const (
	valueFormat      = 1
	valueTypeBytes   = 1
	valueHeaderBytes = 1 + 1 + 1 + 8 + 8
)

func appendValueHeader(dst []byte, version shardcfg.Revision) []byte {
	dst = append(dst, valueFormat, valueTypeBytes, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(version))
	return binary.BigEndian.AppendUint64(dst, 0)
}

// parseValue splits a stored value into its version and the user's bytes,
// which alias b.
func parseValue(b []byte) (version shardcfg.Revision, value []byte, err error) {
	if len(b) < valueHeaderBytes || b[0] != valueFormat || b[1] != valueTypeBytes || b[2] != 0 {
		return 0, nil, fmt.Errorf("%w: value header % x", ErrState, b[:min(len(b), valueHeaderBytes)])
	}
	return shardcfg.Revision(binary.BigEndian.Uint64(b[3:])), b[valueHeaderBytes:], nil
}
