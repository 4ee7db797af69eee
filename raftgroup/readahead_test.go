package raftgroup

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// countingLog counts what is read of it.
type countingLog struct {
	*testLog
	reads atomic.Int64
}

func (l *countingLog) GetLog(i uint64, e *raft.Log) error {
	l.reads.Add(1)
	return l.testLog.GetLog(i, e)
}

// Claim: what a follower needs that was away is read about once from the leader's
// log store, though a message holds a few of the entries that Raft reads for it.
func TestCatchUpReadsEntriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		logs := map[*node]*countingLog{}
		c.tune = func(n *node, o *Options) {
			logs[n] = &countingLog{testLog: n.log}
			o.Log, o.CacheBytesMax = logs[n], 1<<20
		}
		c.startAll()
		defer c.stopAll()
		leader := c.leader()
		leader.put("a=1")
		c.converge()
		away := c.followers(leader)[0]
		away.isolate()
		const entries = 200
		for range entries {
			leader.put("v=%s", strings.Repeat("x", 250<<10)) // an entry as the packer makes them under load
		}
		before := logs[leader].reads.Load()
		away.rejoin()
		c.converge()
		if reads := logs[leader].reads.Load() - before; reads > entries+entries/4 || away.replica.Status().Counters.Installed > 0 {
			t.Fatalf("%d reads for %d entries; %d snapshots", reads, entries, away.replica.Status().Counters.Installed)
		}
	})
}

// Claim: what is kept of reads is bounded; the lowest entries from where Raft began
// last are kept.
func TestReadAhead(t *testing.T) {
	var a readAhead
	const size = readAheadBytes / 8
	read := func(from, to uint64) (kept int) {
		for i := from; i <= to; i++ {
			if a.get(i) != nil {
				kept++
				continue
			}
			a.add(&raft.Log{Index: i, Data: make([]byte, size-48)})
			if a.bytes > readAheadBytes || a.bytes != int64(len(a.entries))*size {
				t.Fatalf("%d entries, %d bytes", len(a.entries), a.bytes)
			}
		}
		return kept
	}
	for _, tc := range []struct {
		from, to uint64
		kept     int
	}{
		{100, 110, 0},
		{100, 110, 8}, // 100 to 107, which fit
		{102, 112, 6}, // and 108 and 109 in the place of 100 and 101
		{102, 112, 8},
		{200, 207, 0}, // another follower, of which nothing fits
		{200, 207, 0}, // now it does
		{200, 207, 8},
	} {
		if kept := read(tc.from, tc.to); kept != tc.kept {
			t.Errorf("%d to %d: %d were kept, want %d", tc.from, tc.to, kept, tc.kept)
		}
	}
	a.clear()
	if kept := read(200, 207); kept != 0 || a.bytes != readAheadBytes {
		t.Errorf("%d were kept, %d bytes are now", kept, a.bytes)
	}
}
