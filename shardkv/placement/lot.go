package placement

import (
	"container/list"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Lot is where requests wait for shards that are frozen, or not installed yet.
// To wake one carries nothing: it looks at its shards again.
//
// The order that loses no wake-up: enter, look at the shards, wait.
type Lot[T any] struct {
	// shards have the tickets that wait for each, in the order in which they came.
	shards  map[shardcfg.ShardID]*list.List
	tickets *list.List
	bytes   int64

	ticketsMax int
	bytesMax   int64
}

// A Ticket is one parked request.
type Ticket[T any] struct {
	Value T
	bytes int64
	among *list.Element // of all tickets
	bays  []bay
}

// A bay is a ticket's place among those that wait for a shard.
type bay struct {
	shard shardcfg.ShardID
	place *list.Element
}

// NewLot returns an empty one for at most so many requests, of so many bytes
// together; a single request of any size has room.
func NewLot[T any](ticketsMax int, bytesMax int64) *Lot[T] {
	return &Lot[T]{shards: map[shardcfg.ShardID]*list.List{}, tickets: list.New(), ticketsMax: ticketsMax, bytesMax: bytesMax}
}

// Enter parks a request of n bytes on shards (not kept, duplicates allowed), or
// reports false if the lot is full.
func (l *Lot[T]) Enter(v T, shards []shardcfg.ShardID, n int64) (*Ticket[T], bool) {
	if l.Count() >= l.ticketsMax || l.Count() > 0 && l.bytes+n > l.bytesMax {
		return nil, false
	}
	t := &Ticket[T]{Value: v, bytes: n, bays: make([]bay, len(shards))}
	t.among = l.tickets.PushBack(t)
	l.bytes += n
	for i, s := range shards {
		waiting := l.shards[s]
		if waiting == nil {
			waiting = list.New()
			l.shards[s] = waiting
		}
		t.bays[i] = bay{s, waiting.PushBack(t)}
	}
	return t, true
}

// Leave takes a ticket out, once.
func (l *Lot[T]) Leave(t *Ticket[T]) {
	l.tickets.Remove(t.among)
	l.bytes -= t.bytes
	for _, b := range t.bays {
		waiting := l.shards[b.shard]
		if waiting.Remove(b.place); waiting.Len() == 0 {
			delete(l.shards, b.shard)
		}
	}
}

// Wake calls wake for the requests that wait for one of the shards, in the order
// in which they came for each; for one that waits for several perhaps more than
// once. wake must leave the Lot alone.
func (l *Lot[T]) Wake(shards []shardcfg.ShardID, wake func(T)) {
	for _, s := range shards {
		if waiting := l.shards[s]; waiting != nil {
			wakeList(waiting, wake)
		}
	}
}

// WakeAll calls wake for every request, in the order in which they came: the
// role or the config changed. wake must leave the Lot alone.
func (l *Lot[T]) WakeAll(wake func(T)) { wakeList(l.tickets, wake) }

func wakeList[T any](waiting *list.List, wake func(T)) {
	for e := waiting.Front(); e != nil; e = e.Next() {
		wake(e.Value.(*Ticket[T]).Value)
	}
}

// Count returns the number of parked requests.
func (l *Lot[T]) Count() int { return l.tickets.Len() }
