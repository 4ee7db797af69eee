package kvfsm

import (
	"encoding/binary"
	"math"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendEpoch(dst []byte, e shardcfg.Epoch) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(e.Gen)), e.Num)
}

func appendPeer(dst []byte, p Peer) []byte {
	return binary.AppendUvarint(append(dst, p.Incarnation[:]...), uint64(p.Group))
}

func appendContent(dst []byte, c Content) []byte {
	dst = binary.AppendUvarint(dst, c.Keys)
	dst = binary.AppendUvarint(dst, c.Bytes)
	dst = binary.BigEndian.AppendUint64(dst, c.Digest.Hi)
	return binary.BigEndian.AppendUint64(dst, c.Digest.Lo)
}

func appendCursor(dst []byte, c Cursor) []byte {
	dst = appendBytes(appendBool(dst, c.Tail), c.Key)
	return binary.AppendUvarint(dst, uint64(c.Revision))
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// Flags of an encoded item.
const (
	itemValue   = 0
	itemDeleted = 1
)

func appendItems(dst []byte, items []Item) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(items)))
	for _, it := range items {
		dst = appendBytes(dst, it.Key)
		if it.Deleted {
			dst = append(dst, itemDeleted)
		} else {
			dst = appendBytes(append(dst, itemValue), it.Value)
		}
	}
	return dst
}

// A decoder reads b strictly: it accepts only what the encoders write, so that
// one value has one encoding. After the first flaw it returns zeros, and finish
// reports it. Slices alias b.
type decoder struct {
	b   []byte
	bad bool
}

// finish returns ErrCorrupt if anything was wrong or is left.
func (d *decoder) finish() error {
	if d.bad || len(d.b) != 0 {
		return ErrCorrupt
	}
	return nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	// A last byte of zero makes a number longer than it need be.
	if n <= 0 || (n > 1 && d.b[n-1] == 0) {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarintMax(limit uint64) uint64 {
	v := d.uvarint()
	if v > limit {
		d.bad = true
		return 0
	}
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func (d *decoder) byteMax(limit byte) byte {
	b := d.take(1)
	if b == nil || b[0] > limit {
		d.bad = true
		return 0
	}
	return b[0]
}

func (d *decoder) bool() bool { return d.byteMax(1) == 1 }

func (d *decoder) id() (id [16]byte) {
	copy(id[:], d.take(16))
	return id
}

func (d *decoder) shard() shardcfg.ShardID {
	return shardcfg.ShardID(d.uvarintMax(math.MaxUint16))
}

func (d *decoder) handoff() shardcfg.ConfigNum { return shardcfg.ConfigNum(d.uvarint()) }

func (d *decoder) epoch() shardcfg.Epoch {
	gen := d.uvarintMax(math.MaxUint32)
	return shardcfg.Epoch{Gen: uint32(gen), Num: d.uvarint()}
}

func (d *decoder) peer() Peer {
	id := d.id()
	return Peer{Incarnation: id, Group: shardcfg.GroupID(d.uvarint())}
}

func (d *decoder) content() Content {
	c := Content{Keys: d.uvarint(), Bytes: d.uvarint()}
	if b := d.take(DigestBytes); b != nil {
		c.Digest, _ = ParseDigest(b)
	}
	return c
}

func (d *decoder) cursor() Cursor {
	c := Cursor{Tail: d.bool()}
	// An empty key is nil, so that decoded cursors compare with ==-like ease.
	if key := d.bytes(); len(key) > 0 {
		c.Key = key
	}
	c.Revision = shardcfg.Revision(d.uvarint())
	return c
}

func (d *decoder) items() []Item {
	const itemBytesMin = 2
	n := d.uvarint()
	if n > uint64(len(d.b))/itemBytesMin {
		d.bad, d.b = true, nil
		return nil
	}
	if n == 0 {
		return nil
	}
	items := make([]Item, n)
	for i := range items {
		items[i].Key = d.bytes()
		if items[i].Deleted = d.byteMax(itemDeleted) == itemDeleted; !items[i].Deleted {
			items[i].Value = d.bytes()
		}
	}
	return items
}
