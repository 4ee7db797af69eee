package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// errNotSent counts operations that were due but not sent within the timeout
// after the end, because all clients were waiting for answers.
var errNotSent = errors.New("due before the end, but every client was still waiting for an answer")

// A Report is what all clients measured.
type Report struct {
	Reads  Summary `json:"reads"`
	Writes Summary `json:"writes"`
	All    Summary `json:"all"`

	// KeysLeft is how many keys it wrote, and left in the store: at most so many,
	// where there are more than 67 million.
	KeysLeft uint64 `json:"keys_left"`

	// FirstError is an example of the errors that were counted; nil: none.
	FirstError error `json:"-"`
}

// A Summary is what was measured of one kind of operation. Latencies are those
// of the operations that succeeded, in microseconds.
type Summary struct {
	Ops          uint64  `json:"ops"` // that succeeded
	Seconds      float64 `json:"seconds"`
	OpsPerSecond float64 `json:"ops_per_second"`
	Errors       uint64  `json:"errors"`
	P50us        int64   `json:"p50_us"`
	P99us        int64   `json:"p99_us"`
	P999us       int64   `json:"p999_us"`
	MaxUs        int64   `json:"max_us"`
	// NotFound counts the reads among Ops that met no key.
	NotFound uint64 `json:"not_found"`
}

func (r *run) report(elapsed time.Duration) *Report {
	var reads, writes, all tally
	for i := range r.stripes {
		mu := &r.stripes[i].mu
		mu.Lock()
		reads.merge(&mu.reads)
		writes.merge(&mu.writes)
		mu.Unlock()
	}
	all.merge(&reads)
	all.merge(&writes)
	return &Report{
		Reads: reads.summary(elapsed), Writes: writes.summary(elapsed), All: all.summary(elapsed),
		FirstError: all.first, KeysLeft: min(r.written.count.Load(), uint64(r.o.Keys)),
	}
}

func (t *tally) merge(o *tally) {
	t.latency.Merge(&o.latency)
	t.errors += o.errors
	t.misses += o.misses
	if t.first == nil {
		t.first = o.first
	}
}

func (t *tally) summary(elapsed time.Duration) Summary {
	seconds := elapsed.Seconds()
	s := Summary{
		Ops: t.latency.Total(), Seconds: seconds, Errors: t.errors, NotFound: t.misses,
		P50us:  microseconds(t.latency.Quantile(0.5)),
		P99us:  microseconds(t.latency.Quantile(0.99)),
		P999us: microseconds(t.latency.Quantile(0.999)),
		MaxUs:  microseconds(t.latency.Max()),
	}
	if seconds > 0 {
		s.OpsPerSecond = float64(s.Ops) / seconds
	}
	return s
}

// microseconds rounds up: a latency is never shown as 0.
func microseconds(d time.Duration) int64 {
	return int64((d + time.Microsecond - 1) / time.Microsecond)
}

// Load writes every key once, with o.Clients writes in flight, so that reads
// find something. It stops at the first error. done counts the keys meanwhile.
func Load(ctx context.Context, s Store, o Options, done *atomic.Uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	r := &run{store: s, o: o}
	for i := range min(o.Clients, o.Keys) {
		wg.Go(func() {
			value := newClient(r, uint64(i)).value
			for ctx.Err() == nil {
				k := int(next.Add(1) - 1)
				if k >= o.Keys {
					return
				}
				if err := s.Write(ctx, Key(k), value); err != nil {
					cancel(fmt.Errorf("load key %d of %d: %w", k+1, o.Keys, err))
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
