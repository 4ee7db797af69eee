package clerk

import (
	"bytes"
	"container/heap"
	"iter"
)

// mergeRecordsMax bounds the records of an answer in a merge whose shards hold more
// than fits into one: each shard's next page waits in memory.
const mergeRecordsMax = 64

// merged yields the parts' entries in ascending order of key.
func (g *gathering) merged() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var m merge
		for i := range g.parts {
			entries, err := g.next(i)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if len(entries) > 0 {
				m = append(m, head{i, entries})
			}
			if g.limit == 0 || g.limit > mergeRecordsMax {
				g.limit = mergeRecordsMax // the first answers had room for all, or it takes many
			}
		}
		heap.Init(&m)
		for len(m) > 0 {
			h := &m[0]
			if !yield(h.entries[0], nil) {
				return
			}
			if h.entries = h.entries[1:]; len(h.entries) == 0 {
				var err error
				if h.entries, err = g.next(h.part); err != nil {
					yield(Entry{}, err)
					return
				}
				if len(h.entries) == 0 {
					heap.Pop(&m)
					continue
				}
			}
			heap.Fix(&m, 0)
		}
	}
}

// A merge is a heap of what comes next of each part.
type merge []head

type head struct {
	part    int
	entries []Entry // at least one
}

func (m merge) Len() int { return len(m) }
func (m merge) Less(i, j int) bool {
	return bytes.Compare(m[i].entries[0].Key, m[j].entries[0].Key) < 0
}
func (m merge) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(h any)   { *m = append(*m, h.(head)) }

func (m *merge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
