// Package workload drives clients against a cluster and records what they saw.
// The same workload serves `shoal check` and the scenarios.
//
// Half of the keys are registers (get, put, conditional put, delete), the other
// half are append-only and get nothing but unique tokens, so that a lost or
// doubled append can't hide behind a later put.
package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/history"
)

// Store is what a client needs of a clerk.
type Store interface {
	Get(ctx context.Context, key []byte) (clerk.Value, error)
	Put(ctx context.Context, key, value []byte, options ...clerk.WriteOption) (clerk.Version, error)
	Append(ctx context.Context, key, value []byte, options ...clerk.WriteOption) (clerk.Appended, error)
	Delete(ctx context.Context, key []byte, options ...clerk.WriteOption) error
}

// Options says what the clients do. The zero value is not usable: Clients and
// Keys must be positive.
type Options struct {
	// Prefix begins every key, so that two workloads don't meet.
	Prefix string
	// Clients is the number of clients; each has one call under way at a time.
	Clients int
	// Keys is the number of registers, and again of append-only keys.
	Keys int
	// KeyOpsMax is how many calls a key serves; then a fresh one, whose name ends
	// in a number, takes its place. It bounds values, and the time and memory that
	// a judge needs for a key. 0: no bound.
	KeyOpsMax uint64
	// OpTimeout bounds one call; 0: 10 s.
	OpTimeout time.Duration
	// Pace is the pause of a client between two calls; 0: none.
	Pace time.Duration
	// Seed fixes what the clients ask for (not what they are answered).
	Seed uint64
	// FirstClient numbers the clients from there on, for tokens that are unique
	// over several workloads of one history.
	FirstClient int
}

// A Load is a running workload. Its goroutines end with Stop.
type Load struct {
	options  Options
	recorder *history.Recorder
	cancel   context.CancelFunc
	done     sync.WaitGroup
	calls    atomic.Uint64
	finished atomic.Uint64
	unknown  atomic.Uint64
	last     []atomic.Int64 // by client: when its newest successful call ended
	// registers and appendOnly count the calls for each key.
	registers, appendOnly []atomic.Uint64
}

// Start starts the clients. Each uses the store that dial makes for it.
func Start(stores []Store, o Options, recorder *history.Recorder) (*Load, error) {
	if o.Clients < 1 || o.Keys < 1 || len(stores) == 0 {
		return nil, fmt.Errorf("workload: %d clients, %d keys, %d stores", o.Clients, o.Keys, len(stores))
	}
	o.OpTimeout = cmp.Or(o.OpTimeout, 10*time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{options: o, recorder: recorder, cancel: cancel, last: make([]atomic.Int64, o.Clients),
		registers: make([]atomic.Uint64, o.Keys), appendOnly: make([]atomic.Uint64, o.Keys)}
	now := recorder.Now()
	for i := range l.last {
		l.last[i].Store(now)
	}
	for i := range o.Clients {
		c := &client{load: l, number: o.FirstClient + i, slot: i, store: stores[i%len(stores)],
			random: rand.New(rand.NewPCG(o.Seed, uint64(i))), seen: map[string]uint64{}}
		l.done.Go(func() { c.run(ctx) })
	}
	return l, nil
}

// Finished is the number of calls that were answered with success so far.
func (l *Load) Finished() uint64 { return l.finished.Load() }

// Calls is the number of calls that were answered so far, in whatever way.
func (l *Load) Calls() uint64 { return l.calls.Load() }

// Unknown is the number of calls so far whose outcome is unknown.
func (l *Load) Unknown() uint64 { return l.unknown.Load() }

// LongestWait is how long the client that has waited longest for a success has
// done so.
func (l *Load) LongestWait() time.Duration {
	now, longest := l.recorder.Now(), int64(0)
	for i := range l.last {
		longest = max(longest, now-l.last[i].Load())
	}
	return time.Duration(longest)
}

// Stop lets the calls under way finish, and returns when all clients have.
func (l *Load) Stop() {
	l.cancel()
	l.done.Wait()
}

// RegisterKey is the name of the i-th register.
func (o Options) RegisterKey(i int) string { return fmt.Sprintf("%sr%04d", o.Prefix, i) }

// AppendKey is the name of the i-th append-only key.
func (o Options) AppendKey(i int) string { return fmt.Sprintf("%sa%04d", o.Prefix, i) }

// named is the key that serves the call of a number, from 0 on.
func (o Options) named(key string, call uint64) string {
	if o.KeyOpsMax == 0 || call < o.KeyOpsMax {
		return key
	}
	return fmt.Sprintf("%s.%d", key, call/o.KeyOpsMax)
}

// Keys returns the names of all keys that calls were for, those that fresh ones
// replaced included. It is called after Stop.
func (l *Load) Keys() (registers, appendOnly []string) {
	names := func(key string, calls uint64) []string {
		all := []string{key}
		for call := l.options.KeyOpsMax; call > 0 && call < calls; call += l.options.KeyOpsMax {
			all = append(all, l.options.named(key, call))
		}
		return all
	}
	for i := range l.options.Keys {
		registers = append(registers, names(l.options.RegisterKey(i), l.registers[i].Load())...)
		appendOnly = append(appendOnly, names(l.options.AppendKey(i), l.appendOnly[i].Load())...)
	}
	return registers, appendOnly
}

// ReadAll reads every key once, as part of the history, and returns the final
// values of the append-only keys. A read that fails is tried again until ctx
// ends.
func (l *Load) ReadAll(ctx context.Context, store Store) (map[string]string, error) {
	reader := &client{load: l, number: l.options.FirstClient + l.options.Clients, slot: -1, store: store}
	final := map[string]string{}
	registers, appendOnly := l.Keys()
	for _, key := range registers {
		if _, err := reader.readUntil(ctx, key); err != nil {
			return nil, err
		}
	}
	for _, key := range appendOnly {
		op, err := reader.readUntil(ctx, key)
		if err != nil {
			return nil, err
		}
		final[key] = op.Read
	}
	return final, nil
}

// client is one sequential client; one goroutine owns it.
type client struct {
	load   *Load
	number int
	slot   int
	store  Store
	random *rand.Rand
	// seen is the version that the client last saw of each register.
	seen    map[string]uint64
	appends int
	puts    int
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.call(c.draw())
		if c.load.options.Pace == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(c.load.options.Pace):
		}
	}
}

// draw chooses the next operation.
func (c *client) draw() history.Operation {
	o := c.load.options
	i, p := c.random.IntN(o.Keys), c.random.IntN(100)
	if p < 50 {
		key := o.named(o.AppendKey(i), c.load.appendOnly[i].Add(1)-1)
		if p < 20 {
			return history.Operation{Kind: history.Get, Key: key}
		}
		c.appends++
		return history.Operation{Kind: history.Append, Key: key, Value: history.Token(c.number, c.appends)}
	}
	register := o.named(o.RegisterKey(i), c.load.registers[i].Add(1)-1)
	switch {
	case p < 70:
		return history.Operation{Kind: history.Get, Key: register}
	case p < 85:
		return history.Operation{Kind: history.Put, Key: register, Value: c.value()}
	case p < 95:
		return history.Operation{Kind: history.PutIf, Key: register, Value: c.value(), IfVersion: c.seen[register]}
	}
	return history.Operation{Kind: history.Delete, Key: register}
}

func (c *client) value() string {
	c.puts++
	return fmt.Sprintf("v%d.%d", c.number, c.puts)
}

// call runs one operation and records it. A call is not cut short when the
// workload stops: its outcome would be lost.
func (c *client) call(op history.Operation) history.Operation {
	ctx, cancel := context.WithTimeout(context.Background(), c.load.options.OpTimeout)
	defer cancel()
	op.Client, op.Call = c.number, c.load.recorder.Now()
	err := c.execute(ctx, &op)
	op.Return = c.load.recorder.Now()
	c.load.calls.Add(1)
	switch clerk.FamilyOf(err) {
	case clerk.FamilyDone:
		op.Outcome = history.Done
		c.load.finished.Add(1)
		if c.slot >= 0 {
			c.load.last[c.slot].Store(op.Return)
		}
	case clerk.FamilyNotDone:
		op.Outcome = history.NotDone
	default:
		op.Outcome = history.Unknown
		c.load.unknown.Add(1)
	}
	c.load.recorder.Add(op)
	return op
}

// execute runs the operation and fills in its results.
func (c *client) execute(ctx context.Context, op *history.Operation) error {
	key, value := []byte(op.Key), []byte(op.Value)
	switch op.Kind {
	case history.Get:
		v, err := c.store.Get(ctx, key)
		op.Found, op.Read, op.Version = err == nil, string(v.Bytes), uint64(v.Version)
		if c.seen != nil && clerk.FamilyOf(err) == clerk.FamilyDone {
			c.seen[op.Key] = op.Version
		}
		return err
	case history.Put:
		version, err := c.store.Put(ctx, key, value)
		op.Version = uint64(version)
		return err
	case history.Append:
		a, err := c.store.Append(ctx, key, value)
		op.Version, op.Length = uint64(a.Version), a.Length
		return err
	case history.Delete:
		err := c.store.Delete(ctx, key)
		op.Found = err == nil
		return err
	case history.PutIf:
		version, err := c.store.Put(ctx, key, value, clerk.IfVersion(clerk.Version(op.IfVersion)))
		op.Matched, op.Version = err == nil, uint64(version)
		var mismatch *clerk.Error
		if errors.As(err, &mismatch) && errors.Is(err, clerk.ErrVersionMismatch) {
			op.Version = uint64(mismatch.Present)
			c.seen[op.Key] = op.Version
		}
		return err
	}
	return fmt.Errorf("workload: operation of kind %d", op.Kind)
}

// readUntil reads a key until a read succeeds.
func (c *client) readUntil(ctx context.Context, key string) (history.Operation, error) {
	for {
		op := c.call(history.Operation{Kind: history.Get, Key: key})
		if op.Outcome == history.Done {
			return op, nil
		}
		select {
		case <-ctx.Done():
			return op, fmt.Errorf("final read of %q: %w", key, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond): // it may have failed at once
		}
	}
}
