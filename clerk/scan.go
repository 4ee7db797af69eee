package clerk

import (
	"bytes"
	"context"
	"iter"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Page is a part of one shard, as it was at one moment.
type Page struct {
	Entries []Entry // in ascending order of key
	// Next continues after the page.
	Next Cursor
	// Done: there is nothing after the page.
	Done bool
}

// Scan yields the records whose keys begin with prefix (empty: all), shard by
// shard, in ascending order of key within a shard; with Ordered, in ascending order
// of key. A page of a shard is one moment of it; pages are of different moments. A
// key that is present throughout is yielded exactly once, also while shards move. A
// prefix that contains a complete {hash tag} reads one shard only.
//
// The groups are asked side by side, each for all of its shards at once, and up to
// 32 MiB are read ahead.
//
// On failure it yields the error, matching ErrNotDone, and ends; the cursor of
// the last entry continues it. Each page has the deadline that a call has: ctx
// bounds the whole scan, if it has a deadline, else Config.Timeout each page.
func (c *Clerk) Scan(ctx context.Context, prefix []byte, options ...ScanOption) iter.Seq2[Entry, error] {
	o := collectScan(options)
	prefix, o.from.After = bytes.Clone(prefix), bytes.Clone(o.from.After)
	return func(yield func(Entry, error) bool) {
		walk, err := c.walk(ctx, prefix, o.from, o.ordered)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		g := c.gather(ctx, prefix, o, o.pageRecords(o.limit), partsOf(walk, o.ordered))
		defer g.running.Wait()
		defer cancel()
		left := o.limit
		for e, err := range g.all(o.ordered) {
			if !yield(e, err) || err != nil {
				return
			}
			if left--; left == 0 {
				return
			}
		}
	}
}

// ScanPage returns one page of a Scan from a cursor. An empty page that is not
// Done is possible. Ordered has no effect on it: it reads one shard.
func (c *Clerk) ScanPage(ctx context.Context, prefix []byte, from Cursor, options ...ScanOption) (Page, error) {
	o := collectScan(options)
	prefix, from.After = bytes.Clone(prefix), bytes.Clone(from.After)
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	walk, err := c.walk(ctx, prefix, from, false)
	if err != nil {
		return Page{}, err
	}
	g := c.gather(ctx, prefix, o, o.pageRecords(o.limit), []part{{shard: walk.Shard, after: walk.After}})
	defer g.running.Wait()
	g.plan(0)
	g.take(<-g.answers, 0)
	p := &g.parts[0]
	if p.err != nil {
		return Page{}, p.err
	}
	page := Page{Entries: p.entries, Done: walk.Turn(p.after, p.end)}
	page.Next = Cursor{Shard: walk.Shard, After: walk.After}
	return page, nil
}

func collectScan(options []ScanOption) (o scanOptions) {
	for _, set := range options {
		set(&o)
	}
	return o
}

// pageRecords is how many records an answer may bring at most, if left are wanted;
// 0: as many as the server likes.
func (o *scanOptions) pageRecords(left int) int {
	const most = 1 << 30
	if left > 0 && (o.pageLimit == 0 || left < int(o.pageLimit)) {
		return min(left, most)
	}
	return int(min(o.pageLimit, most))
}

// walk returns the way through the shards, once their number is known.
func (c *Clerk) walk(ctx context.Context, prefix []byte, from Cursor, ordered bool) (route.Walk, error) {
	fail := func(detail string) (route.Walk, error) {
		return route.Walk{}, &Error{Op: "scan", Key: prefix, Family: FamilyNotDone, Cause: ErrInvalid, Detail: detail}
	}
	if len(prefix) > shardcfg.KeyBytesMax {
		return fail(shardcfg.ErrKeyTooLong.Error())
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	count, err := c.knownShards(ctx)
	if err != nil {
		return route.Walk{}, err
	}
	if ordered {
		from.Shard = 0
		if route.Tagged(prefix) {
			from.Shard = shardcfg.ShardOf(prefix, count)
		}
	}
	walk, ok := route.NewWalk(prefix, count, from.Shard, from.After)
	if !ok {
		return fail("the cursor is not of this cluster and prefix")
	}
	return walk, nil
}

// partsOf are the shards that are left of a walk. Ordered, each begins behind the key
// that was reached.
func partsOf(walk route.Walk, ordered bool) []part {
	var parts []part
	for done := false; !done; done = walk.Turn(nil, true) {
		p := part{shard: walk.Shard, after: walk.After}
		if ordered && len(parts) > 0 {
			p.after = parts[0].after
		}
		parts = append(parts, p)
	}
	return parts
}

// all yields the parts' entries: part by part, or merged by their keys.
func (g *gathering) all(ordered bool) iter.Seq2[Entry, error] {
	if ordered {
		return g.merged()
	}
	return func(yield func(Entry, error) bool) {
		for i := range g.parts {
			for {
				entries, err := g.next(i)
				if err != nil {
					yield(Entry{}, err)
					return
				}
				if len(entries) == 0 {
					break
				}
				for _, e := range entries {
					if !yield(e, nil) {
						return
					}
				}
			}
		}
	}
}

// knownShards waits until the shard count is known.
func (c *Clerk) knownShards(ctx context.Context) (int, error) {
	for {
		changed := c.table.changes()
		if n := c.table.shardCount(); n > 0 {
			return n, nil
		}
		c.refresh.want()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, &Error{Op: "scan", Family: FamilyNotDone, Cause: ended(ctx), Detail: "the cluster's shards are not known"}
		case <-c.life.Done():
			return 0, &Error{Op: "scan", Family: FamilyNotDone, Cause: ErrClosed}
		}
	}
}
