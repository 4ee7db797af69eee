package clerk_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// However long a commit takes, a write succeeds when it is committed, is proposed
// once, and is asked for a few times: who waits goes by what the server says.
func TestSlowCommits(t *testing.T) {
	for _, commit := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, time.Second, 3 * time.Second, 9 * time.Second} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, nil)
			putAll(t, f, c)
			f.mu.Lock()
			f.commit = commit
			before := f.ops
			f.mu.Unlock()
			const writers = 16
			start := time.Now()
			var wait sync.WaitGroup
			for i := range writers {
				wait.Go(func() {
					if _, err := c.Put(t.Context(), fmt.Appendf(nil, "slow%d", i), []byte("v")); err != nil {
						t.Errorf("commits of %v: %v", commit, err)
					}
				})
			}
			wait.Wait()
			took := time.Since(start)
			f.mu.Lock()
			defer f.mu.Unlock()
			if took > commit+300*time.Millisecond || f.proposals != writers || f.ops-before > 3*writers {
				t.Errorf("commits of %v: %d writes after %v, %d proposals, %d attempts", commit, writers, took, f.proposals, f.ops-before)
			}
		})
	}
}

// A server that is busy is asked again when it said that this is of use, and less
// and less often where it said nothing.
func TestBusyBacksOff(t *testing.T) {
	for _, x := range []struct {
		toldMS uint32
		most   int
	}{{0, 40}, {400, 26}, {2000, 6}} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, nil)
			mustPut(t, c, "k", "v")
			var asked []time.Time
			f.busyMS = x.toldMS
			f.setFault(func(string, *kvpb.Operation) fault {
				asked = append(asked, time.Now())
				return faultBusy
			})
			if _, err := c.Put(t.Context(), []byte("k"), []byte("w")); clerk.FamilyOf(err) != clerk.FamilyNotDone {
				t.Errorf("told %d ms: %v", x.toldMS, err)
			}
			if n := len(asked); n < 2 || n > x.most {
				t.Errorf("told %d ms: asked %d times in 10 s", x.toldMS, n)
			}
			for i := range asked[1:] {
				if rest := asked[i+1].Sub(asked[i]); rest < time.Duration(x.toldMS)*time.Millisecond {
					t.Errorf("told %d ms: asked again after %v", x.toldMS, rest)
				}
			}
		})
	}
}
