package raftgroup

import "github.com/hashicorp/raft"

// A logTail knows the size of every entry in the log, and keeps the newest ones
// in memory, bounded by bytes: Raft's own cache is bounded by count, and one of
// our entries may be megabytes. Not safe for concurrent use.
type logTail struct {
	first      uint64 // index of entries[0]
	entries    []tailEntry
	bytes      int64 // of all entries
	cachedFrom uint64
	cached     int64 // bytes of the entries from cachedFrom on
	cacheMax   int64
}

type tailEntry struct {
	size int32
	log  *raft.Log // nil: not in memory
}

func sizeOf(l *raft.Log) int64 { return int64(len(l.Data)+len(l.Extensions)) + 48 }

// last is 0 for an empty log.
func (t *logTail) last() uint64 {
	if len(t.entries) == 0 {
		return 0
	}
	return t.first + uint64(len(t.entries)) - 1
}

// lowest is 0 for an empty log.
func (t *logTail) lowest() uint64 {
	if len(t.entries) == 0 {
		return 0
	}
	return t.first
}

func (t *logTail) has(index uint64) bool {
	return len(t.entries) > 0 && index >= t.first && index <= t.last()
}

// get returns an entry that is in memory.
func (t *logTail) get(index uint64) *raft.Log {
	if !t.has(index) {
		return nil
	}
	return t.entries[index-t.first].log
}

// append adds an entry that was stored. Behind a gap the tail starts anew.
func (t *logTail) append(l *raft.Log) {
	if len(t.entries) > 0 && l.Index != t.last()+1 {
		t.reset()
	}
	if len(t.entries) == 0 {
		t.first, t.cachedFrom = l.Index, l.Index
	}
	size := sizeOf(l)
	keep := *l
	t.entries = append(t.entries, tailEntry{size: int32(size), log: &keep})
	t.bytes += size
	t.cached += size
	for t.cached > t.cacheMax && t.cachedFrom <= t.last() {
		e := &t.entries[t.cachedFrom-t.first]
		e.log = nil
		t.cached -= int64(e.size)
		t.cachedFrom++
	}
}

func (t *logTail) reset() {
	t.entries, t.bytes, t.cached = nil, 0, 0
}

// deleteRange forgets the entries low to high, which are a prefix or a suffix.
func (t *logTail) deleteRange(low, high uint64) {
	if len(t.entries) == 0 || high < t.first || low > t.last() {
		return
	}
	low, high = max(low, t.first), min(high, t.last())
	for i := low; i <= high; i++ {
		e := t.entries[i-t.first]
		t.bytes -= int64(e.size)
		if e.log != nil {
			t.cached -= int64(e.size)
		}
	}
	switch {
	case low == t.first && high == t.last():
		t.reset()
	case low == t.first:
		// Copied, so that the array of the forgotten ones is freed.
		t.entries = append([]tailEntry(nil), t.entries[high+1-t.first:]...)
		t.first = high + 1
		t.cachedFrom = max(t.cachedFrom, t.first)
	default:
		clear(t.entries[low-t.first:])
		t.entries = t.entries[:low-t.first]
		t.cachedFrom = min(t.cachedFrom, low)
	}
}

// keepEntriesMax bounds the entries that keepFrom leaves: their sizes are in
// memory, 16 bytes each, and all of them are read at the start.
const keepEntriesMax = 128 << 10

// keepFrom returns the lowest index from which the newest entries take up no
// more than n bytes; at least the newest stays, and at most keepEntriesMax do.
func (t *logTail) keepFrom(n int64) uint64 {
	i, lowest := t.last(), t.first
	if len(t.entries) > keepEntriesMax {
		lowest = t.last() - keepEntriesMax + 1
	}
	for left := n; i > lowest; i-- {
		left -= int64(t.entries[i-t.first].size)
		if left < int64(t.entries[i-1-t.first].size) {
			break
		}
	}
	return i
}

// bytesAfter sums the entries behind index.
func (t *logTail) bytesAfter(index uint64) (n int64) {
	for i := max(index+1, t.first); t.has(i); i++ {
		n += int64(t.entries[i-t.first].size)
	}
	return n
}
