package bench

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Every quantile that a histogram reports is at least the true one and at most
// 1/128 above it, over nine orders of magnitude, and merging loses nothing.
func TestQuantilesAreAccurate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var whole, even, odd Histogram
	var values []time.Duration
	for i := range 50_000 {
		d := time.Duration(math.Exp(rng.Float64() * math.Log(1e11)))
		values = append(values, d)
		whole.Record(d)
		if i%2 == 0 {
			even.Record(d)
		} else {
			odd.Record(d)
		}
	}
	even.Merge(&odd)
	if even != whole {
		t.Error("two merged halves differ from the whole")
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 0.99999, 1} {
		rank := max(int(math.Ceil(q*float64(len(values)))), 1)
		exact, got := values[rank-1], whole.Quantile(q)
		if got < exact || float64(got-exact) > float64(exact)/128 {
			t.Errorf("quantile %v: got %v, exactly %v", q, got, exact)
		}
	}
	if whole.Max() != values[len(values)-1] || whole.Total() != uint64(len(values)) {
		t.Errorf("max %v, total %d; want %v, %d", whole.Max(), whole.Total(), values[len(values)-1], len(values))
	}
}

// Every value lies in a bucket whose bounds hold it, up to the greatest duration.
func TestBucketsCoverAllDurations(t *testing.T) {
	for shift := range 63 {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1, 1<<shift + 1<<shift/3} {
			i := bucketOf(v)
			if i < 0 || i >= bucketCount || upperBound(i) < v || i > 0 && upperBound(i-1) >= v {
				t.Fatalf("value %d: bucket %d ends at %d", v, i, upperBound(i))
			}
		}
	}
	var h Histogram
	h.Record(math.MaxInt64)
	h.Record(-1)
	if h.Quantile(1) != math.MaxInt64 || h.Quantile(0) != 0 {
		t.Errorf("extremes: %v to %v", h.Quantile(0), h.Quantile(1))
	}
}

// A stalled store is charged, at a rate, for every operation that was due while it
// stalled; a closed loop, by its nature, sees one slow operation per client.
func TestRateCountsFromWhenOperationsWereDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := func() *fakeStore {
			return &fakeStore{latency: time.Millisecond, stallAt: 2 * time.Second, stall: time.Second}
		}
		o := Options{Clients: 4, Duration: 10 * time.Second, ReadFraction: 0.5, Keys: 10, Rate: 100}
		open, err := Run(t.Context(), stall(), o, new(Live))
		if err != nil {
			t.Fatal(err)
		}
		// 100 of 1000 operations were due in the second of the stall: they waited
		// for half a second on average, so 5 % waited for half a second or more.
		if p := open.All.P99us; p < 850_000 || p > 1_000_000 {
			t.Errorf("p99 at a rate is %d us; operations due early in the stall waited for 0.9 s and more", p)
		}
		if open.All.Ops != 1000 || open.Reads.Ops+open.Writes.Ops != 1000 || open.All.Errors != 0 {
			t.Errorf("ops %+v; want all 1000 that were due", open.All)
		}
		o.Rate = 0
		closed, err := Run(t.Context(), stall(), o, new(Live))
		if err != nil {
			t.Fatal(err)
		}
		if closed.All.P99us > 1100 || closed.All.MaxUs < 990_000 || closed.All.Ops < 30_000 {
			t.Errorf("closed loop: %+v", closed.All)
		}
	})
}

// At a rate so low that the second operation is due after the end, even after the end
// of what a clock can tell, one is sent.
func TestLowRates(t *testing.T) {
	for _, rate := range []float64{0.5, 1e-9, 1e-12, math.SmallestNonzeroFloat64} {
		synctest.Test(t, func(t *testing.T) {
			o := Options{Clients: 4, Duration: time.Second, Keys: 10, Rate: rate}
			report, err := Run(t.Context(), &fakeStore{latency: time.Millisecond}, o, new(Live))
			if err != nil {
				t.Fatal(err)
			}
			if report.All.Ops != 1 || report.All.MaxUs > 2000 {
				t.Errorf("rate %v: %+v", rate, report.All)
			}
		})
	}
}

// Operations that fail are counted apart, with an example, and those that could
// not even be sent before the end and the timeout count as errors too.
func TestErrorsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{latency: time.Millisecond, stallAt: time.Second, stall: time.Hour}
		o := Options{Clients: 2, Duration: 4 * time.Second, Keys: 10, Rate: 10, Timeout: 2 * time.Second}
		var live Live
		report, err := Run(t.Context(), s, o, &live)
		if err != nil {
			t.Fatal(err)
		}
		if w := report.Writes; w.Ops+w.Errors != 40 || w.Errors < 29 || report.Reads.Ops != 0 || live.Ops() != 40 {
			t.Errorf("writes %+v; want 40 due, of which those from the stall on failed", w)
		}
		if !errors.Is(report.FirstError, context.DeadlineExceeded) {
			t.Errorf("first error is %v", report.FirstError)
		}
	})
}

// Load writes every key exactly once, and says which key it failed at.
func TestLoad(t *testing.T) {
	s := &fakeStore{}
	var done atomic.Uint64
	o := Options{Clients: 7, Keys: 100, ValueSize: 10}
	if err := Load(t.Context(), s, o, &done); err != nil {
		t.Fatal(err)
	}
	if done.Load() != 100 || len(s.written) != 100 {
		t.Errorf("%d counted, %d written", done.Load(), len(s.written))
	}
	s = &fakeStore{err: errors.New("full")}
	if err := Load(t.Context(), s, o, &done); !errors.Is(err, s.err) {
		t.Errorf("error is %v", err)
	}
}

// Options out of range are refused before any load is made.
func TestOptionsAreChecked(t *testing.T) {
	good := Options{Clients: 1, Duration: 1, Keys: 1}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"clients": func(o *Options) { o.Clients = 0 }, "duration": func(o *Options) { o.Duration = 0 },
		"fraction": func(o *Options) { o.ReadFraction = 1.1 }, "nan": func(o *Options) { o.ReadFraction = math.NaN() },
		"size": func(o *Options) { o.ValueSize = -1 }, "keys": func(o *Options) { o.Keys = 0 },
		"rate": func(o *Options) { o.Rate = -1 },
	} {
		o := good
		change(&o)
		if _, err := Run(t.Context(), &fakeStore{}, o, new(Live)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// fakeStore answers after latency, and stalls once.
type fakeStore struct {
	latency, stallAt, stall time.Duration
	err                     error

	mu      sync.Mutex
	began   time.Time
	written map[string]bool
}

func (s *fakeStore) Read(ctx context.Context, key []byte) (bool, error) { return true, s.wait(ctx) }

func (s *fakeStore) Write(ctx context.Context, key, value []byte) error {
	s.mu.Lock()
	if s.written == nil {
		s.written = map[string]bool{}
	}
	s.written[string(key)] = true
	s.mu.Unlock()
	return s.wait(ctx)
}

func (s *fakeStore) wait(ctx context.Context) error {
	s.mu.Lock()
	if s.began.IsZero() {
		s.began = time.Now()
	}
	wait, at := s.latency, time.Since(s.began)
	s.mu.Unlock()
	if s.stall > 0 && at >= s.stallAt && at < s.stallAt+s.stall {
		wait = s.stallAt + s.stall - at
	}
	if s.err != nil || wait == 0 {
		return s.err
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A run says how many different keys it wrote; cleaning removes these and those of
// other runs, and nothing that only looks like them.
func TestKeysLeftAndCleaned(t *testing.T) {
	s := &keeper{}
	s.mu.keys = map[string]bool{}
	others := []string{"bench/", "bench/00000000", "bench/0000000001/x", "bench/000000000x", "benchmark", "other"}
	for _, key := range others {
		s.mu.keys[key] = true
	}
	r, err := Run(t.Context(), s, Options{Clients: 4, Duration: 50 * time.Millisecond, ReadFraction: 0.5, Keys: 200}, new(Live))
	if err != nil {
		t.Fatal(err)
	}
	if wrote := len(s.mu.keys) - len(others); r.KeysLeft != uint64(wrote) || wrote == 0 {
		t.Errorf("%d keys are left, and %d were written", r.KeysLeft, wrote)
	}
	s.mu.keys[string(Key(12_345_678_901))] = true
	want := r.KeysLeft + 1
	var removed atomic.Uint64
	if err := Clean(t.Context(), s, &removed); err != nil {
		t.Fatal(err)
	}
	if removed.Load() != want || !slices.Equal(slices.Sorted(maps.Keys(s.mu.keys)), others) {
		t.Errorf("%d of %d were removed; left are %q", removed.Load(), want, slices.Sorted(maps.Keys(s.mu.keys)))
	}
	s.mu.keys[string(Key(1))] = true
	s.fail = errors.New("down")
	if err := Clean(t.Context(), s, &removed); !errors.Is(err, s.fail) {
		t.Errorf("a store that fails: %v", err)
	}
}

// A keeper is a store that knows which keys it has.
type keeper struct {
	fail error
	mu   struct {
		sync.Mutex
		keys map[string]bool
	}
}

func (k *keeper) Read(context.Context, []byte) (bool, error) { return true, nil }

func (k *keeper) Write(_ context.Context, key, _ []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.keys[string(key)] = true
	return nil
}

func (k *keeper) Remove(_ context.Context, key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.mu.keys, string(key))
	return k.fail
}

func (k *keeper) Scan(_ context.Context, prefix []byte, _ bool, each func(key, value []byte) error) error {
	k.mu.Lock()
	keys := slices.Sorted(maps.Keys(k.mu.keys))
	k.mu.Unlock()
	for _, key := range keys {
		if strings.HasPrefix(key, string(prefix)) {
			if err := each([]byte(key), nil); err != nil {
				return err
			}
		}
	}
	return nil
}
