package virtual

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
)

// A world is one run: a group, its network, its clients, and what must hold of
// them.
type world struct {
	plan    plan
	flavour flavour
	network *network
	// moment orders the calls and returns of all clients. Virtual time stands
	// still while anything runs, so it would call too much concurrent.
	moment   atomic.Int64
	recorder *history.Recorder
	// storm ends when the faults and the load do.
	storm   context.Context
	calm    context.CancelFunc
	running sync.WaitGroup // faults, load, changes of membership
	// ended is set when replicas close for good.
	ended atomic.Bool
	tally *tally

	mu struct {
		sync.Mutex
		replicas []*replica
		random   *rand.Rand
		leaders  map[uint64]string   // term -> server id
		entries  map[uint64]entrySum // index -> what was applied there
		orphans  map[string][]*conn  // address -> connections to a host without power
		notes    []string
		failures []string
		began    time.Time
		changes  map[change]bool // true: some attempt may have been done
	}
}

// An entrySum is what the first who applied an index applied there.
type entrySum struct {
	sum  uint64
	term uint64
	by   string
}

// failuresMax bounds what one run reports.
const failuresMax = 10

func newWorld(p plan, t *tally) *world {
	w := &world{plan: p, flavour: p.flavour(), network: newNetwork(p.seed), recorder: history.NewRecorder(), tally: t}
	w.storm, w.calm = context.WithCancel(context.Background())
	w.mu.random = rand.New(rand.NewPCG(p.seed, 4))
	w.mu.leaders = map[uint64]string{}
	w.mu.entries = map[uint64]entrySum{}
	w.mu.orphans = map[string][]*conn{}
	w.mu.changes = map[change]bool{}
	w.mu.began = time.Now()
	return w
}

// failf records that something does not hold.
func (w *world) failf(format string, args ...any) {
	w.note("FAILED: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.mu.failures) < failuresMax {
		w.mu.failures = append(w.mu.failures, fmt.Sprintf(format, args...))
	}
}

// note records an event, for the report of a failure.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.notes = append(w.mu.notes, fmt.Sprintf("%9.3fs  %s", time.Since(w.mu.began).Seconds(), fmt.Sprintf(format, args...)))
}

// report is empty if everything held.
func (w *world) report() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.mu.failures) == 0 {
		return ""
	}
	return strings.Join(w.mu.failures, "\n") + "\n\n" + strings.Join(w.mu.notes, "\n")
}

func (w *world) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.random.IntN(n)
}

// all returns the replicas that there are, stopped ones too.
func (w *world) all() []*replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.replicas)
}

// living returns the replicas that run.
func (w *world) living() (out []*replica) {
	for _, r := range w.all() {
		if r.alive() != nil {
			out = append(out, r)
		}
	}
	return out
}

// leader returns a replica that believes to lead, or nil.
func (w *world) leader() *replica {
	for _, r := range w.living() {
		if l := r.alive(); l != nil {
			if s := l.raft.Status(); s.Ready && s.Failed == nil {
				return r
			}
		}
	}
	return nil
}

func (w *world) byAddress(address string) *replica {
	for _, r := range w.all() {
		if r.member.Address == address {
			return r
		}
	}
	return nil
}

// messagesOf returns who listens at an address: nobody if the process is gone,
// and not even that can be told if the host has no power.
func (w *world) messagesOf(address string) (m *messages, reachable bool) {
	l, on := w.listening(address)
	if l == nil {
		return nil, on
	}
	return l.messages, on
}

func (w *world) streamsOf(address string) (s *streams, reachable bool) {
	l, on := w.listening(address)
	if l == nil {
		return nil, on
	}
	return l.streams, on
}

func (w *world) listening(address string) (l *life, on bool) {
	r := w.byAddress(address)
	if r == nil {
		return nil, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.life, !r.mu.off
}

// leads notes who leads the term of a message.
func (w *world) leads(args *raft.AppendEntriesRequest) {
	id := string(args.RPCHeader.ID)
	if n := len(args.Entries); args.PrevLogTerm > args.Term || n > 0 && args.Entries[n-1].Term > args.Term {
		w.failf("%s, a leader of term %d, sends entries of a later one", id, args.Term)
	}
	w.mu.Lock()
	other, known := w.mu.leaders[args.Term]
	if !known {
		w.mu.leaders[args.Term] = id
	}
	w.mu.Unlock()
	if !known {
		w.note("term %d: %s leads", args.Term, id)
		w.tally.terms.Add(1)
	}
	if known && other != id {
		w.failf("term %d has two leaders, %s and %s", args.Term, other, id)
	}
}

// sends checks a snapshot that is about to be sent.
func (w *world) sends(args *raft.InstallSnapshotRequest) {
	if args.LastLogTerm > args.Term {
		w.failf("a leader of term %d sends the state of term %d, when another leads", args.Term, args.LastLogTerm)
	}
}

// applied compares an entry with what others applied at its index.
func (w *world) applied(by string, e *entry.Entry, results []any) {
	mine := entrySum{sumOf(e, results), e.Term, by}
	w.mu.Lock()
	first, known := w.mu.entries[e.Index]
	if !known {
		w.mu.entries[e.Index] = mine
	}
	w.mu.Unlock()
	if known && (first.sum != mine.sum || first.term != mine.term) {
		w.failf("entry %d: %s applied that of term %d, %s that of term %d, and they differ", e.Index, first.by, first.term, by, e.Term)
	}
}

// call makes one call that must end with its context, and whose error must
// belong to one family.
func (w *world) call(what string, limit time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	if took := time.Since(began); took > limit+time.Millisecond {
		w.failf("%s took %v of its %v", what, took, limit)
	}
	if err != nil && errors.Is(err, raftgroup.ErrNotDone) == errors.Is(err, raftgroup.ErrOutcomeUnknown) {
		w.failf("%s: the error belongs to both families or none: %v", what, err)
	}
	return err
}

// sleep reports whether the storm goes on after d.
func (w *world) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-w.storm.Done():
		return false
	}
}
