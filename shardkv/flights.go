package shardkv

import (
	"context"
	"sync"
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// A submission is what the server needs of raftgroup.Submission.
type submission interface {
	Done() <-chan struct{}
	Results() []any
	Withdraw(reason error)
}

// flights are the writes under way, by name. They outlive the requests that began
// them: a commit may take longer than a client waits, and a retry that were
// proposed once more would make the queue longer that it is late for. It joins the
// flight instead, and gets that one's result. Safe for concurrent use.
type flights struct {
	pace pace
	mu   struct {
		sync.Mutex
		by map[attempt]seat
	}
}

// An attempt names a write: at most one of a name takes effect. The zero attempt
// is that of a write which is not protected, and has no name.
type attempt struct {
	shard    shardcfg.ShardID
	session  session.Key
	sequence uint64
}

// A flight is one list of commands on its way. Guarded by flights.mu.
type flight struct {
	sub   submission
	names []attempt // of its commands
	// waiters are the requests that wait for it. Without any, what is still queued is
	// withdrawn.
	waiters int
	ended   func(time.Time) // tells the pace; nil once it has
}

// A seat is the place of one write in a flight.
type seat struct {
	f    *flight
	slot int
}

// A boarding is what one request waits for.
type boarding struct {
	all     *flights
	seats   []seat // by write; of one that was refused, zero
	flights []*flight
	results [][]any // by flight; nil before wait has returned
	refused error   // why the writes without a seat were refused
}

func newFlights() *flights {
	f := &flights{}
	f.mu.by = map[attempt]seat{}
	return f
}

// board takes writes in: each joins the flight of its name, if there is one; the
// others start a flight together, or are refused together.
func (fs *flights) board(names []attempt, commands []entry.Command, start func([]entry.Command) (submission, error)) *boarding {
	b := &boarding{all: fs, seats: make([]seat, len(names))}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	joined := 0
	for k, name := range names {
		if at, ok := fs.mu.by[name]; ok && !at.f.done() {
			b.seats[k] = at
			b.joinLocked(at.f)
			joined++
		}
	}
	if joined == len(names) {
		return b
	}
	fresh := commands
	if joined > 0 {
		fresh = make([]entry.Command, 0, len(commands)-joined)
		for k, at := range b.seats {
			if at.f == nil {
				fresh = append(fresh, commands[k])
			}
		}
	}
	sub, err := start(fresh)
	if err != nil {
		b.refused = err
		return b
	}
	f := &flight{sub: sub, names: make([]attempt, 0, len(fresh)), ended: fs.pace.begin(time.Now())}
	for k, name := range names {
		if b.seats[k].f != nil {
			continue
		}
		b.seats[k] = seat{f, len(f.names)}
		f.names = append(f.names, name)
		if name != (attempt{}) {
			fs.mu.by[name] = b.seats[k]
		}
	}
	b.joinLocked(f)
	return b
}

func (b *boarding) joinLocked(f *flight) {
	for _, old := range b.flights {
		if old == f {
			return
		}
	}
	f.waiters++
	b.flights = append(b.flights, f)
}

// wait returns when all flights have ended or ctx has, and takes the results.
func (b *boarding) wait(ctx context.Context) {
	for _, f := range b.flights {
		select {
		case <-f.sub.Done():
		case <-ctx.Done():
		}
	}
	b.all.leave(b.flights, context.Cause(ctx))
	b.results = make([][]any, len(b.flights))
	for i, f := range b.flights {
		b.results[i] = f.sub.Results()
	}
}

// result is how the k-th write ended; nil if it is still under way.
func (b *boarding) result(k int) any {
	at := b.seats[k]
	for i, f := range b.flights {
		if f == at.f {
			return b.results[i][at.slot]
		}
	}
	return b.refused
}

// leave ends the wait of one request.
func (fs *flights) leave(list []*flight, reason error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range list {
		f.waiters--
		switch {
		case f.done():
			fs.forgetLocked(f)
		case f.waiters == 0:
			f.sub.Withdraw(reason)
			fs.forgetSettledLocked(f)
			go func() {
				<-f.sub.Done()
				fs.mu.Lock()
				defer fs.mu.Unlock()
				fs.forgetLocked(f)
			}()
		}
	}
}

// forgetLocked forgets a flight that has ended.
func (fs *flights) forgetLocked(f *flight) {
	if f.ended == nil {
		return
	}
	f.ended(time.Now())
	f.ended = nil
	for slot := range f.names {
		fs.forgetSlotLocked(f, slot)
	}
}

// forgetSettledLocked forgets the writes of a flight that have ended: a retry of
// those begins anew.
func (fs *flights) forgetSettledLocked(f *flight) {
	for slot, result := range f.sub.Results() {
		if result != nil {
			fs.forgetSlotLocked(f, slot)
		}
	}
}

func (fs *flights) forgetSlotLocked(f *flight, slot int) {
	if fs.mu.by[f.names[slot]] == (seat{f, slot}) {
		delete(fs.mu.by, f.names[slot])
	}
}

// count returns the number of named writes under way.
func (fs *flights) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.mu.by)
}

func (f *flight) done() bool {
	select {
	case <-f.sub.Done():
		return true
	default:
		return false
	}
}
