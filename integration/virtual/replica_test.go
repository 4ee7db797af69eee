package virtual

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/transport"
)

// A replica is one member, or former or future member, through all of its lives.
type replica struct {
	w        *world
	member   formation.Member
	founders []formation.Member
	log      logstore.LogStore
	// turn is held by whoever starts or stops it. A channel: a mutex that is held
	// across a wait would stop virtual time.
	turn chan struct{}

	mu struct {
		sync.Mutex
		store *store.Mem
		life  *life // nil: it does not run
		lives int
		off   bool // its host has no power
		gone  bool // it left the group, and is not started again
	}
}

// A life is a replica from its start to its end.
type life struct {
	of       *replica
	name     string
	raft     *raftgroup.Replica
	store    *store.Mem
	disk     *disk
	witness  *witness
	messages *messages
	streams  *streams
	// doomed: it was crashed, or its disk fails, so that it may stop.
	doomed atomic.Bool
}

func (w *world) newReplica(number int, founders []formation.Member) *replica {
	log, err := logstore.Open(logstore.KindMemory, "", logstore.Options{})
	if err != nil {
		panic(err)
	}
	r := &replica{w: w, member: memberNumber(number), founders: founders, log: log, turn: make(chan struct{}, 1)}
	r.mu.store = store.NewMem()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.replicas = append(w.mu.replicas, r)
	return r
}

func memberNumber(i int) formation.Member {
	return formation.Member{Label: fmt.Sprintf("r%d", i), ServerID: fmt.Sprintf("r%d.%04x", i, i*7919), Address: fmt.Sprintf("host-%d:1", i)}
}

// alive returns the present life, or nil.
func (r *replica) alive() *life {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.life
}

// start starts the replica if it does not run.
func (r *replica) start() {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	r.mu.Lock()
	idle := r.mu.life == nil && !r.mu.gone && !r.w.ended.Load()
	r.mu.lives++
	l := &life{of: r, name: fmt.Sprintf("%s/%d", r.member.Label, r.mu.lives), store: r.mu.store}
	r.mu.Unlock()
	if !idle {
		return
	}
	w := r.w
	l.disk = newDisk(r.log, w.plan.diskTakes(w.draw(100)), w.plan.seed+uint64(r.mu.lives))
	l.witness = &witness{StateMachine: w.flavour.machine(), w: w, name: l.name}
	l.messages, l.streams = newMessages(w, r.member.Address), newStreams(w, r.member.Address)
	o := r.options(l)
	var err error
	if l.raft, err = raftgroup.Open(o); err != nil {
		w.failf("%s does not start: %v", l.name, err)
		return
	}
	l.raft.WhileLeader("count", func(ctx context.Context) {
		w.tally.leaderships.Add(1)
		<-ctx.Done()
	})
	w.note("%s starts at %d", l.name, l.raft.Status().AppliedIndex)
	r.mu.Lock()
	r.mu.life, r.mu.off = l, false
	r.mu.Unlock()
	w.mu.Lock()
	orphans := w.mu.orphans[r.member.Address]
	delete(w.mu.orphans, r.member.Address)
	w.mu.Unlock()
	for _, c := range orphans {
		c.in.fail(errUnreachable)
	}
}

func (r *replica) options(l *life) raftgroup.Options {
	w := r.w
	level := hclog.Off
	if os.Getenv("SHOAL_VIRTUAL_LOG") != "" {
		level = hclog.Debug
	}
	skew := time.Duration(w.draw(2*int(w.plan.skewMax)+1)) - w.plan.skewMax
	return raftgroup.Options{
		Identity:  formation.Identity{Label: r.member.Label, ServerID: r.member.ServerID, Founders: r.founders},
		Store:     l.store,
		Log:       l.disk,
		Machine:   l.witness,
		Advertise: r.member.Address,
		Timeout:   w.plan.timeout,
		Clock:     func() time.Time { return time.Now().Add(skew) },
		Logger:    hclog.New(&hclog.LoggerOptions{Name: l.name, Level: level, TimeFn: time.Now}),
		Transport: l.transport,
		OnFatal:   func(err error) { l.stopped(err) },

		EntryBytesMax:      w.plan.entryBytes,
		AppendBytesMax:     4 << 10,
		SnapshotLogEntries: w.plan.snapshotEntries,
		TrailingLogBytes:   w.plan.trailingBytes,
		CacheBytesMax:      8 << 10,
		StallLimit:         w.plan.stallLimit,
	}
}

func (l *life) transport() raft.Transport {
	if !l.of.w.plan.streams {
		return l.messages
	}
	inner := transport.Network(l.streams, rpcTimeout, hclog.NewNullLogger()).(*raft.NetworkTransport)
	return &watchedTransport{inner, l.of.w}
}

// A watchedTransport is Raft's network transport, whose leaders are noted.
type watchedTransport struct {
	*raft.NetworkTransport
	w *world
}

// AppendEntries implements raft.Transport.
func (t *watchedTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.w.leads(args)
	return t.NetworkTransport.AppendEntries(id, target, args, resp)
}

// InstallSnapshot implements raft.Transport.
func (t *watchedTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.w.sends(args)
	return t.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
}

// stopped is OnFatal: the process exits, and its supervisor starts it again.
func (l *life) stopped(err error) {
	w := l.of.w
	if !l.doomed.Load() {
		w.failf("%s stopped by itself: %v", l.name, err)
	}
	w.note("%s stopped: %v", l.name, err)
	if l.of.end(l, wayKilled) {
		w.tally.failStops.Add(1)
		time.Sleep(time.Duration(w.draw(2000)) * time.Millisecond) // virtual
		l.of.start()
	}
}

// A way is how a life ends.
type way uint8

const (
	wayKilled   way = iota // the process
	wayPowerOff            // the host, without a word to anybody
	wayClosed              // in order
)

// end ends a life, if it is the present one, and returns when nothing of it is
// left but the replica's log, and of its store what was durable and perhaps more.
func (r *replica) end(l *life, how way) bool {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if l == nil || r.alive() != l {
		return false
	}
	w := r.w
	if how != wayClosed {
		l.doomed.Store(true)
		l.disk.kill()
		r.cutOff(l, how)
	}
	// What follows is after the end, except for a close in order.
	unsynced := l.store.Unsynced()
	next := l.store.Crash(w.draw(unsynced + 1))
	w.note("%s ends (%d), %d batches unsynced", l.name, how, unsynced)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	if err := l.raft.Close(ctx); err != nil {
		w.failf("close %s: %v", l.name, err)
	}
	if took := time.Since(began); took > 30*time.Second {
		w.failf("close of %s took %v", l.name, took)
	}
	if how == wayClosed {
		next = l.store.Crash(w.draw(l.store.Unsynced() + 1))
		l.disk.kill()
		r.cutOff(l, wayKilled)
	}
	time.Sleep(time.Millisecond) // virtual: whoever just reads is done
	if n := l.store.OpenReaders(); n > 0 {
		w.failf("%s leaves %d readers of its store open", l.name, n)
	}
	r.mu.Lock()
	r.mu.store, r.mu.life = next, nil
	r.mu.Unlock()
	return true
}

// cutOff ends the connections of a life.
func (r *replica) cutOff(l *life, how way) {
	l.messages.kill()
	if how != wayPowerOff {
		l.streams.kill()
		return
	}
	r.mu.Lock()
	r.mu.off = true
	r.mu.Unlock()
	orphans := l.streams.powerOff()
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	for c := range orphans {
		r.w.mu.orphans[r.member.Address] = append(r.w.mu.orphans[r.member.Address], c)
	}
}

// retire stops a replica that left the group, for good.
func (r *replica) retire() {
	r.mu.Lock()
	r.mu.gone = true
	r.mu.Unlock()
	r.end(r.alive(), wayClosed)
}
