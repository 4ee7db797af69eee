package store

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// Sum is a 128-bit digest of a set of keys with their values. It depends on
// the contents only, not on the order or the grouping of the writes that led
// there, and is the same in every process. It is made for telling states
// apart, not against an adversary.
type Sum struct {
	High, Low uint64
}

func (s Sum) add(o Sum) Sum {
	low, carry := bits.Add64(s.Low, o.Low, 0)
	high, _ := bits.Add64(s.High, o.High, carry)
	return Sum{high, low}
}

// cachedSum is the sum of a subtree, computed when first asked for. The two
// halves are a pure function of the subtree, so that goroutines that compute it
// at once store the same; a half that is zero counts as unknown.
type cachedSum struct {
	high, low atomic.Uint64
}

// sum returns the digest of the whole tree. The cost is that of the nodes that
// changed since an ancestor of this tree was asked.
func (t tree) sum() Sum {
	if t.root == nil {
		return Sum{}
	}
	return t.root.total()
}

func (n *node) total() Sum {
	if s := (Sum{n.sum.high.Load(), n.sum.low.Load()}); s.High != 0 && s.Low != 0 {
		return s
	}
	var s Sum
	for _, it := range n.items {
		s = s.add(hashItem(it))
	}
	for _, child := range n.children {
		s = s.add(child.total())
	}
	n.sum.high.Store(s.High)
	n.sum.low.Store(s.Low)
	return s
}

// Odd constants with about as many ones as zeros (digits of pi), as in wyhash.
const (
	seed0 = 0x243f6a8885a308d3
	seed1 = 0x13198a2e03707345
	seed2 = 0xa4093822299f31d1
	seed3 = 0x082efa98ec4e6c89
)

// hashItem hashes a key with its value. The two halves run over the same words
// with different constants. Lengths go in first, so that bytes can't pass from
// key to value unnoticed.
func hashItem(it item) Sum {
	h := hasher{seed0, seed2}
	h.word(uint64(len(it.key)))
	h.word(uint64(len(it.value)))
	h.string(it.key)
	h.string(it.value)
	return h.finish()
}

type hasher struct{ a, b uint64 }

func (h *hasher) word(w uint64) {
	h.a = fold(h.a^w, seed1)
	h.b = fold(h.b+w, seed3)
}

func (h *hasher) string(s string) {
	var buf [8]byte
	for ; len(s) >= 8; s = s[8:] {
		copy(buf[:], s)
		h.word(binary.LittleEndian.Uint64(buf[:]))
	}
	if len(s) > 0 {
		clear(buf[:])
		copy(buf[:], s)
		h.word(binary.LittleEndian.Uint64(buf[:]))
	}
}

func (h *hasher) finish() Sum {
	return Sum{fold(h.a^seed2, h.b^seed1), fold(h.b+seed0, h.a^seed3)}
}

// fold multiplies to 128 bits and adds what the product alone would forget:
// a factor of zero must not wipe the state out.
func fold(x, y uint64) uint64 {
	high, low := bits.Mul64(x, y)
	return high ^ low ^ bits.RotateLeft64(x, 29)
}
