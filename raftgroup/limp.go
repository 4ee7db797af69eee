package raftgroup

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

const (
	// limpLook is how often a leader looks whether it limps.
	limpLook = time.Second
	// handoverRest is how long a group rests after a leader handed over because it
	// limped, whoever leads then.
	handoverRest = 5 * time.Minute
	// handoverMax bounds one attempt.
	handoverMax = 10 * time.Second
)

// A limping keeps the append times of the present leadership.
type limping struct {
	mu struct {
		sync.Mutex
		times     *appendTimes // nil: this replica does not lead
		appending time.Time    // since when an append is under way; zero: none is
	}
}

func (l *limping) begin() *appendTimes {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.times = newAppendTimes(time.Now())
	return l.mu.times
}

// end ends what began with p, unless the next leadership has begun meanwhile.
func (l *limping) end(p *appendTimes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.times == p {
		l.mu.times = nil
	}
}

// append notes that an append to the own log begins; the returned function that it
// has ended.
func (l *limping) append() (done func()) {
	begin := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.appending = begin
	return func() {
		now := time.Now()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mu.appending = time.Time{}
		if l.mu.times != nil {
			l.mu.times.appended(now, now.Sub(begin))
		}
	}
}

// answered notes a follower's answer to a message with entries.
func (l *limping) answered(id raft.ServerID, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.times != nil {
		l.mu.times.answered(time.Now(), id, took)
	}
}

// better judges the append times. An append that is under way for long counts with its age.
func (l *limping) better(candidates []raft.ServerID) (limp, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.times == nil {
		return limp{}, false
	}
	now := time.Now()
	if since := l.mu.appending; !since.IsZero() && now.Sub(since) >= limpLook {
		l.mu.times.appended(now, now.Sub(since))
	}
	return l.mu.times.better(now, candidates)
}

// watchLimp hands leadership over when this replica limps. It ends with the
// leadership.
func (r *Replica) watchLimp(lead *leadership) {
	defer r.limping.end(r.limping.begin())
	look := time.NewTicker(limpLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-lead.loopCtx.Done():
			return
		}
		found, limps := r.limping.better(r.otherVoters(lead))
		if !limps {
			continue
		}
		if err := r.handOverTo(lead, found); err != nil {
			r.o.Logger.Info("this leader limps, and could not hand over", "error", err)
		}
	}
}

// otherVoters are those that answer.
func (r *Replica) otherVoters(lead *leadership) (ids []raft.ServerID) {
	for _, s := range lead.node.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != r.o.Identity.ServerID && r.healthy(s.ID) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// handOverTo transfers leadership, unless the group has seen that lately. It is
// logged first, so that the next leader knows, and leadership does not go round
// among replicas that limp by turns.
func (r *Replica) handOverTo(lead *leadership, found limp) error {
	last, err := readHandover(r.o.Store)
	if err != nil {
		return err
	}
	now := max(r.Clock(), uint64(r.o.Clock().UnixMilli()))
	if last > 0 && now < last+uint64(handoverRest/time.Millisecond) {
		return nil
	}
	r.o.Logger.Warn("this leader limps, and hands over", "own append", found.own, "answer", found.peer, "to", r.labelOf(string(found.to)))
	ctx, cancel := context.WithTimeout(lead.loopCtx, handoverMax)
	defer cancel()
	if _, err := r.Propose(ctx, entry.Command{Kind: entry.KindHandover}); err != nil {
		return fmt.Errorf("log it: %w", err)
	}
	r.counters.handovers.Add(1)
	err = r.Transfer(ctx, string(found.to))
	if lead.ctx.Err() != nil {
		return nil // it has ended, which is all that was wanted
	}
	return err
}

// readHandover returns the entry clock of the last handover, in ms since 1970; 0 if
// there was none.
func readHandover(s store.Reader) (uint64, error) {
	b, ok, err := s.Get(keyHandover)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read the last handover: %w", err)
	case !ok:
		return 0, nil
	case len(b) != 8:
		return 0, fmt.Errorf("%w: handover %x", errPosition, b)
	}
	return binary.BigEndian.Uint64(b), nil
}
