package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The tree keeps its shape (order, fill, depth, counts) under any writes, and
// no write through one owner shows in a tree that was copied before.
func TestTreeShape(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 5))
		var now tree
		type frozen struct {
			tree tree
			sum  Sum
		}
		var copies []frozen
		o := new(owner)
		span := 1 + r.IntN(3000)
		for range 3000 {
			key := fmt.Appendf(nil, "%04d", r.IntN(span))
			switch n := r.IntN(100); {
			case n < 55:
				now.set(o, key, fmt.Append(nil, n))
			case n < 98:
				now.delete(o, key)
			case n < 99:
				now.deleteRange(o, key, fmt.Appendf(nil, "%04d", r.IntN(span)))
			default:
				copies = append(copies, frozen{now, now.sum()})
				o = new(owner) // from here on what is shared is not owned
			}
		}
		checkTree(t, now)
		for _, c := range copies {
			checkTree(t, c.tree)
			if got := freshSum(c.tree.root); got != c.sum {
				t.Fatalf("seed %d: a frozen tree changed", seed)
			}
		}
	}
}

// freshSum is node.total without the cache.
func freshSum(n *node) Sum {
	var s Sum
	if n == nil {
		return s
	}
	for _, it := range n.items {
		s = s.add(hashItem(it))
	}
	for _, child := range n.children {
		s = s.add(freshSum(child))
	}
	return s
}

func checkTree(t *testing.T, tr tree) {
	t.Helper()
	var count, bytes int64
	last, leafDepth := "", -1
	var walk func(n *node, depth int)
	walk = func(n *node, depth int) {
		if len(n.items) > maxItems || depth > 0 && len(n.items) < minItems || len(n.items) == 0 {
			t.Fatalf("node of %d items at depth %d", len(n.items), depth)
		}
		if n.children == nil {
			if leafDepth < 0 {
				leafDepth = depth
			}
			if depth != leafDepth {
				t.Fatalf("leaves at depths %d and %d", leafDepth, depth)
			}
		} else if len(n.children) != len(n.items)+1 {
			t.Fatalf("%d children of %d items", len(n.children), len(n.items))
		}
		for i, it := range n.items {
			if n.children != nil {
				walk(n.children[i], depth+1)
			}
			if it.key <= last {
				t.Fatalf("%q after %q", it.key, last)
			}
			last = it.key
			count++
			bytes += int64(len(it.key) + len(it.value))
		}
		if n.children != nil {
			walk(n.children[len(n.items)], depth+1)
		}
	}
	if tr.root != nil {
		walk(tr.root, 0)
	}
	if count != tr.count || bytes != tr.bytes {
		t.Fatalf("holds %d keys, %d bytes; says %d, %d", count, bytes, tr.count, tr.bytes)
	}
}

// The hash is the same in every process and version: traces print it.
func TestHashGolden(t *testing.T) {
	got := hashItem(newItem([]byte("key"), []byte("a value of some length")))
	want := Sum{High: 0x88382f00da063bbb, Low: 0x2ed3f7f853970a7c}
	if got != want {
		t.Fatalf("got %#x, %#x", got.High, got.Low)
	}
}
