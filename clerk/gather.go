package clerk

import (
	"bytes"
	"context"
	"sync"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	// gatherRequestsMax bounds the requests of one scan that are under way; there
	// is one at most for each group.
	gatherRequestsMax = 32
	// gatherBytesMax bounds what a scan reads ahead of its caller, and
	// gatherGroupBytesMax what of one group, each by an answer more.
	gatherBytesMax      = 32 << 20
	gatherGroupBytesMax = 512 << 10
	// gatherAnswerBytes is about what an answer may bring, and a request may take.
	gatherAnswerBytes = 1 << 20
)

// A gathering is the reading side of one scan. It asks each group for pages of all
// the shards that the group has, side by side with the others, and keeps what comes
// until its turn. The caller's goroutine owns it; each request runs in one of its own.
type gathering struct {
	c      *Clerk
	ctx    context.Context
	prefix []byte
	o      scanOptions
	limit  int // records that an answer may bring; 0: the server's own bound

	parts []part // by shard, ascending
	bytes int    // in all parts
	// planned is what bytes was when requests were last made.
	planned int
	// asked are the groups that a request is under way to, failed those that gave no
	// answer to the last one: they are asked when it is their turn.
	asked, failed map[route.Ward]bool
	answers       chan *asking
	running       sync.WaitGroup
}

// A part is how far the scan of one shard is.
type part struct {
	shard   shardcfg.ShardID
	after   []byte  // what was read; the next page begins behind it
	entries []Entry // that were read and not yielded yet
	bytes   int     // of those
	asked   bool    // a request for it is under way
	end     bool    // nothing is behind after
	err     error   // why there is no page
}

// An asking is one request, and what came of it.
type asking struct {
	ward  route.Ward
	parts []*part
	// due: the first part was waited for when it was asked for.
	due   bool
	pages map[shardcfg.ShardID]*kvpb.ScanPage
	err   error // why there is no page of the first part
}

// gather begins to read the parts.
func (c *Clerk) gather(ctx context.Context, prefix []byte, o scanOptions, limit int, parts []part) *gathering {
	return &gathering{
		c: c, ctx: ctx, prefix: prefix, o: o, limit: limit, parts: parts,
		asked: map[route.Ward]bool{}, failed: map[route.Ward]bool{}, answers: make(chan *asking, gatherRequestsMax+1),
	}
}

// next returns the entries of a part that come next, waiting for them; none: the
// part has ended. They are the caller's.
func (g *gathering) next(i int) ([]Entry, error) {
	p := &g.parts[i]
	for {
		switch {
		case len(p.entries) > 0:
			entries := p.entries
			g.bytes -= p.bytes
			p.entries, p.bytes = nil, 0
			if g.planned-g.bytes >= gatherGroupBytesMax {
				g.plan(-1)
			}
			return entries, nil
		case p.end:
			return nil, nil
		case p.err != nil:
			return nil, p.err
		}
		g.plan(i)
		g.take(<-g.answers, i)
	}
}

// plan makes the requests that are due: for the part that is waited for, unless it
// is negative, and for others as far ahead as the bounds allow.
func (g *gathering) plan(due int) {
	g.planned = g.bytes
	type wanted struct {
		ward  route.Ward
		bytes int // that were read ahead
		parts []*part
		due   bool
	}
	var groups []*wanted
	of := map[route.Ward]*wanted{}
	wards := g.c.table.wards(g.parts)
	for i := range g.parts {
		p := &g.parts[i]
		if p.end && p.bytes == 0 {
			continue
		}
		w := of[wards[i]]
		if w == nil {
			w = &wanted{ward: wards[i]}
			of[wards[i]] = w
			groups = append(groups, w)
		}
		w.bytes += p.bytes
		if !p.end && !p.asked {
			w.parts = append(w.parts, p)
			w.due = w.due || i == due
		}
	}
	for _, w := range groups {
		ahead := !g.failed[w.ward] && w.bytes < gatherGroupBytesMax && len(g.asked) < gatherRequestsMax &&
			g.bytes+len(g.asked)*gatherAnswerBytes < gatherBytesMax
		if len(w.parts) > 0 && !g.asked[w.ward] && (w.due || ahead) {
			g.ask(w.ward, w.parts, w.due, due)
		}
	}
}

// ask makes one request. The part that is waited for comes first.
func (g *gathering) ask(ward route.Ward, parts []*part, isDue bool, due int) {
	a := &asking{ward: ward, due: isDue}
	if isDue {
		a.parts = append(a.parts, &g.parts[due])
	}
	for _, p := range parts {
		if !isDue || p != &g.parts[due] {
			a.parts = append(a.parts, p)
		}
	}
	froms := make([]*kvpb.ScanFrom, len(a.parts))
	for k, p := range a.parts {
		p.asked = true
		froms[k] = &kvpb.ScanFrom{Shard: uint32(p.shard), After: p.after}
	}
	g.asked[ward] = true
	limit := g.limit
	g.running.Go(func() {
		a.pages, a.err = g.c.fetch(g.ctx, g.prefix, froms, limit, g.o.keysOnly)
		g.answers <- a
	})
}

// take takes in what came of a request, while a part is waited for.
func (g *gathering) take(a *asking, due int) {
	delete(g.asked, a.ward)
	g.failed[a.ward] = a.err != nil
	for _, p := range a.parts {
		p.asked = false
		page := a.pages[p.shard]
		if page == nil {
			continue
		}
		for _, r := range page.GetRecords() {
			p.bytes += len(r.GetKey()) + len(r.GetValue())
			g.bytes += len(r.GetKey()) + len(r.GetValue())
			p.entries = append(p.entries, Entry{Key: r.GetKey(), Value: r.GetValue(), Version: Version(r.GetVersion()), Shard: p.shard})
		}
		if n := len(page.GetRecords()); n > 0 {
			p.after = bytes.Clone(page.GetRecords()[n-1].GetKey()) // the entry's is its caller's
		}
		p.end = page.GetEnd()
	}
	// What failed before it was its turn is tried again then, with the whole of its
	// time.
	if a.err != nil && a.due && a.parts[0] == &g.parts[due] {
		a.parts[0].err = a.err
	}
}

// fetch asks the group of the first shard for pages of it and of those of the others
// that are there too, until there is one of the first. The answer may lack others.
func (c *Clerk) fetch(ctx context.Context, prefix []byte, from []*kvpb.ScanFrom, limit int, keysOnly bool) (map[shardcfg.ShardID]*kvpb.ScanPage, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	pages := map[shardcfg.ShardID]*kvpb.ScanPage{}
	w := &call{name: "scan", key: prefix, route: c.table.opAt(shardcfg.ShardID(from[0].GetShard()))}
	r := &kvpb.ScanRequest{Cluster: c.table.clusterBytes(), Prefix: prefix, Limit: uint32(limit), KeysOnly: keysOnly}
	w.send = func(ctx context.Context, addr string) ending {
		r.From = c.table.sameGroup(&w.route, from, pages)
		reply, lost := c.scan(ctx, addr, r)
		if reply == nil {
			return lost
		}
		if wrong := wrongPages(r, reply); wrong != "" {
			return ending{lost: wrong}
		}
		if len(reply.GetPages()) == 0 {
			return answer(reply.GetOutcome(), reply.GetLeader(), 0)
		}
		for i, page := range reply.GetPages() {
			switch {
			case page.GetOutcome() == nil: // no page, then, and no reason
			case page.GetOutcome().GetCode() == kvpb.Code_OK:
				pages[shardcfg.ShardID(page.GetShard())] = page
			case i > 0 && page.GetOutcome().GetCode() == kvpb.Code_WRONG_GROUP:
				c.table.change(func(t *route.Table) {
					if hint := redirectOf(page.GetOutcome().GetRedirect()); hint != nil {
						t.LearnHint(*hint)
					}
				})
			}
		}
		return answer(reply.GetPages()[0].GetOutcome(), reply.GetLeader(), 0)
	}
	if err := c.acquire(ctx, w); err != nil {
		return nil, err
	}
	defer w.release()
	return pages, c.drive(ctx, w)
}

// wrongPages says why an answer can't be one to a request; empty: it can. A scan that
// believed a wrong one would yield keys twice, leave some out, or never end.
func wrongPages(q *kvpb.ScanRequest, r *kvpb.ScanResponse) string {
	switch n := len(r.GetPages()); {
	case n > len(q.GetFrom()):
		return "the answer has more pages than it was asked for"
	case n == 0 && r.GetOutcome() != nil && r.GetOutcome().GetCode() == kvpb.Code_OK:
		return "the answer has no pages, and no reason for that"
	}
	if n := len(r.GetPages()); n > 0 && stuck(r.GetPages()[0]) {
		return "the answer has nothing of the shard, and says that there is more"
	}
	for i, page := range r.GetPages() {
		from := q.GetFrom()[i]
		if page.GetShard() != from.GetShard() {
			return "the answer has a page of another shard than it was asked for"
		}
		after := from.GetAfter()
		for _, record := range page.GetRecords() {
			if bytes.Compare(record.GetKey(), after) <= 0 || !bytes.HasPrefix(record.GetKey(), q.GetPrefix()) {
				return "the answer has records that were not asked for, or not in the order of their keys"
			}
			after = record.GetKey()
		}
	}
	return ""
}

// stuck reports whether the request for a page would have to be repeated as it was.
func stuck(p *kvpb.ScanPage) bool {
	return p.GetOutcome() != nil && p.GetOutcome().GetCode() == kvpb.Code_OK && len(p.GetRecords()) == 0 && !p.GetEnd()
}

// scan makes one request; nil: it got no answer, and how it ended.
func (c *Clerk) scan(caller context.Context, addr string, r *kvpb.ScanRequest) (*kvpb.ScanResponse, ending) {
	ctx, drop := c.whileOpen(caller)
	defer drop()
	l, err := c.pool.lane(addr)
	if err != nil {
		return nil, ending{lost: err.Error()}
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
		return nil, ending{lost: reason(ctx, err).Error(), sent: true, abandoned: c.over(caller) != nil}
	}
	return reply, ending{}
}

// wards names the groups that should serve the parts' shards.
func (t *routeTable) wards(parts []part) []route.Ward {
	t.mu.Lock()
	defer t.mu.Unlock()
	wards := make([]route.Ward, len(parts))
	for i := range parts {
		wards[i] = t.mu.table.WardOf(parts[i].shard)
	}
	return wards
}

// opAt returns the routing state of a read of a shard, which must exist.
func (t *routeTable) opAt(shard shardcfg.ShardID) route.Op {
	t.mu.Lock()
	defer t.mu.Unlock()
	return route.NewOp(shardcfg.Slot(int(shard)*(shardcfg.SlotCount/t.mu.table.ShardCount())), false, false, false)
}

// sameGroup returns the first of a list, and those of the others that have no page
// yet and that the group should serve which the operation was sent to, as far as a
// request has room.
func (t *routeTable) sameGroup(op *route.Op, from []*kvpb.ScanFrom, have map[shardcfg.ShardID]*kvpb.ScanPage) []*kvpb.ScanFrom {
	t.mu.Lock()
	defer t.mu.Unlock()
	const overheadBytes = 16
	out, bytes := from[:1:1], 0
	for _, f := range from[1:] {
		if bytes += len(f.GetAfter()) + overheadBytes; bytes > gatherAnswerBytes {
			break
		}
		if s := shardcfg.ShardID(f.GetShard()); have[s] == nil && t.mu.table.WardOf(s) == op.Sent() {
			out = append(out, f)
		}
	}
	return out
}
