package raftgroup

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
)

// A leadership is one time that this replica leads.
type leadership struct {
	ctx    context.Context
	cancel context.CancelFunc
	// loopCtx is that of the loops. It ends with ctx, and first when the replica
	// is closed: the loops stop while their last proposals still go through.
	loopCtx    context.Context
	loopCancel context.CancelFunc
	// ready is closed once the machine has applied an entry of this leadership's
	// term: before that, the commit index may lag behind what an earlier leader
	// acknowledged.
	ready chan struct{}
	// ownTerm is the term of that entry; 0 before it.
	ownTerm atomic.Uint64
	node    *raft.Raft
	since   time.Time // when it began
}

// term is exact once ready is closed. Before, it is Raft's present one.
func (l *leadership) term() uint64 {
	if t := l.ownTerm.Load(); t != 0 {
		return t
	}
	return l.node.CurrentTerm()
}

func (l *leadership) isReady() bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// leads keeps the present leadership, and the loops that run in it.
type leads struct {
	mu struct {
		sync.Mutex
		current *leadership // nil: this replica does not lead
		loops   []*loop
		closed  bool
	}
	running sync.WaitGroup
}

// A loop is what WhileLeader registered.
type loop struct {
	name string
	run  func(ctx context.Context)
	// turn is held while run runs, so that it never runs twice at once.
	turn sync.Mutex
}

// WhileLeader registers a loop that is the work of the leader: run is called, in
// a goroutine of its own, each time that this replica leads and has applied its
// term's no-op. Its ctx ends with the leadership or with Close; run must return
// soon after, and Close waits for it. There are never two calls of the same loop
// at once: a new leadership waits for the last call to return. A run that
// returns early is not called again before the next leadership.
func (r *Replica) WhileLeader(name string, run func(ctx context.Context)) {
	l := &loop{name: name, run: run}
	r.leads.mu.Lock()
	defer r.leads.mu.Unlock()
	r.leads.mu.loops = append(r.leads.mu.loops, l)
	if lead := r.leads.mu.current; lead != nil && lead.isReady() && !r.leads.mu.closed {
		r.startLoopLocked(l, lead)
	}
}

func (r *Replica) startLoopLocked(l *loop, lead *leadership) {
	r.leads.running.Go(func() {
		l.turn.Lock()
		defer l.turn.Unlock()
		if lead.loopCtx.Err() == nil {
			r.o.Logger.Debug("leader loop begins", "loop", l.name)
			l.run(lead.loopCtx)
		}
	})
}

// leading returns the present leadership, or nil.
func (r *Replica) leading() *leadership {
	r.leads.mu.Lock()
	defer r.leads.mu.Unlock()
	return r.leads.mu.current
}

// notLeader makes the error of a replica that does not lead.
func (r *Replica) notLeader() error {
	if err := r.failed(); err != nil {
		return notDone(err)
	}
	address, id := r.node().LeaderWithID()
	if string(id) == r.o.Identity.ServerID {
		address = "" // it leads and does not know yet, or no longer
	}
	return &NotLeaderError{Leader: string(address)}
}

// drain receives Raft's changes of leadership, which Raft waits for; so it only
// takes note, and never calls Raft's main loop.
func (r *Replica) drain(node *raft.Raft, changes <-chan bool, stop <-chan struct{}) {
	for {
		select {
		case leading := <-changes:
			if leading {
				r.gained(node)
			} else {
				r.lost()
			}
		case <-stop:
			return
		}
	}
}

func (r *Replica) gained(node *raft.Raft) {
	lead := &leadership{ready: make(chan struct{}), node: node, since: time.Now()}
	lead.ctx, lead.cancel = context.WithCancel(context.Background())
	lead.loopCtx, lead.loopCancel = context.WithCancel(lead.ctx)
	r.leads.mu.Lock()
	defer r.leads.mu.Unlock()
	if r.leads.mu.closed || r.failed() != nil {
		lead.cancel()
		return
	}
	if r.leads.mu.current != nil {
		r.leads.mu.current.cancel()
	}
	r.leads.mu.current = lead
	r.counters.leaderGained.Add(1)
	r.packer.setLeading(true)
	r.leads.running.Go(func() { r.lead(lead) })
}

func (r *Replica) lost() {
	r.leads.mu.Lock()
	defer r.leads.mu.Unlock()
	if lead := r.leads.mu.current; lead != nil {
		lead.cancel()
		r.leads.mu.current = nil
	}
	r.packer.setLeading(false)
}

// lead commits the no-op of a new leadership, however often it takes, and starts
// the loops.
func (r *Replica) lead(lead *leadership) {
	for {
		term, err := r.commitNoop(lead.ctx)
		if err == nil {
			lead.ownTerm.Store(term)
			break
		}
		r.o.Logger.Debug("the no-op of a new leader failed", "error", err)
		select {
		case <-time.After(r.o.Timeout / 10):
		case <-lead.ctx.Done():
			return
		}
	}
	r.leads.mu.Lock()
	if r.leads.mu.current != lead || r.leads.mu.closed {
		r.leads.mu.Unlock()
		return
	}
	close(lead.ready)
	for _, l := range r.leads.mu.loops {
		r.startLoopLocked(l, lead)
	}
	r.leads.running.Go(func() { r.watchLimp(lead) })
	r.leads.mu.Unlock()
	r.recordLabels(lead.ctx)
	r.recordAddresses(lead)
}

// commitNoop returns the term of a no-op that was applied.
func (r *Replica) commitNoop(ctx context.Context) (term uint64, err error) {
	c, err := r.packer.submit([]entry.Command{{Kind: entry.KindNoop}}, first)
	if err != nil {
		return 0, err
	}
	results, err := r.packer.wait(ctx, c)
	if err != nil {
		return 0, err
	}
	return results[0].(noopResult).term, nil
}

// recordLabels puts the founders' labels into the log, so that members that came
// later know them.
func (r *Replica) recordLabels(ctx context.Context) {
	var missing []entry.Command
	_, m, _ := r.fsm.snapshotOf()
	present := make(map[string]bool)
	for _, s := range m.config.Servers {
		present[string(s.ID)] = true
	}
	for _, founder := range r.o.Identity.Founders {
		if present[founder.ServerID] && r.fsm.label(founder.ServerID) == "" {
			missing = append(missing, memberCommand(founder))
		}
	}
	if len(missing) == 0 {
		return
	}
	c, err := r.packer.submit(missing, foreground)
	if err == nil {
		_, err = r.packer.wait(ctx, c)
	}
	if err != nil {
		r.o.Logger.Debug("the members' labels were not recorded", "error", err)
	}
}

func memberCommand(m formation.Member) entry.Command {
	return entry.Command{Kind: entry.KindMember, Body: encodeMemberRecord(m)}
}

// stopLoops ends the loops, and lets no new leadership begin.
func (r *Replica) stopLoops() {
	r.leads.mu.Lock()
	defer r.leads.mu.Unlock()
	r.leads.mu.closed = true
	if r.leads.mu.current != nil {
		r.leads.mu.current.loopCancel()
	}
}
