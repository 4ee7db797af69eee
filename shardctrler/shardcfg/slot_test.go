package shardcfg

import (
	"bytes"
	"errors"
	"testing"
)

// The slots are those that CLUSTER KEYSLOT of Redis answers; the first value is
// the check value of CRC16/XMODEM.
func TestSlotsAreThoseOfRedisCluster(t *testing.T) {
	if got := crc16([]byte("123456789")); got != 0x31C3 {
		t.Errorf("crc16(123456789) = %#x, want 0x31C3", got)
	}
	for key, want := range map[string]Slot{
		"":                  0,
		"123456789":         12739,
		"foo":               12182,
		"bar":               5061,
		"hello":             866,
		"somekey":           11058,
		"foo{hash_tag}":     2515,
		"bar{hash_tag}":     2515,
		"{user1000}.follow": SlotOf([]byte("user1000")),
		"foo{}{bar}":        Slot(crc16([]byte("foo{}{bar}")) % SlotCount), // empty first tag: whole key
		"foo{{bar}}zap":     SlotOf([]byte("{bar")),
		"foo{bar}{zap}":     5061,
		"foo{bar":           Slot(crc16([]byte("foo{bar")) % SlotCount),
		"foo}bar{zap}":      SlotOf([]byte("zap")),
	} {
		if got := SlotOf([]byte(key)); got != want {
			t.Errorf("slot of %q = %d, want %d", key, got, want)
		}
	}
}

func TestShardsAreContiguousEqualRangesOfSlots(t *testing.T) {
	for n := 1; n <= ShardCountMax; n *= 2 {
		size := SlotCount / n
		for slot := range SlotCount {
			if got, want := Slot(slot).ShardOf(n), ShardID(slot/size); got != want {
				t.Fatalf("of %d shards, slot %d lies in %d, want %d", n, slot, got, want)
			}
		}
	}
}

func TestLimitsAreCheckedAtTheirEdges(t *testing.T) {
	if err := CheckKey(bytes.Repeat([]byte{1}, KeyBytesMax)); err != nil {
		t.Error(err)
	}
	if err := CheckKey(bytes.Repeat([]byte{1}, KeyBytesMax+1)); !errors.Is(err, ErrKeyTooLong) {
		t.Errorf("key over the limit: %v", err)
	}
	if err := CheckKey(nil); !errors.Is(err, ErrKeyEmpty) {
		t.Errorf("empty key: %v", err)
	}
	if err := CheckValue(make([]byte, ValueBytesMax)); err != nil {
		t.Error(err)
	}
	if err := CheckValue(make([]byte, ValueBytesMax+1)); !errors.Is(err, ErrValueTooLarge) {
		t.Errorf("value over the limit: %v", err)
	}
	for n, ok := range map[int]bool{-1: false, 0: false, 1: true, 3: false, 1024: true, ShardCountMax: true, 2 * ShardCountMax: false} {
		if err := CheckShardCount(n); (err == nil) != ok {
			t.Errorf("shard count %d: %v", n, err)
		}
	}
}
