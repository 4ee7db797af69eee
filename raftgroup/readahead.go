package raftgroup

import "github.com/hashicorp/raft"

// readAheadBytes bounds the entries that are kept once they were read.
const readAheadBytes = 32 << 20

// A readAhead keeps entries that were read from the log store for a follower that
// lags. Raft reads appendEntriesMax entries for each message, upwards, of which the
// transport sends as many as fit in bytes; then it reads the rest again. So the
// lowest entries from where it began last are needed first: they drive out those
// below, and nothing drives them out. Not safe for concurrent use.
type readAhead struct {
	entries map[uint64]*raft.Log
	bytes   int64
	begun   uint64 // where Raft began to read last
	last    uint64 // what it read last
	driven  uint64 // below it nothing is kept
}

// get returns an entry that is kept, and notes what is read.
func (a *readAhead) get(index uint64) *raft.Log {
	if index <= a.last {
		a.begun = index
	}
	a.last = index
	return a.entries[index]
}

// add keeps an entry that was read, if there is room for it.
func (a *readAhead) add(l *raft.Log) {
	size := sizeOf(l)
	if a.bytes+size > readAheadBytes && a.driven < a.begun {
		a.driven = a.begun
		for index, e := range a.entries {
			if index < a.begun {
				a.bytes -= sizeOf(e)
				delete(a.entries, index)
			}
		}
	}
	if a.bytes+size > readAheadBytes || a.entries[l.Index] != nil {
		return
	}
	a.driven = min(a.driven, l.Index)
	if a.entries == nil {
		a.entries = make(map[uint64]*raft.Log)
	}
	keep := *l
	a.entries[l.Index] = &keep
	a.bytes += size
}

// clear forgets all.
func (a *readAhead) clear() { *a = readAhead{} }
