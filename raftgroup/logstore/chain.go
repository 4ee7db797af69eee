package logstore

import (
	"cmp"
	"slices"
)

// A chain is the log without its entries: the index and the checksum of each, in
// their order. The checksum of an entry covers that of the entry before it, also
// across a gap, so that the last one vouches for all.
type chain struct{ links []link }

type link struct {
	index uint64
	sum   uint32
}

// last is the zero link for an empty log.
func (c *chain) last() link {
	if len(c.links) == 0 {
		return link{}
	}
	return c.links[len(c.links)-1]
}

// first is the zero link for an empty log.
func (c *chain) first() link {
	if len(c.links) == 0 {
		return link{}
	}
	return c.links[0]
}

// below counts the links below index; has reports whether the next one is index
// itself.
func (c *chain) below(index uint64) (n int, has bool) {
	return slices.BinarySearchFunc(c.links, index, func(l link, index uint64) int { return cmp.Compare(l.index, index) })
}

// through counts the links up to index.
func (c *chain) through(index uint64) int {
	n, has := c.below(index)
	if has {
		n++
	}
	return n
}

// find returns the link of an index, if the log has it.
func (c *chain) find(index uint64) (link, bool) {
	if n, has := c.below(index); has {
		return c.links[n], true
	}
	return link{}, false
}

// cutPrefix takes off the first n links. They are copied, so that the memory of
// the others is freed.
func (c *chain) cutPrefix(n int) { c.links = append([]link(nil), c.links[n:]...) }

// cutSuffix leaves the first n links.
func (c *chain) cutSuffix(n int) { c.links = c.links[:n:n] }
