// Package bench puts load on a cluster and measures what its clients see.
//
// In a closed loop each client sends its next operation when the last one is
// answered. At a rate, operations have a time at which they are due, and their
// latency counts from then, however late they were sent: a store that stalls is
// charged for everything that had to wait, not for one slow operation
// (coordinated omission, after Gil Tene).
//
// Run owns the clients' goroutines and waits for them. The package imports the
// standard library only; the store is its consumer interface Store.
package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Store is what is measured. Both calls are made by many goroutines at once
// and return when the context ends.
type Store interface {
	// Read reads a key and reports whether there was one.
	Read(ctx context.Context, key []byte) (found bool, err error)
	// Write sets a key.
	Write(ctx context.Context, key, value []byte) error
}

// Options say what load to make.
type Options struct {
	Clients      int           // operations in flight at most
	Duration     time.Duration // of the measurement
	ReadFraction float64       // of the operations, 0 to 1
	ValueSize    int           // bytes of a written value
	Keys         int           // keys are drawn evenly from this many
	Rate         float64       // operations per second; 0: a closed loop
	// Timeout bounds one operation; 0: unbounded. At a rate, it also bounds how long after
	// the end the operations that were due before are still sent.
	Timeout time.Duration
	Seed    uint64 // of the choice of keys and operations
}

// Check returns what is wrong with the options, for people.
func (o Options) Check() error {
	switch {
	case o.Clients < 1 || o.Clients > ClientsMax:
		return fmt.Errorf("--clients is %d: it is 1 to %d", o.Clients, ClientsMax)
	case o.Duration <= 0:
		return fmt.Errorf("--duration is %v: it must be above 0", o.Duration)
	case !(o.ReadFraction >= 0 && o.ReadFraction <= 1):
		return fmt.Errorf("--read-fraction is %v: it is 0 to 1", o.ReadFraction)
	case o.ValueSize < 0:
		return fmt.Errorf("--value-size is %d: it must not be negative", o.ValueSize)
	case o.Keys < 1:
		return fmt.Errorf("--keys is %d: it must be at least 1", o.Keys)
	case !(o.Rate >= 0) || o.Rate > rateMax:
		return fmt.Errorf("--rate is %v: it is 0 (as fast as possible) to %d operations per second", o.Rate, int(rateMax))
	}
	return nil
}

const (
	// ClientsMax bounds the clients: each is a goroutine with a value.
	ClientsMax = 20_000
	rateMax    = 1e8
	// stripeCount bounds the histograms, of 58 KiB each: clients share them.
	stripeCount = 16
)

// Live is what has happened so far, for a progress display. It is safe for
// concurrent use.
type Live struct {
	ops, errors atomic.Uint64
}

// Ops is how many operations were answered, with success or not.
func (l *Live) Ops() uint64 { return l.ops.Load() }

// Errors is how many of them failed.
func (l *Live) Errors() uint64 { return l.errors.Load() }

// Run puts load on s for o.Duration, or until ctx ends, and returns what the
// clients measured. live is kept up to date meanwhile.
func Run(ctx context.Context, s Store, o Options, live *Live) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	start := time.Now()
	run := &run{store: s, o: o, live: live, start: start, end: start.Add(o.Duration), written: newKeySet(o.Keys)}
	run.stripes = make([]stripe, min(o.Clients, stripeCount))
	var wg sync.WaitGroup
	for i := range o.Clients {
		c := newClient(run, uint64(i))
		wg.Go(func() { c.loop(ctx) })
	}
	wg.Wait()
	return run.report(time.Since(start)), nil
}

// A run is what the clients of one Run share.
type run struct {
	store      Store
	o          Options
	live       *Live
	start, end time.Time
	issued     atomic.Int64 // at a rate: operations taken from the schedule
	stripes    []stripe
	written    *keySet
}

// A stripe is what some of the clients counted.
type stripe struct {
	mu struct {
		sync.Mutex
		reads, writes tally
	}
}

// next returns when the next operation is due, and false when there is none. In
// a closed loop it is due now.
func (r *run) next(ctx context.Context) (due time.Time, ok bool) {
	if ctx.Err() != nil {
		return time.Time{}, false
	}
	now := time.Now()
	if r.o.Rate == 0 {
		return now, now.Before(r.end)
	}
	i := r.issued.Add(1) - 1
	after := float64(i) / r.o.Rate * float64(time.Second)
	if after >= float64(r.o.Duration) { // it may be more than a Duration can be
		return time.Time{}, false
	}
	due = r.start.Add(time.Duration(after))
	if wait := due.Sub(now); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return time.Time{}, false
		case <-timer.C:
		}
	}
	return due, true
}

// A client is one goroutine that sends one operation at a time.
type client struct {
	*run
	stripe *stripe
	rng    *rand.Rand
	value  []byte
}

// A tally is what was counted of one kind of operation.
type tally struct {
	latency Histogram // of the operations that were answered without error
	errors  uint64
	misses  uint64 // reads that found no key
	first   error  // the first error
}

func newClient(r *run, i uint64) *client {
	c := &client{run: r, rng: rand.New(rand.NewPCG(r.o.Seed, i)), value: make([]byte, r.o.ValueSize)}
	if len(r.stripes) > 0 {
		c.stripe = &r.stripes[i%uint64(len(r.stripes))]
	}
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for j := range c.value {
		c.value[j] = letters[c.rng.IntN(len(letters))]
	}
	return c
}

func (c *client) loop(ctx context.Context) {
	for {
		due, ok := c.next(ctx)
		if !ok {
			return
		}
		c.one(ctx, due)
	}
}

// one sends one operation and counts it from when it was due.
func (c *client) one(ctx context.Context, due time.Time) {
	number := c.rng.IntN(c.o.Keys)
	key := Key(number)
	read := c.rng.Float64() < c.o.ReadFraction
	if c.o.Timeout > 0 && time.Since(c.end) > c.o.Timeout {
		c.count(read, func(t *tally) { t.fail(errNotSent) })
		return
	}
	opCtx, cancel := ctx, context.CancelFunc(func() {})
	if c.o.Timeout > 0 {
		opCtx, cancel = context.WithTimeout(ctx, c.o.Timeout)
	}
	defer cancel()
	var err error
	found := true
	if read {
		found, err = c.store.Read(opCtx, key)
	} else {
		c.written.add(number) // though it fails, it may have been executed
		err = c.store.Write(opCtx, key, c.value)
	}
	took := time.Since(due)
	switch {
	case err != nil && ctx.Err() != nil:
		// The run was interrupted: that is not the store's error.
	case err != nil:
		c.count(read, func(t *tally) { t.fail(err) })
	default:
		c.count(read, func(t *tally) { t.succeed(took, found) })
	}
}

// count records one outcome in the client's stripe.
func (c *client) count(read bool, record func(*tally)) {
	mu := &c.stripe.mu
	mu.Lock()
	defer mu.Unlock()
	t := &mu.writes
	if read {
		t = &mu.reads
	}
	failed := t.errors
	record(t)
	c.live.ops.Add(1)
	c.live.errors.Add(t.errors - failed)
}

func (t *tally) succeed(took time.Duration, found bool) {
	t.latency.Record(took)
	if !found {
		t.misses++
	}
}

func (t *tally) fail(err error) {
	t.errors++
	if t.first == nil {
		t.first = err
	}
}
