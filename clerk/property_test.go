package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Whatever is lost, late, refused, moved or killed: a write that is reported
// done took effect exactly once, one that is reported not done never did, and
// one whose outcome is unknown at most once. Every append carries a token of its
// own, so that the final values tell.
func TestExactlyOnceAndTruthful(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeCluster) { mayhem(t, f, seed) })
		})
	}
}

const (
	mayhemClients = 8
	mayhemOps     = 30
	mayhemKeys    = 12
)

type tokenRecord struct {
	key, token string
	family     clerk.Family
}

func mayhem(t *testing.T, f *fakeCluster, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	f.setFault(func(string, *kvpb.Operation) fault { // under f.mu
		if rng.IntN(2) > 0 {
			return faultNone
		}
		return fault(1 + rng.IntN(int(faultSlow)))
	})
	c := f.open(t, func(config *clerk.Config) { config.Timeout = 120 * time.Millisecond })
	ctx, stop := context.WithCancel(t.Context())
	var disturber, clients sync.WaitGroup
	disturber.Go(func() { disturb(ctx, f, rand.New(rand.NewPCG(seed, 2))) })
	var mu sync.Mutex
	var records []tokenRecord
	for client := range mayhemClients {
		clients.Go(func() {
			own := rand.New(rand.NewPCG(seed, uint64(10+client)))
			for i := range mayhemOps {
				r := tokenRecord{key: fmt.Sprintf("key%d", own.IntN(mayhemKeys)), token: fmt.Sprintf("<%d.%d>", client, i)}
				_, err := c.Append(t.Context(), []byte(r.key), []byte(r.token))
				r.family = clerk.FamilyOf(err)
				var e *clerk.Error
				if r.family == clerk.FamilyOutcomeUnknown && own.IntN(2) == 0 && errors.As(err, &e) {
					if _, err = c.Append(t.Context(), []byte(r.key), []byte(r.token), clerk.As(e.Identity)); err == nil {
						r.family = clerk.FamilyDone
					}
				}
				mu.Lock()
				records = append(records, r)
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	stop()
	disturber.Wait()
	elapse(time.Second) // what was to be executed late has been
	counts := map[clerk.Family]int{}
	for _, r := range records {
		counts[r.family]++
		n := strings.Count(f.value(r.key), r.token)
		switch {
		case r.family == clerk.FamilyDone && n != 1, r.family == clerk.FamilyNotDone && n != 0, n > 1:
			t.Errorf("append of %s to %s was reported %v, and is there %d times", r.token, r.key, r.family, n)
		}
	}
	if counts[clerk.FamilyDone] < len(records)/4 || counts[clerk.FamilyOutcomeUnknown] == 0 {
		t.Errorf("the test is not what it seems: outcomes %v", counts)
	}
}

// disturb moves shards, changes leaders, restarts replicas and expires sessions
// until ctx ends.
func disturb(ctx context.Context, f *fakeCluster, rng *rand.Rand) {
	for ctx.Err() == nil {
		g := f.groups[rng.IntN(len(f.groups))]
		switch rng.IntN(5) {
		case 0:
			f.move(rng.IntN(len(f.shards)), g, true)
		case 1:
			f.move(rng.IntN(len(f.shards)), g, false)
		case 2:
			g.elect(rng.IntN(len(g.replicas)+1) - 1)
		case 3:
			addr := g.addresses[rng.IntN(len(g.addresses))]
			f.stop(addr)
			f.start(addr)
		case 4:
			f.expire()
		}
		elapse(time.Duration(rng.IntN(60)) * time.Millisecond)
	}
}
