package shardkv

import (
	"slices"
	"sync"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// A watched is the machine of a group whose changes of placement are published:
// it applies every entry with the machine inside, and once an entry is visible
// it publishes the records and the config that the entry changed and wakes
// whoever waits for them. Writes change no placement and cost it one comparison
// each.
//
// Its methods are called by the applying goroutine only, except watch.
type watched struct {
	*kvfsm.Machine
	places  *places
	parking *parking
	store   store.Store // set before the first Applied

	// dirty are the shards that entries applied but not yet visible changed.
	dirty   []shardcfg.ShardID
	adopted bool  // such an entry adopted a config
	err     error // of reading the store in Applied; the next Apply stops the replica

	changes struct {
		sync.Mutex
		// next is closed at the next change of any record or of the config.
		next chan struct{}
	}
}

var _ raftgroup.StateMachine = (*watched)(nil)

// Apply applies the commands and notes which placements they change.
func (w *watched) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	if w.err != nil {
		return nil, w.err
	}
	results, err := w.Machine.Apply(b, e)
	if err != nil {
		return nil, err
	}
	for i, c := range e.Commands {
		switch c.Kind {
		case kvfsm.KindWrite, kvfsm.KindPrune, kvfsm.KindRaiseFloor, entry.KindNoop, entry.KindRaiseFeature:
			continue
		}
		w.note(c, results[i])
	}
	return results, nil
}

// note remembers what a command changed. A refused install changes its staging
// too: that starts again.
func (w *watched) note(c entry.Command, result any) {
	if v, ok := result.(kvfsm.Verdict); ok && !v.Done && v.Why != kvfsm.ReasonDigest {
		return
	}
	if c.Kind == kvfsm.KindAdopt {
		w.adopted = true
		return
	}
	// The machine has just applied it, so it can be decoded.
	if command, err := kvfsm.Decode(c); err == nil {
		if s, ok := kvfsm.HandoffShard(command); ok {
			w.dirty = append(w.dirty, s)
		}
	}
}

// Reset makes both machines forget what they cached, and publishes everything.
func (w *watched) Reset(r store.Reader) error {
	if err := w.Machine.Reset(r); err != nil {
		return err
	}
	w.dirty, w.adopted = nil, false
	defer w.announce()
	return w.publishAll(r)
}

// Applied publishes what the entries up to index changed.
func (w *watched) Applied(index uint64) {
	w.Machine.Applied(index)
	if len(w.dirty) == 0 && !w.adopted {
		return
	}
	s := w.store
	if w.adopted {
		// A config may change any record: a handoff that is called off.
		w.err = w.publishAll(s)
	} else {
		slices.Sort(w.dirty)
		w.dirty = slices.Compact(w.dirty)
		for _, shard := range w.dirty {
			if err := w.publish(s, shard); err != nil {
				w.err = err
			}
		}
		w.parking.wake(w.dirty)
	}
	w.dirty, w.adopted = w.dirty[:0], false
	w.announce()
}

func (w *watched) publish(r store.Reader, s shardcfg.ShardID) error {
	record, err := kvfsm.ReadRecord(r, s)
	if err == nil {
		w.places.records[s].Store(&record)
	}
	return err
}

func (w *watched) publishAll(r store.Reader) error {
	records, err := kvfsm.ReadRecords(r)
	if err != nil {
		return err
	}
	met := make(map[shardcfg.ShardID]*kvfsm.Record, len(records))
	for i := range records {
		met[records[i].Shard] = &records[i]
	}
	for s := range w.places.records {
		w.places.records[s].Store(met[shardcfg.ShardID(s)])
	}
	adopted, err := kvfsm.ReadAdopted(r)
	if err != nil {
		return err
	}
	if adopted.Config != nil {
		w.places.config.Store(adopted.Config)
	}
	w.parking.wakeAll()
	return nil
}

func newWatched(m *kvfsm.Machine, p *places, k *parking) *watched {
	w := &watched{Machine: m, places: p, parking: k}
	w.changes.next = make(chan struct{})
	return w
}

// watch returns a channel that is closed at the next change. Whoever waits
// takes it first, then looks at the state.
func (w *watched) watch() <-chan struct{} {
	w.changes.Lock()
	defer w.changes.Unlock()
	return w.changes.next
}

func (w *watched) announce() {
	w.changes.Lock()
	defer w.changes.Unlock()
	close(w.changes.next)
	w.changes.next = make(chan struct{})
}
