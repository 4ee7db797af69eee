package raftgroup

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// holdIdleMax is how long the log is held for the receiver of a snapshot that
// shows no progress after its transfer.
const holdIdleMax = 30 * time.Second

// holds are what the receivers of snapshots still need of the log. A hold begins
// before the state is frozen, and goes on when all of it was sent: the receiver
// verifies and adopts it, and has the entries after it still to get. Were the log
// cut meanwhile, the transfer would have been for nothing, and so would the next
// one under the same load. It ends when the receiver's log reaches what every cut
// leaves; or when the receiver shows no progress for holdIdleMax, or this replica
// no longer leads; or when it would keep more than Options.LogBytesMax.
type holds struct {
	r  *Replica
	mu struct {
		sync.Mutex
		of map[raft.ServerID]*hold
	}
}

type hold struct {
	index   uint64    // what the receiver has, or will have
	sending bool      // the transfer is under way
	since   time.Time // of the end of the transfer, or of the last progress after it
}

func newHolds(r *Replica) *holds {
	h := &holds{r: r}
	h.mu.of = make(map[raft.ServerID]*hold)
	return h
}

// begin holds the log from index on for a transfer that begins. A hold for an
// earlier transfer to the same receiver ends.
func (h *holds) begin(to raft.ServerID, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.of[to] = &hold{index: index, sending: true}
}

// sent says that the transfer has ended.
func (h *holds) sent(to raft.ServerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.mu.of[to]; held != nil {
		held.sending, held.since = false, time.Now()
	}
}

func (h *holds) end(to raft.ServerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.mu.of, to)
}

// needs returns the index from which each receiver needs the log.
func (h *holds) needs() map[raft.ServerID]uint64 {
	lead := h.r.leading()
	h.mu.Lock()
	defer h.mu.Unlock()
	now, needs := time.Now(), make(map[raft.ServerID]uint64, len(h.mu.of))
	for id, held := range h.mu.of {
		if !held.sending {
			if lead == nil {
				delete(h.mu.of, id)
				continue
			}
			if match := h.r.match(lead, id); match > held.index {
				held.index, held.since = match, now
			}
			if now.Sub(held.since) > holdIdleMax {
				delete(h.mu.of, id)
				continue
			}
		}
		needs[id] = held.index
	}
	return needs
}

// near ends the hold of index for a receiver that has reached what every cut leaves,
// unless the transfer is still under way.
func (h *holds) near(id raft.ServerID, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.mu.of[id]; held != nil && held.index == index && !held.sending {
		delete(h.mu.of, id)
	}
}

// exceed ends the hold of index, which has become too long. One for a transfer that
// has begun since goes on.
func (h *holds) exceed(id raft.ServerID, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.mu.of[id]; held != nil && held.index == index {
		delete(h.mu.of, id)
	}
}

// clamp returns how far a cut up to high may go. The caller holds the guard's
// lock.
func (h *holds) clamp(t *logTail, needs map[raft.ServerID]uint64, high uint64) uint64 {
	if h.r.o.unsafe.noClamp {
		return high
	}
	wanted := high
	for id, index := range needs {
		switch {
		case index > wanted:
			h.near(id, index)
		case t.bytesAfter(index) > h.r.o.LogBytesMax:
			h.r.o.Logger.Warn("the log is not held any longer for the receiver of a snapshot",
				"receiver", id, "index", index, "log bytes max", h.r.o.LogBytesMax)
			h.exceed(id, index)
		default:
			high = min(high, index-1)
		}
	}
	return high
}

// trailingBytes is how much of the newest log every cut leaves: as much as is
// cheaper to send than a copy of the store, within bounds. A replica that was away
// for less needs no copy.
func (r *Replica) trailingBytes() int64 {
	most := max(r.o.LogBytesMax/2, r.o.TrailingLogBytes)
	return min(max(r.o.Store.DiskUsage()/2, r.o.TrailingLogBytes), most)
}
