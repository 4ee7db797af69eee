package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const (
	// InFlightDefault is how many puts an import has outstanding.
	InFlightDefault = 128
	// inFlightBytesMax bounds the values that are in memory, and so how long one
	// waits for those before it: a slow disk must write them all in the time that
	// one put may take. At least one value of the greatest size fits.
	inFlightBytesMax = 16 << 20
	laneDepth        = 4
)

// A Source yields the records to import, one after the other, from one
// goroutine. It is a directory or a file of JSON lines.
type Source interface {
	// Each calls yield for each record. An error of yield ends it.
	Each(ctx context.Context, live *Live, yield func(Item) error) error
}

// An Item is one record that a Source found.
type Item struct {
	Name string // where it was found, for messages
	Key  []byte
	Size int64                  // of the value in bytes, as far as known before Load
	Load func() ([]byte, error) // called once, from another goroutine
	// Problem says why the record can't be imported; Key and Load do not count.
	Problem error
	// progress is how far the source is once this item is done.
	progress uint64
}

// ImportOptions say how to import.
type ImportOptions struct {
	InFlight int // puts outstanding at most; 0: InFlightDefault
	// Skipped is told of each record that is not imported, and why; also of what an
	// export left behind, which is not counted. It is called by one goroutine at a
	// time.
	Skipped func(name string, why error)
}

// An ImportResult says what an import did.
type ImportResult struct {
	Keys    uint64  `json:"keys"`
	Bytes   uint64  `json:"bytes"` // of the values
	Seconds float64 `json:"seconds"`
	Skipped uint64  `json:"skipped"` // records that could not be imported
	// Links counts the links, sockets and other files in a directory that are no
	// regular files; they are not kept, and are not failures.
	Links uint64 `json:"links"`
}

// Import puts every record of src. Records of one key are put in the order of
// the source, so that the last one stands. What can't be imported is skipped.
// On an error the result says what was imported until then; an import may
// always be repeated.
func Import(ctx context.Context, to Putter, src Source, o ImportOptions, live *Live) (ImportResult, error) {
	if o.InFlight <= 0 {
		o.InFlight = InFlightDefault
	}
	if o.Skipped == nil {
		o.Skipped = func(string, error) {}
	}
	start := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	im := &importer{
		to: to, o: o, live: live, cancel: cancel,
		seed: maphash.MakeSeed(), budget: semaphore.NewWeighted(inFlightBytesMax),
		lanes: make([]chan Item, o.InFlight),
	}
	var wg sync.WaitGroup
	for i := range im.lanes {
		im.lanes[i] = make(chan Item, laneDepth)
		wg.Go(func() { im.drain(ctx, im.lanes[i]) })
	}
	err := src.Each(ctx, live, func(it Item) error { return im.dispatch(ctx, it) })
	for _, lane := range im.lanes {
		close(lane)
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	return ImportResult{
		Keys: live.Keys(), Bytes: live.Bytes(), Seconds: time.Since(start).Seconds(),
		Skipped: im.mu.skipped, Links: im.mu.links,
	}, err
}

// An importer is one Import in progress. Each lane is served by one goroutine,
// and a key always takes the same lane.
type importer struct {
	to     Putter
	o      ImportOptions
	live   *Live
	cancel context.CancelCauseFunc
	seed   maphash.Seed
	budget *semaphore.Weighted // of bytes in memory
	lanes  []chan Item

	mu struct {
		sync.Mutex
		skipped, links uint64
	}
}

// Problems of what is left out of an import without being a failure.
var (
	errNotRegular = errors.New("not a regular file: links are not kept")
	errLeftover   = errors.New("an export that was killed left it behind, with files that may be cut off; remove it, unless that export still runs")
)

func (im *importer) dispatch(ctx context.Context, it Item) error {
	if it.Problem == nil {
		it.Problem = checkLimits(it.Key, it.Size)
	}
	if it.Problem != nil {
		im.skip(it, it.Problem)
		return nil
	}
	if err := im.budget.Acquire(ctx, it.Size); err != nil {
		return err
	}
	lane := im.lanes[maphash.Bytes(im.seed, it.Key)%uint64(len(im.lanes))]
	select {
	case lane <- it:
		return nil
	case <-ctx.Done():
		im.budget.Release(it.Size)
		return ctx.Err()
	}
}

// drain puts the items of one lane, in order. After a failure it only empties
// the lane.
func (im *importer) drain(ctx context.Context, lane <-chan Item) {
	for it := range lane {
		if ctx.Err() == nil {
			if err := im.put(ctx, it); err != nil {
				im.cancel(fmt.Errorf("%s: %w", it.Name, err))
			}
		}
		im.budget.Release(it.Size)
	}
}

func (im *importer) put(ctx context.Context, it Item) error {
	value, err := it.Load()
	if err == nil {
		err = checkLimits(it.Key, int64(len(value)))
	}
	if err != nil {
		im.skip(it, err)
		return nil
	}
	if err := im.to.Put(ctx, it.Key, value); errors.Is(err, ErrSkip) {
		im.skip(it, err)
		return nil
	} else if err != nil {
		return err
	}
	im.live.add(len(value))
	im.advance(it)
	return nil
}

func (im *importer) skip(it Item, why error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.advance(it)
	if errors.Is(why, errNotRegular) {
		im.mu.links++
		return
	}
	if !errors.Is(why, errLeftover) {
		im.mu.skipped++
	}
	im.o.Skipped(it.Name, why)
}

// advance moves the progress: by one for items that are counted, else to where
// the source stands.
func (im *importer) advance(it Item) {
	if it.progress == 0 {
		im.live.done.Add(1)
		return
	}
	for {
		now := im.live.done.Load()
		if it.progress <= now || im.live.done.CompareAndSwap(now, it.progress) {
			return
		}
	}
}

func checkLimits(key []byte, size int64) error {
	if err := shardcfg.CheckKey(key); err != nil {
		return err
	}
	if size > shardcfg.ValueBytesMax {
		return fmt.Errorf("%w: it has %d", shardcfg.ErrValueTooLarge, size)
	}
	return nil
}
