package clerk

import (
	"bytes"
	"context"
	"iter"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
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
// shard, in ascending order of key within a shard. A page of a shard is one
// moment of it; pages are of different moments. A key that is present
// throughout is yielded exactly once, also while shards move. A prefix that
// contains a complete {hash tag} reads one shard only.
//
// On failure it yields the error, matching ErrNotDone, and ends; the cursor of
// the last entry continues it. Each page has the deadline that a call has: ctx
// bounds the whole scan, if it has a deadline, else Config.Timeout each page.
func (c *Clerk) Scan(ctx context.Context, prefix []byte, options ...ScanOption) iter.Seq2[Entry, error] {
	var o scanOptions
	for _, set := range options {
		set(&o)
	}
	prefix = bytes.Clone(prefix)
	return func(yield func(Entry, error) bool) {
		cursor, left := o.from, o.limit
		for {
			page, err := c.page(ctx, prefix, cursor, o, left)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			left -= len(page.Entries)
			if page.Done || o.limit > 0 && left <= 0 {
				return
			}
			cursor = page.Next
		}
	}
}

// ScanPage returns one page of a Scan from a cursor. An empty page that is not
// Done is possible.
func (c *Clerk) ScanPage(ctx context.Context, prefix []byte, from Cursor, options ...ScanOption) (Page, error) {
	var o scanOptions
	for _, set := range options {
		set(&o)
	}
	return c.page(ctx, bytes.Clone(prefix), from, o, o.limit)
}

// page reads the next page. left bounds the entries, if o.limit is set.
func (c *Clerk) page(ctx context.Context, prefix []byte, from Cursor, o scanOptions, left int) (Page, error) {
	if len(prefix) > shardcfg.KeyBytesMax {
		return Page{}, &Error{Op: "scan", Key: prefix, Family: FamilyNotDone, Cause: ErrInvalid, Detail: shardcfg.ErrKeyTooLong.Error()}
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	count, err := c.knownShards(ctx)
	if err != nil {
		return Page{}, err
	}
	walk, ok := route.NewWalk(prefix, count, from.Shard, from.After)
	if !ok {
		return Page{}, &Error{Op: "scan", Key: prefix, Family: FamilyNotDone, Cause: ErrInvalid,
			Detail: "the cursor is not of this cluster and prefix"}
	}
	r := &kvpb.ScanRequest{
		Cluster: c.table.clusterBytes(), Prefix: prefix, Limit: o.pageLimit, KeysOnly: o.keysOnly,
		From: []*kvpb.ScanFrom{{Shard: uint32(walk.Shard), After: walk.After}},
	}
	if o.limit > 0 && (r.Limit == 0 || uint32(min(left, 1<<30)) < r.Limit) {
		r.Limit = uint32(min(left, 1<<30))
	}
	found, err := c.scanShard(ctx, prefix, walk.Op(), r)
	if err != nil {
		return Page{}, err
	}
	var page Page
	var last []byte
	for _, rec := range found.GetRecords() {
		last = rec.GetKey()
		page.Entries = append(page.Entries, Entry{Key: last, Value: rec.GetValue(), Version: Version(rec.GetVersion()), Shard: walk.Shard})
	}
	page.Done = walk.Turn(last, found.GetEnd())
	page.Next = Cursor{Shard: walk.Shard, After: walk.After}
	return page, nil
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

// scanShard asks for the page of one shard, wherever it is.
func (c *Clerk) scanShard(ctx context.Context, prefix []byte, op route.Op, r *kvpb.ScanRequest) (*kvpb.ScanPage, error) {
	var page *kvpb.ScanPage
	w := &call{name: "scan", key: prefix, route: op}
	w.send = func(caller context.Context, addr string) (e ending) {
		ctx, drop := c.whileOpen(caller)
		defer drop()
		l, err := c.pool.lane(addr)
		if err != nil {
			return ending{lost: err.Error()}
		}
		ctx, cancel := c.pool.attend(ctx, addr, holdMin+answerGrace, l.probe)
		defer cancel()
		conn, err := c.pool.ready(ctx, addr)
		var reply *kvpb.ScanResponse
		if err == nil {
			r.TimeoutMs = uint32(holdMin.Milliseconds())
			reply, err = kvpb.NewKVClient(conn).Scan(ctx, r)
		}
		if err != nil {
			return ending{lost: reason(ctx, err).Error(), sent: true, abandoned: c.over(caller) != nil}
		}
		if len(reply.GetPages()) == 0 {
			return answer(reply.GetOutcome(), reply.GetLeader(), 0)
		}
		page = reply.GetPages()[0]
		return answer(page.GetOutcome(), reply.GetLeader(), 0)
	}
	if err := c.acquire(ctx, w); err != nil {
		return nil, err
	}
	defer w.release()
	if err := c.drive(ctx, w); err != nil {
		return nil, err
	}
	return page, nil
}
