package handoff

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Between fetching and proposing there is room for a bounded number of bytes: what
// a group fetches faster than its log takes in would pile up, and be proposed as one
// list that no queue admits. Pages of copies, of tails and of frozen shards have
// room of their own each, so that none waits for those that matter less.

// kind is what a page is of.
type kind uint8

const (
	kindCopy kind = iota
	kindTail
	kindFrozen // whatever is left of a shard whose clients wait
	kindCount
)

// tailShare is which part of the room of copies tails have, and frozen shards.
const tailShare = 4

// A hand is how many bytes of each kind are at hand or on their way.
type hand [kindCount]int

// atHand is a page that was fetched, with what it was asked for.
type atHand struct {
	kvfsm.Page
	wanted kvfsm.Want
	bytes  int
}

// want is a Want with its priority.
type want struct {
	kvfsm.Want
	urgent bool // the holder is frozen
}

func (w *want) kind() kind {
	switch {
	case w.urgent:
		return kindFrozen
	case w.Cursor.Tail:
		return kindTail
	}
	return kindCopy
}

// source is what a receiver's leader remembers of a group that it fetches from.
type source struct {
	// lanes are the Fetches under way, one of each kind: so no long copy stands in the
	// way of a tail, which grows meanwhile, or of a frozen shard, whose clients wait.
	lanes [kindCount]lane
	// after is the last shard of each kind that was answered: the next Fetch goes on
	// behind it, so that shards take turns. It is not the last that was asked for, because an
	// answer may have room for the first only.
	after [kindCount]shardcfg.ShardID
	// heardAt is when it last invited this group.
	heardAt time.Duration
	// slow is how often the patience with it was doubled, and the pages halved: over a
	// slow link a page that takes longer than its Fetch may would never arrive (INV-5).
	slow int
}

type lane struct {
	fetch uint64 // its number; 0: none under way
	begun time.Duration
	until time.Duration // then it counts as lost
	bytes int           // what it may bring
}

// slowMax bounds source.slow: a Fetch is given up to 32 times as long.
const slowMax = 5

// pageBytes bounds the next page, patience the wait for it.
func (s *source) pageBytes(p *Params) int          { return max(p.PageBytes>>s.slow, 1) }
func (s *source) patience(p *Params) time.Duration { return p.FetchTimeout << s.slow }

// fetch makes at most one Fetch per source and lane. The sources take turns, so that
// the room for pages is not always taken by the same.
func (d *Driver) fetch(v *View, due map[shardcfg.Incarnation][]want) {
	for _, src := range d.sources {
		for k, l := range src.lanes {
			d.hand[k] += l.bytes
		}
	}
	list := slices.SortedFunc(maps.Keys(due), shardcfg.Incarnation.Compare)
	next, found := slices.BinarySearchFunc(list, d.lastSource, shardcfg.Incarnation.Compare)
	if found {
		next++
	}
	for _, inc := range slices.Concat(list[next:], list[:next]) {
		src := d.sources[inc]
		if src == nil {
			src = &source{}
			d.sources[inc] = src
		}
		var lanes [kindCount][]want
		for _, w := range due[inc] {
			lanes[w.kind()] = append(lanes[w.kind()], w)
		}
		for k, wants := range lanes {
			if k := kind(k); src.lanes[k].fetch == 0 && len(wants) > 0 && d.hasRoom(k, src.pageBytes(&d.p)) {
				d.fetchLane(v, inc, src, k, wants)
			}
		}
	}
}

// hasRoom reports whether a page of so many bytes may be fetched.
func (d *Driver) hasRoom(k kind, bytes int) bool {
	limit := d.p.AtHandBytesMax
	if k != kindCopy {
		limit /= tailShare
	}
	return d.hand[k] == 0 || d.hand[k]+bytes <= limit
}

// fetchLane makes one Fetch.
func (d *Driver) fetchLane(v *View, from shardcfg.Incarnation, src *source, k kind, wants []want) {
	first, _ := slices.BinarySearchFunc(wants, src.after[k], func(w want, after shardcfg.ShardID) int {
		return int(w.Shard) - int(after) - 1
	})
	wants = slices.Concat(wants[first:], wants[:first])
	wants = wants[:min(len(wants), d.p.FetchShardsMax)]
	rec := v.Record(wants[0].Shard)
	f := Fetch{From: rec.Staging.From, To: d.self.Peer.Incarnation, BytesMax: src.pageBytes(&d.p), Patience: src.patience(&d.p)}
	if f.Replicas = d.addresses(v, f.From, wants); len(f.Replicas) == 0 {
		return
	}
	d.fetches++
	f.Number = d.fetches
	l := lane{fetch: f.Number, begun: d.now, until: d.now + 2*f.Patience, bytes: f.BytesMax}
	for _, w := range wants {
		f.Wants = append(f.Wants, w.Want)
		d.arriving[w.Shard].fetch = f.Number
	}
	d.hand[k] += l.bytes
	src.lanes[k], d.lastSource = l, from
	d.wake(l.until)
	d.actions.Fetches = append(d.actions.Fetches, f)
}

// addresses returns those of a source: as its newest invitation says, else by
// the config. A source that is in neither has nothing to hand over, or will
// invite.
func (d *Driver) addresses(v *View, from kvfsm.Peer, wants []want) []string {
	for _, w := range wants {
		if a := d.arriving[w.Shard]; a.invited && a.from.Peer.Incarnation == from.Incarnation && len(a.from.Replicas) > 0 {
			return a.from.Replicas
		}
	}
	return v.replicas(from)
}

// expireFetches gives up fetches that were not answered.
func (d *Driver) expireFetches() {
	for _, src := range d.sources {
		for k := range src.lanes {
			if l := src.lanes[k]; l.fetch != 0 && d.now >= l.until {
				d.endFetch(src, kind(k))
			}
		}
	}
}

// endFetch frees a lane and its shards.
func (d *Driver) endFetch(src *source, k kind) {
	number := src.lanes[k].fetch
	src.lanes[k] = lane{}
	for _, a := range d.arriving {
		if a.fetch == number {
			a.fetch = 0
		}
	}
}

// endOf frees the lane that a Fetch used, if it still does, and judges by the time
// that it took how patient the next one must be. A source that was not heard
// meanwhile is not slow, but gone. The next goes on behind the pages that came, or
// behind the first that did not.
func (d *Driver) endOf(now time.Duration, f *Fetch, pages int, failed bool) {
	src := d.sources[f.From.Incarnation]
	if src == nil {
		return
	}
	for k, l := range src.lanes {
		if f.Number == 0 || l.fetch != f.Number {
			continue
		}
		took := now - l.begun
		switch {
		case failed && took >= f.Patience && src.heardAt > l.begun:
			src.slow = min(src.slow+1, slowMax)
		case !failed && took < f.Patience/4:
			src.slow = max(src.slow-1, 0)
		}
		if n := min(max(pages, 1), len(f.Wants)); n > 0 {
			src.after[k] = f.Wants[n-1].Shard
		}
		d.endFetch(src, kind(k))
		return
	}
}

// FetchFailed says that a Fetch will not be answered.
func (d *Driver) FetchFailed(now time.Duration, f Fetch) {
	d.endOf(now, &f, 0, true)
	for _, w := range f.Wants {
		if a := d.arriving[w.Shard]; a != nil {
			a.notBefore = max(a.notBefore, now+d.p.InviteEvery)
		}
	}
}

// Fetched takes in the pages that answer a Fetch. Pages may be old or come
// twice: they are proposed only where the cursor is the one that was asked for.
// The slices of pages are kept.
func (d *Driver) Fetched(now time.Duration, f Fetch, pages []kvfsm.Page) {
	d.endOf(now, &f, len(pages), false)
	for i := range pages[:min(len(pages), len(f.Wants))] {
		p, w := pages[i], f.Wants[i]
		a := d.arriving[p.Shard]
		if p.Shard != w.Shard || a == nil {
			continue
		}
		a.show(f.From.Incarnation, p.Mark)
		switch {
		case p.NotYours, p.Mark != w.Mark:
			// Past it, which show notes; or a replica that has not got there yet.
			a.notBefore = max(a.notBefore, now+d.p.TailPoll)
		case !p.Last && len(p.Items) == 0 && p.Next.Equal(w.Cursor):
			// The tail is empty. Look again soon, or when an invitation says that the
			// holder froze: unless it did so while this page travelled.
			a.notBefore = now + d.p.TailPoll
			if a.invited && a.inv.Phase == kvfsm.PhaseFrozen {
				a.notBefore = now + time.Millisecond
			}
		default:
			a.page = &atHand{Page: p, wanted: w, bytes: p.Bytes()}
		}
	}
}
