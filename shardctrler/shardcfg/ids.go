// Package shardcfg holds the nouns that everything else shares: keys and their
// slots, shards, groups, epochs, and the numbered configuration that says which
// group should hold each shard.
//
// Row 1 of the layers: pure values and functions. It imports the standard
// library only; nothing in it starts a goroutine, reads a clock or logs.
package shardcfg

import (
	"cmp"
	"encoding/hex"
	"fmt"
)

// A ShardID numbers a shard, from 0 to the cluster's shard count - 1.
type ShardID uint16

// A GroupID is the operator's name for a replica group ("gid"). 0 is no group.
type GroupID uint64

// A ConfigNum numbers a configuration. Config 0 is empty; every change makes
// the next number.
type ConfigNum uint64

// A Revision counts the mutating commands of one shard; it moves with the
// shard. A key's version is the shard's revision at the key's last write.
// 0 means absent.
type Revision uint64

// ID128 is a random 128-bit name. The zero value means "none" or "not known".
type ID128 [16]byte

// An Incarnation names one life of a replica group: drawn at random when the
// group is formed, never reused. Protocols address groups by it.
type Incarnation ID128

// A ClusterID names a cluster: drawn by its controllers when they are formed.
type ClusterID ID128

// A SessionID names a client session.
type SessionID ID128

// IsZero reports whether the name is unset.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

// IsZero reports whether the name is unset.
func (c ClusterID) IsZero() bool { return c == ClusterID{} }

// String is the name in hexadecimal.
func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// ParseIncarnation reads what Incarnation.String wrote. The zero incarnation is
// none.
func ParseIncarnation(s string) (Incarnation, error) {
	b, err := hex.DecodeString(s)
	i, ok := To128[Incarnation](b)
	if err != nil || !ok || i.IsZero() {
		return Incarnation{}, fmt.Errorf("%q is not an incarnation: 32 hexadecimal digits", s)
	}
	return i, nil
}

// String is the name in hexadecimal.
func (c ClusterID) String() string { return hex.EncodeToString(c[:]) }

// String is the name in hexadecimal.
func (s SessionID) String() string { return hex.EncodeToString(s[:]) }

// To128 reads a 16-byte name from b. It reports false for any other length, and
// the zero name for an empty b.
func To128[T ~[16]byte](b []byte) (id T, ok bool) {
	if len(b) == 0 {
		return id, true
	}
	if len(b) != 16 {
		return id, false
	}
	return T([16]byte(b)), true
}

// An Epoch numbers the holders of one shard's token: it rises with every change
// of holder. Num counts handoffs; Gen rises only when a disaster is repaired,
// and outranks Num. The zero Epoch means "never created here".
type Epoch struct {
	Gen uint32
	Num uint64
}

// Compare orders epochs: by Gen, then by Num.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Gen, o.Gen), cmp.Compare(e.Num, o.Num))
}

// Less reports whether e is older than o.
func (e Epoch) Less(o Epoch) bool { return e.Compare(o) < 0 }

// IsZero reports whether the token was never seen.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// Next is the epoch that a handoff of a token at e mints.
func (e Epoch) Next() Epoch { return Epoch{Gen: e.Gen, Num: e.Num + 1} }

// String prints "gen.num".
func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Gen, e.Num) }

// MarshalText writes the name in hexadecimal.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (i *Incarnation) UnmarshalText(b []byte) error { return unhex((*[16]byte)(i), b) }

// MarshalText writes the name in hexadecimal.
func (c ClusterID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (c *ClusterID) UnmarshalText(b []byte) error { return unhex((*[16]byte)(c), b) }

func unhex(dst *[16]byte, text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(dst) {
		return fmt.Errorf("not a 128-bit name in hexadecimal: %q", text)
	}
	copy(dst[:], b)
	return nil
}
