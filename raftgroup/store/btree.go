package store

import "strings"

// The state of a Mem is a copy-on-write B-tree. A tree is a value: copying the
// struct is a snapshot, because a node that a tree may share with another is
// never written again. A batch owns the nodes that it made itself (they carry
// its owner token) and edits those in place, so that a batch of n writes copies
// each touched node once, not n times. When the batch is over its token is
// forgotten, and with it the right to edit.

const (
	// maxItems keeps a node near 1 KiB: small enough that a small store costs
	// little to copy, large enough that 100,000 keys are four levels deep.
	maxItems = 31
	minItems = maxItems / 2
)

// owner is a token compared by address; it must not be of size zero, because
// all zero-sized variables may share one address.
type owner struct{ _ byte }

// item is one key with its value. Both share one allocation.
type item struct {
	key, value string
}

func newItem(key, value []byte) item {
	var b strings.Builder
	b.Grow(len(key) + len(value))
	b.Write(key)
	b.Write(value)
	s := b.String()
	return item{key: s[:len(key)], value: s[len(key):]}
}

// tree is an ordered map. The zero value is empty. Reading needs no lock as
// long as nobody edits this very value.
type tree struct {
	root  *node
	count int64 // keys
	bytes int64 // sum of the lengths of keys and values
}

// node holds maxItems items or fewer, and, unless it is a leaf, one child more
// than items. Every node but the root holds at least minItems.
type node struct {
	owner    *owner
	items    []item
	children []*node // nil in a leaf
	sum      cachedSum
}

// get returns the value of key.
func (t tree) get(key []byte) (string, bool) {
	for n := t.root; n != nil; {
		i, found := n.find(key)
		if found {
			return n.items[i].value, true
		}
		if n.children == nil {
			break
		}
		n = n.children[i]
	}
	return "", false
}

// set stores a copy of key and value.
func (t *tree) set(o *owner, key, value []byte) {
	it := newItem(key, value)
	if t.root == nil {
		t.root = &node{owner: o}
	}
	t.root = t.root.editable(o)
	if len(t.root.items) >= maxItems {
		left := t.root
		middle, right := left.split(o)
		t.root = &node{owner: o, items: []item{middle}, children: []*node{left, right}}
	}
	old, replaced := t.root.insert(o, key, it)
	if replaced {
		t.bytes += int64(len(value)) - int64(len(old.value))
		return
	}
	t.count++
	t.bytes += int64(len(key) + len(value))
}

// delete removes key and reports whether it was there. A key that is absent
// costs no copy.
func (t *tree) delete(o *owner, key []byte) bool {
	if _, ok := t.get(key); !ok {
		return false
	}
	t.root = t.root.editable(o)
	old := t.root.remove(o, key)
	if len(t.root.items) == 0 {
		if t.root.children == nil {
			t.root = nil
		} else {
			t.root = t.root.children[0]
		}
	}
	t.count--
	t.bytes -= int64(len(old.key) + len(old.value))
	return true
}

// deleteRange removes lower <= key < upper.
func (t *tree) deleteRange(o *owner, lower, upper []byte) {
	var key []byte
	for {
		var c cursor
		c.seek(t.root, lower)
		if !c.valid() || c.item().key >= string(upper) {
			return
		}
		key = append(key[:0], c.item().key...)
		t.delete(o, key)
	}
}

// find returns the position of the first item at or after key, and whether it
// is key itself.
func (n *node) find(key []byte) (int, bool) {
	low, high := 0, len(n.items)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if n.items[middle].key < string(key) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, low < len(n.items) && n.items[low].key == string(key)
}

// editable returns n if o owns it, else a copy that o owns.
func (n *node) editable(o *owner) *node {
	if n.owner == o {
		return n
	}
	out := &node{owner: o}
	// Room for one more: most copies are made in order to insert.
	out.items = append(make([]item, 0, len(n.items)+1), n.items...)
	if n.children != nil {
		out.children = append(make([]*node, 0, len(n.children)+1), n.children...)
	}
	return out
}

func (n *node) editableChild(o *owner, i int) *node {
	child := n.children[i].editable(o)
	n.children[i] = child
	return child
}

// insert puts it under n, which o owns and which is not full.
func (n *node) insert(o *owner, key []byte, it item) (old item, replaced bool) {
	for {
		i, found := n.find(key)
		if found {
			old, n.items[i] = n.items[i], it
			return old, true
		}
		if n.children == nil {
			n.items = insertAt(n.items, i, it)
			return item{}, false
		}
		child := n.editableChild(o, i)
		if len(child.items) >= maxItems {
			middle, right := child.split(o)
			n.items = insertAt(n.items, i, middle)
			n.children = insertAt(n.children, i+1, right)
			continue // the item that came up decides where to go on
		}
		n = child
	}
}

// split moves the upper half of n to a new node, and returns that and the item
// between the two.
func (n *node) split(o *owner) (item, *node) {
	const at = maxItems / 2
	middle := n.items[at]
	right := &node{owner: o, items: append(make([]item, 0, maxItems), n.items[at+1:]...)}
	n.items = cutOff(n.items, at)
	if n.children != nil {
		right.children = append(make([]*node, 0, maxItems+1), n.children[at+1:]...)
		n.children = cutOff(n.children, at+1)
	}
	return middle, right
}

// remove takes key, which is present under n, out. n is owned by o, and is the
// root or holds more than minItems.
func (n *node) remove(o *owner, key []byte) item {
	i, found := n.find(key)
	if n.children == nil {
		old := n.items[i]
		n.items = removeAt(n.items, i)
		return old
	}
	if len(n.children[i].items) <= minItems {
		n.growChild(o, i)
		return n.remove(o, key) // key may have moved
	}
	child := n.editableChild(o, i)
	if !found {
		return child.remove(o, key)
	}
	old := n.items[i]
	n.items[i] = child.removeLast(o)
	return old
}

// removeLast takes the greatest item under n out; n as for remove.
func (n *node) removeLast(o *owner) item {
	if n.children == nil {
		last := n.items[len(n.items)-1]
		n.items = cutOff(n.items, len(n.items)-1)
		return last
	}
	if i := len(n.children) - 1; len(n.children[i].items) <= minItems {
		n.growChild(o, i)
	}
	return n.editableChild(o, len(n.children)-1).removeLast(o)
}

// growChild gives child i more than minItems: from a neighbour that can spare
// one, or by merging it with a neighbour.
func (n *node) growChild(o *owner, i int) {
	switch {
	case i > 0 && len(n.children[i-1].items) > minItems:
		child, left := n.editableChild(o, i), n.editableChild(o, i-1)
		last := len(left.items) - 1
		child.items = insertAt(child.items, 0, n.items[i-1])
		n.items[i-1] = left.items[last]
		left.items = cutOff(left.items, last)
		if left.children != nil {
			child.children = insertAt(child.children, 0, left.children[last+1])
			left.children = cutOff(left.children, last+1)
		}
	case i < len(n.items) && len(n.children[i+1].items) > minItems:
		child, right := n.editableChild(o, i), n.editableChild(o, i+1)
		child.items = append(child.items, n.items[i])
		n.items[i] = right.items[0]
		right.items = removeAt(right.items, 0)
		if right.children != nil {
			child.children = append(child.children, right.children[0])
			right.children = removeAt(right.children, 0)
		}
	default:
		if i == len(n.items) {
			i--
		}
		child, right := n.editableChild(o, i), n.children[i+1]
		child.items = append(append(child.items, n.items[i]), right.items...)
		child.children = append(child.children, right.children...)
		n.items = removeAt(n.items, i)
		n.children = removeAt(n.children, i+1)
	}
}

func insertAt[T any](s []T, i int, v T) []T {
	var zero T
	s = append(s, zero)
	copy(s[i+1:], s[i:])
	s[i] = v
	return s
}

func removeAt[T any](s []T, i int) []T {
	copy(s[i:], s[i+1:])
	return cutOff(s, len(s)-1)
}

// cutOff shortens s to n, and lets go of what it cuts off.
func cutOff[T any](s []T, n int) []T {
	clear(s[n:])
	return s[:n]
}
