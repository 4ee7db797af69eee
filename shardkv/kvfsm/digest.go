package kvfsm

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// The digest of a copy is the sum, modulo 2^128, of one hash for each item: the
// first 128 bits of SHA-256 over (length of key, key, value), where the key is
// the kind and the rest. Sums commute and can be undone, so that one change
// costs two hashes however large the shard is ("Incremental Multiset Hash
// Functions", Clarke et al., ASIACRYPT 2003, MSet-Add-Hash without a key).
//
// It guards against damage and divergence, which do not choose what they do:
// two different copies agree with probability 2^-128. Against an adversary who
// chooses the items a sum of 128 bits is weaker than its width (Wagner's
// generalised birthday attack), but such a client gains nothing: to profit, the
// items would have to be exchanged on a disk or on a link between groups, by
// someone who is inside already.
//
// SHA-256 is chosen for being in the standard library, specified for ever, and
// done in hardware.
func (h *hasher) item(key, value []byte) Digest {
	h.buf = binary.BigEndian.AppendUint32(h.buf[:0], uint32(len(key)))
	h.buf = append(h.buf, key...)
	h.buf = append(h.buf, value...)
	sum := sha256.Sum256(h.buf)
	if cap(h.buf) > hasherBufferMax {
		h.buf = nil
	}
	return Digest{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}

// hasherBufferMax bounds what a hasher holds on to between items.
const hasherBufferMax = 64 << 10

// hasher hashes items; it only saves allocations.
type hasher struct{ buf []byte }

// add counts an item into c, and remove out of it.
func (h *hasher) add(c *Content, key, value []byte) {
	c.Digest = c.Digest.Add(h.item(key, value))
	if key[0] == kindRecord {
		c.Keys++
		c.Bytes += recordBytes(key, value)
	}
}

func (h *hasher) remove(c *Content, key, value []byte) {
	c.Digest = c.Digest.Sub(h.item(key, value))
	if key[0] == kindRecord {
		c.Keys--
		c.Bytes -= recordBytes(key, value)
	}
}

// recordBytes is the length of the user's key and value in a record item.
func recordBytes(key, value []byte) uint64 {
	return uint64(len(key) - 1 + len(value) - valueHeaderBytes)
}

// countContent counts the content of a copy from scratch: for checks, as it
// reads everything.
func countContent(r store.Reader, s copyID) (Content, error) {
	var (
		c Content
		h hasher
	)
	lower, upper := s.itemBounds()
	it, err := r.Iterate(lower, upper)
	if err != nil {
		return Content{}, err
	}
	for it.Next() {
		h.add(&c, it.Key()[copyPrefixBytes:], it.Value())
	}
	return c, it.Close()
}
