package virtual

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// What waits for a future that Raft lost; see bubble.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*deferError).Error"))
}

// runMax is how long one run may take, in real time. A group that is busy without
// end, so that virtual time stands still, would never fail otherwise.
const runMax = 5 * time.Minute

// Claim: groups that are partitioned, paused, crashed, slowed and rebuilt keep
// every promise that the package comment lists.
//
// A few dozen runs, or as many as SHOAL_VIRTUAL_RUNS says, from the seed
// SHOAL_VIRTUAL_FROM on:
//
//	SHOAL_VIRTUAL_RUNS=2000 go test ./integration/virtual -run TestSoak -timeout 0 -v
//
// SHOAL_VIRTUAL_LOG=1 shows what the replicas log.
func TestSoak(t *testing.T) {
	runs := number(t, "SHOAL_VIRTUAL_RUNS", 24)
	if testing.Short() {
		runs = min(runs, 8)
	}
	from := number(t, "SHOAL_VIRTUAL_FROM", 1)
	total, began := new(tally), time.Now()
	var taken, done atomic.Int64
	t.Run("workers", func(t *testing.T) {
		for range min(runs, runtime.GOMAXPROCS(0)) {
			t.Run("seeds", func(t *testing.T) {
				t.Parallel()
				for n := taken.Add(1); n <= int64(runs); n = taken.Add(1) {
					runSeed(t, uint64(from)+uint64(n)-1, total)
					if n := done.Add(1); n%100 == 0 {
						fmt.Printf("%d runs, %s\n", n, total.rate(n, began))
					}
				}
			})
		}
	})
	t.Logf("%d runs, %s\n%s", done.Load(), total.rate(done.Load(), began), total)
	if runs >= 20 {
		total.nothingMissing(t)
	}
}

func runSeed(t *testing.T, seed uint64, total *tally) {
	p := newPlan(seed)
	watchdog := time.AfterFunc(runMax, func() {
		panic(fmt.Sprintf("seed %d has not ended in %v\n%v\n%s", seed, runMax, p, stacks()))
	})
	defer watchdog.Stop()
	if report := run(t, p, total); report != "" {
		t.Errorf("seed %d fails; it fixes the faults and the load, not the interleaving, so try again:\n"+
			"SHOAL_VIRTUAL_FROM=%d SHOAL_VIRTUAL_RUNS=1 go test ./integration/virtual -run TestSoak -count 20 -failfast\n%v\n%s",
			seed, seed, p, report)
	}
}

func number(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no positive number", name, text)
	}
	return n
}

// A tally counts what happened in all runs.
type tally struct {
	virtual                        atomic.Int64 // ns
	terms, leaderships             atomic.Uint64
	faults, partitions             atomic.Uint64
	crashes, failStops             atomic.Uint64
	reads, readsRefused            atomic.Uint64
	writes, unknown, notDone       atomic.Uint64
	changes, changesDone, replaced atomic.Uint64
	installed, lost                atomic.Uint64
	recovery                       sync.Mutex
	recoveryMax                    time.Duration
}

// slowest keeps the slowest recovery.
func (t *tally) slowest(d time.Duration) {
	t.recovery.Lock()
	defer t.recovery.Unlock()
	t.recoveryMax = max(t.recoveryMax, d)
}

func (t *tally) rate(runs int64, began time.Time) string {
	took := time.Since(began)
	return fmt.Sprintf("%.1f/s, %v of virtual time in %v", float64(runs)/took.Seconds(),
		time.Duration(t.virtual.Load()).Round(time.Second), took.Round(time.Second))
}

func (t *tally) String() string {
	t.recovery.Lock()
	defer t.recovery.Unlock()
	return fmt.Sprintf("%d terms with a leader, %d leaderships that became ready\n"+
		"%d faults: %d partitions, %d crashes, %d stops for a failing disk\n"+
		"%d reads, %d refused; %d writes, %d of unknown outcome, %d not done\n"+
		"%d changes of membership asked for, %d done, %d replicas joined as voters, %d snapshots installed by those that were left\n"+
		"%d futures lost by Raft; slowest recovery after healing %v",
		t.terms.Load(), t.leaderships.Load(), t.faults.Load(), t.partitions.Load(), t.crashes.Load(), t.failStops.Load(),
		t.reads.Load(), t.readsRefused.Load(), t.writes.Load(), t.unknown.Load(), t.notDone.Load(),
		t.changes.Load(), t.changesDone.Load(), t.replaced.Load(), t.installed.Load(), t.lost.Load(), t.recoveryMax)
}

// nothingMissing fails if the runs, taken together, have not tried everything.
func (t *tally) nothingMissing(tt *testing.T) {
	for name, n := range map[string]*atomic.Uint64{
		"terms": &t.terms, "partitions": &t.partitions, "crashes": &t.crashes, "stops for a failing disk": &t.failStops,
		"reads": &t.reads, "writes": &t.writes, "unknown outcomes": &t.unknown, "writes not done": &t.notDone,
		"changes of membership": &t.changesDone, "replicas that joined": &t.replaced, "installed snapshots": &t.installed,
	} {
		if n.Load() == 0 {
			tt.Errorf("no %s in all runs: they prove less than they say", name)
		}
	}
}
