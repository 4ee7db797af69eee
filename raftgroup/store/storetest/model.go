package storetest

import (
	"slices"
	"sort"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// model is the naive store: pairs sorted by key. It is too simple to be wrong.
type model struct {
	pairs []modelPair
}

type modelPair struct{ key, value string }

func (m *model) clone() model { return model{pairs: slices.Clone(m.pairs)} }

// find returns the position of the first pair at or after key.
func (m *model) find(key string) int {
	return sort.Search(len(m.pairs), func(i int) bool { return m.pairs[i].key >= key })
}

// get returns nil for an absent key.
func (m *model) get(key string) ([]byte, bool) {
	i := m.find(key)
	if i == len(m.pairs) || m.pairs[i].key != key {
		return nil, false
	}
	return []byte(m.pairs[i].value), true
}

func (m *model) set(key, value string) {
	m.deleteRange(key, key+"\x00")
	m.pairs = slices.Insert(m.pairs, m.find(key), modelPair{key, value})
}

func (m *model) deleteRange(lower, upper string) {
	m.pairs = slices.DeleteFunc(m.pairs, func(p modelPair) bool { return lower <= p.key && p.key < upper })
}

// iterate returns an iterator over a copy.
func (m *model) iterate(lower, upper []byte) *modelIterator {
	it := &modelIterator{at: -1}
	for _, p := range m.pairs {
		if p.key >= string(lower) && (upper == nil || p.key < string(upper)) {
			it.pairs = append(it.pairs, p)
		}
	}
	return it
}

func (m *model) dump() string { return dump(m) }

// Get implements store.Reader.
func (m *model) Get(key []byte) ([]byte, bool, error) {
	value, ok := m.get(string(key))
	return value, ok, nil
}

// Iterate implements store.Reader.
func (m *model) Iterate(lower, upper []byte) (store.Iterator, error) {
	return m.iterate(lower, upper), nil
}

// modelIterator implements store.Iterator.
type modelIterator struct {
	pairs []modelPair
	at    int
}

// Next implements store.Iterator.
func (it *modelIterator) Next() bool {
	it.at = min(it.at+1, len(it.pairs))
	return it.at < len(it.pairs)
}

// SeekGE implements store.Iterator.
func (it *modelIterator) SeekGE(key []byte) bool {
	m := model{pairs: it.pairs}
	it.at = m.find(string(key))
	return it.at < len(it.pairs)
}

// Key implements store.Iterator.
func (it *modelIterator) Key() []byte {
	if it.at < 0 || it.at >= len(it.pairs) {
		return nil
	}
	return []byte(it.pairs[it.at].key)
}

// Value implements store.Iterator.
func (it *modelIterator) Value() []byte {
	if it.at < 0 || it.at >= len(it.pairs) {
		return nil
	}
	return []byte(it.pairs[it.at].value)
}

// Close implements store.Iterator.
func (it *modelIterator) Close() error { return nil }
