package shardcfg

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
)

// Errors of CheckKey, CheckValue and CheckShardCount.
var (
	ErrKeyEmpty      = errors.New("key is empty")
	ErrKeyTooLong    = fmt.Errorf("key is longer than %d bytes", KeyBytesMax)
	ErrValueTooLarge = fmt.Errorf("value is larger than %d bytes", ValueBytesMax)
	ErrShardCount    = fmt.Errorf("shard count is not a power of two from 1 to %d", ShardCountMax)
)

// CheckKey returns ErrKeyEmpty or ErrKeyTooLong for a key outside the limits.
func CheckKey(key []byte) error {
	switch {
	case len(key) == 0:
		return ErrKeyEmpty
	case len(key) > KeyBytesMax:
		return ErrKeyTooLong
	}
	return nil
}

// CheckValue returns ErrValueTooLarge for a value outside the limits.
func CheckValue(value []byte) error {
	if len(value) > ValueBytesMax {
		return ErrValueTooLarge
	}
	return nil
}

// CheckShardCount returns ErrShardCount unless n is a power of two from 1 to
// ShardCountMax.
func CheckShardCount(n int) error {
	if n < 1 || n > ShardCountMax || bits.OnesCount(uint(n)) != 1 {
		return ErrShardCount
	}
	return nil
}

// A Slot is a key's place on the hash ring, 0 to SlotCount - 1.
type Slot uint16

// SlotOf returns the slot of key: CRC16/XMODEM of the key, or of its hash tag,
// modulo SlotCount. The hash tag is what stands between the first '{' and the
// first '}' after it, if that is not empty: the placement of Redis Cluster
// (Redis Cluster Specification, "Hash tags").
func SlotOf(key []byte) Slot {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	return Slot(crc16(key) % SlotCount)
}

// ShardOf returns the shard of a slot in a cluster of shardCount shards, which
// must be a power of two: shards are contiguous ranges of slots.
func (s Slot) ShardOf(shardCount int) ShardID {
	return ShardID(int(s) * shardCount / SlotCount)
}

// ShardOf returns the shard of key in a cluster of shardCount shards.
func ShardOf(key []byte, shardCount int) ShardID { return SlotOf(key).ShardOf(shardCount) }

// crc16 is CRC16/XMODEM: polynomial 0x1021, start 0, not reflected.
func crc16(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc = crc<<8 ^ crc16Table[byte(crc>>8)^c]
	}
	return crc
}

var crc16Table = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()
