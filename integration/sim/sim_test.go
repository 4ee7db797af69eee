package sim

import (
	"flag"
	"runtime"
	"sync"
	"testing"
)

var (
	firstSeed = flag.Uint64("seed", 1, "the first seed of TestSeeds")
	seedCount = flag.Int("seeds", 2000, "how many seeds TestSeeds runs")
)

// No seed breaks an invariant, and each replays byte for byte.
func TestSeeds(t *testing.T) {
	n := *seedCount
	if testing.Short() {
		n = min(n, 200)
	}
	var (
		mu     sync.Mutex
		total  Stats
		next   = *firstSeed
		end    = *firstSeed + uint64(n)
		runner sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		runner.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				mu.Unlock()
				if seed >= end {
					return
				}
				first, second := Run(seed, Options{}, nil), Run(seed, Options{}, nil)
				mu.Lock()
				total.Add(&first.Stats)
				mu.Unlock()
				if first.Failure != nil {
					t.Errorf("seed %d: %v\nreplay: %s", seed, first.Failure, Shrink(seed, Options{}).Command())
				}
				if first.Trace != second.Trace {
					t.Errorf("seed %d gives trace %016x and then %016x: something is not a function of the seed", seed, first.Trace, second.Trace)
				}
			}
		})
	}
	runner.Wait()
	t.Logf("%+v", total)
}
