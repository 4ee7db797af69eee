package shardkv

import (
	"slices"
	"sync"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
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

	// dirty is what entries applied but not yet visible changed.
	dirty placement.Changes
	err   error // of reading the store in Applied; the next Apply stops the replica

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
		w.dirty.Note(c, results[i])
	}
	return results, nil
}

// Reset makes both machines forget what they cached, and publishes everything.
func (w *watched) Reset(r store.Reader) error {
	if err := w.Machine.Reset(r); err != nil {
		return err
	}
	w.dirty.Clear()
	defer w.announce()
	return w.publishAll(r)
}

// Applied publishes what the entries up to index changed.
func (w *watched) Applied(index uint64) {
	w.Machine.Applied(index)
	if !w.dirty.Any() {
		return
	}
	if w.dirty.Adopted {
		w.err = w.publishAll(w.store)
	} else {
		slices.Sort(w.dirty.Shards)
		w.dirty.Shards = slices.Compact(w.dirty.Shards)
		w.err = w.publish(w.store, w.dirty.Shards)
	}
	w.dirty.Clear()
	w.announce()
}

// publish publishes the records of shards, under the config as it was.
func (w *watched) publish(r store.Reader, shards []shardcfg.ShardID) error {
	was := w.places.now.Load()
	now := &placed{config: was.config, records: slices.Clone(was.records)}
	for _, s := range shards {
		record, err := kvfsm.ReadRecord(r, s)
		if err != nil {
			return err
		}
		now.records[s] = &record
	}
	w.places.now.Store(now)
	w.parking.wake(shards)
	return nil
}

// publishAll publishes the config and every record, as one value: seen one before
// the other, a shard that leaves would seem to serve still at the config that
// found it leaving, and be offered anew.
func (w *watched) publishAll(r store.Reader) error {
	was := w.places.now.Load()
	now := &placed{config: was.config, records: make([]*kvfsm.Record, len(was.records))}
	records, err := kvfsm.ReadRecords(r)
	if err != nil {
		return err
	}
	for i := range records {
		now.records[records[i].Shard] = &records[i]
	}
	adopted, err := kvfsm.ReadAdopted(r)
	if err != nil {
		return err
	}
	if adopted.Config != nil {
		now.config = adopted.Config
	}
	w.places.now.Store(now)
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
