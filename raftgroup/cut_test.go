package raftgroup

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A steppedLog deletes one entry after the other, as a store does that bounds its
// transactions, and takes a moment for each.
type steppedLog struct{ *testLog }

func (l steppedLog) DeleteRange(low, high uint64) error {
	for ; low <= high; low++ {
		if err := l.testLog.DeleteRange(low, low); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
	return nil
}

// Claim: who reads an entry while the log is being cut gets it or is told that it
// is gone, and the replica goes on. Raft looks at the oldest entry every ten
// seconds, to tell its age.
func TestReadUnderCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		n := c.nodes[0]
		c.tune = func(n *node, o *Options) {
			smallLog(n, o)
			o.Log, o.CacheBytesMax = steppedLog{n.log}, 1 // nothing is answered from what was appended
		}
		c.startAll()
		defer c.stopAll()
		c.leader()
		g := n.replica.guard
		began, _ := g.FirstIndex()
		gone := 0
		c.eventually("reads of entries that are going", func() bool {
			n.put("a=%0200d", 1)
			first, _ := g.FirstIndex()
			for i := began; i <= first; i++ {
				g.mu.Lock()
				g.mu.ahead.clear() // nor from what was read before
				g.mu.Unlock()
				var l raft.Log
				switch err := g.GetLog(i, &l); {
				case errors.Is(err, raft.ErrLogNotFound):
					gone++
				case err != nil:
					t.Fatal(err)
				}
			}
			return gone > 100
		})
	})
}

// Claim: an entry that was truncated and stored anew, while it was being read, is
// not taken for lost; neither is one that is compared with a snapshot.
func TestReadUnderTruncation(t *testing.T) {
	for name, read := range map[string]func(g *guard, index uint64) error{
		"read":  func(g *guard, index uint64) error { return g.GetLog(index, new(raft.Log)) },
		"match": func(g *guard, index uint64) error { _, err := g.matches(index, 1); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1)
				n := c.nodes[0]
				n.start()
				defer c.stopAll()
				c.leader()
				log := &swappingLog{testLog: n.log}
				g := &guard{r: n.replica, inner: log}
				g.mu.tail.cacheMax = 1
				last, _ := n.log.LastIndex()
				entries := []*raft.Log{{Index: last + 1, Term: 1}, {Index: last + 2, Term: 1}}
				if err := g.StoreLogs(entries); err != nil {
					t.Fatal(err)
				}
				log.before = func() {
					if err := errors.Join(g.DeleteRange(last+1, last+2), g.StoreLogs(entries)); err != nil {
						t.Error(err)
					}
				}
				if err := read(g, last+1); err != nil {
					t.Error(err)
				}
				if err := n.hasFailed(); err != nil {
					t.Errorf("the replica stopped: %v", err)
				}
			})
		})
	}
}

// A swappingLog has its entries deleted and stored anew within the first read,
// which finds none.
type swappingLog struct {
	*testLog
	before func()
}

func (l *swappingLog) GetLog(index uint64, e *raft.Log) error {
	if f := l.before; f != nil {
		l.before = nil
		f()
		return raft.ErrLogNotFound
	}
	return l.testLog.GetLog(index, e)
}
