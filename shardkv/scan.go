package shardkv

import (
	"context"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	scanLimitDefault = 1000
	scanLimitMax     = 10000
	// scanBytesMax bounds the keys and values of the pages of one answer; one
	// larger record travels alone. It bounds what is read as well: the values of a
	// scan for keys count, though they are not sent.
	scanBytesMax = 1 << 20
	// scanPageBytes is about what a page takes in an answer beside its records.
	scanPageBytes = 32
)

// Scan answers with pages of shards, each as it was at one moment.
func (s *Server) Scan(ctx context.Context, r *kvpb.ScanRequest) (*kvpb.ScanResponse, error) {
	response := &kvpb.ScanResponse{Outcome: &kvpb.Outcome{}}
	fail := func(f fault) { response.Outcome.Code, response.Outcome.Message = f.code, clip(f.message) }
	switch n := s.node.Load(); {
	case n == nil:
		fail(starting)
	case !s.total.take(scanSize(r)):
		fail(busyServer)
	default:
		defer s.total.give(scanSize(r))
		bounded, cancel := context.WithTimeout(ctx, s.timeout(r.GetTimeoutMs()))
		defer cancel()
		if f := checkScan(r, n.identity.Cluster, n.identity.ShardCount); f.bad() {
			fail(f)
		} else {
			q := &scanning{n: n, request: r, budget: s.total}
			response.Pages, f = q.run(bounded)
			defer q.release()
			fail(f)
		}
		response.Leader, _ = n.replica.Leader()
	}
	s.metrics.scanned(response.Outcome.Code)
	return response, nil
}

// scanSize is what a scan takes of the budgets for itself, in bytes.
func scanSize(r *kvpb.ScanRequest) int64 {
	size := shardcfg.OperationBytes*int64(1+len(r.GetFrom())) + int64(len(r.GetPrefix()))
	for _, from := range r.GetFrom() {
		size += int64(len(from.GetAfter()))
	}
	return size
}

func checkScan(r *kvpb.ScanRequest, cluster shardcfg.ClusterID, shardCount int) fault {
	if f := checkCluster(r.GetCluster(), cluster); f.bad() {
		return f
	}
	switch n := len(r.GetFrom()); {
	case len(r.GetPrefix()) > shardcfg.KeyBytesMax:
		return invalid("prefix is longer than %d bytes", shardcfg.KeyBytesMax)
	case n == 0:
		return invalid("the scan names no shard")
	case n > shardcfg.ShardCountMax:
		return invalid("the scan names %d shards, at most %d are allowed", n, shardcfg.ShardCountMax)
	}
	for _, from := range r.GetFrom() {
		switch {
		case from.GetShard() >= uint32(shardCount):
			return invalid("shard %d does not exist; the cluster has %d", from.GetShard(), shardCount)
		case len(from.GetAfter()) > shardcfg.KeyBytesMax:
			return invalid("start key is longer than %d bytes", shardcfg.KeyBytesMax)
		}
	}
	return fault{}
}

// A scanning is one Scan under way. One goroutine owns it.
type scanning struct {
	n       *node
	request *kvpb.ScanRequest
	// budget is what its pages count against, if held.
	budget *budget
	held   bool

	// Of the present round:

	pages []*kvpb.ScanPage
	// moving are the shards that have to be waited for; their pages say BUSY.
	moving []shardcfg.ShardID
	// again: a shard began to be served here while it was looked at.
	again bool
	// keys and bytes are what the answer has room for yet.
	keys, bytes int
}

// run answers what can be answered; it waits only where nothing can.
func (q *scanning) run(ctx context.Context) ([]*kvpb.ScanPage, fault) {
	var t *ticket
	defer func() {
		if t != nil {
			q.n.parking.leave(t)
		}
	}()
	for {
		if f := q.round(ctx); f.bad() {
			return nil, f
		}
		if len(q.moving) < len(q.pages) || ctx.Err() != nil {
			return q.pages, fault{}
		}
		if q.again {
			continue
		}
		if t == nil {
			var ok bool
			if t, ok = q.n.parking.enter(q.moving, scanSize(q.request)); !ok {
				return nil, busyParked
			}
			continue // the shards may have changed before the ticket was in
		}
		q.release() // what waits has read nothing
		select {
		case <-t.Value:
		case <-ctx.Done():
			return q.pages, fault{}
		case <-q.n.closed:
			return nil, starting
		}
	}
}

// hold counts the pages of a round against the budget, or reports false.
func (q *scanning) hold() bool {
	if !q.held {
		q.held = q.budget.grow(scanBytesMax)
	}
	return q.held
}

func (q *scanning) release() {
	if q.held {
		q.budget.shrink(scanBytesMax)
		q.held = false
	}
}

// round makes pages, from the first shard on, until the answer is full. The
// pages of one round are of one barrier and one snapshot.
func (q *scanning) round(ctx context.Context) fault {
	n, r := q.n, q.request
	if !n.leading() {
		return n.notLeader()
	}
	q.pages, q.moving, q.again = q.pages[:0], q.moving[:0], false
	q.bytes = scanBytesMax
	if q.keys = int(min(r.GetLimit(), scanLimitMax)); q.keys == 0 {
		q.keys = scanLimitDefault
	}
	if !q.anyHere() {
		return q.fill(ctx, nil)
	}
	if !q.hold() {
		return busyServer
	}
	if err := n.replica.ReadBarrier(ctx); err != nil {
		return asRead(n.faultOf(err))
	}
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return asRead(n.faultOf(err))
	}
	f := q.fill(ctx, snapshot)
	if err := snapshot.Close(); err != nil && !f.bad() {
		f = asRead(n.faultOf(err))
	}
	return f
}

// anyHere reports whether a shard of the request is served here.
func (q *scanning) anyHere() bool {
	for _, from := range q.request.GetFrom() {
		if q.n.places.of(shardcfg.ShardID(from.GetShard())).Here {
			return true
		}
	}
	return false
}

// fill makes pages from a snapshot; nil: no shard is served here.
func (q *scanning) fill(ctx context.Context, snapshot store.Reader) fault {
	for _, from := range q.request.GetFrom() {
		if len(q.pages) > 0 && (q.keys <= 0 || q.bytes <= 0) {
			break
		}
		if err := ctx.Err(); err != nil && len(q.pages) > 0 {
			break
		}
		page := &kvpb.ScanPage{Shard: from.GetShard(), Outcome: &kvpb.Outcome{}}
		if err := q.page(snapshot, from, page); err != nil {
			return asRead(q.n.faultOf(err))
		}
		q.bytes -= scanPageBytes
		q.pages = append(q.pages, page)
	}
	return fault{}
}

// page fills in the page of one shard, or why there is none.
func (q *scanning) page(snapshot store.Reader, from *kvpb.ScanFrom, page *kvpb.ScanPage) error {
	shard := shardcfg.ShardID(from.GetShard())
	at := q.n.places.of(shard)
	if at.Here && snapshot != nil {
		found, err := kvfsm.ReadScan(snapshot, kvfsm.Scan{Shard: shard, Prefix: q.request.GetPrefix(), After: from.GetAfter(),
			KeysMax: q.keys, BytesMax: q.bytes, KeysOnly: q.request.GetKeysOnly()})
		switch {
		case err != nil:
			return err
		case found.Code == kvfsm.CodeOK:
			q.keys -= len(found.Entries)
			q.bytes -= found.Bytes
			page.Records, page.End = recordsOf(found.Entries), found.End
			return nil
		}
		at = q.n.places.from(found.Where)
	}
	switch {
	case at.Here: // it came in between
		q.again = true
		fallthrough
	case at.Wait:
		q.moving = append(q.moving, shard)
		f := busyShard(shard)
		q.bytes -= outcomeBytesMax
		page.Outcome.Code, page.Outcome.Message = f.code, f.message
	default:
		r := q.n.places.redirect(at)
		q.bytes -= outcomeBytesMax + redirectBytes(r)
		redirect(page.Outcome, r)
	}
	return nil
}

func recordsOf(entries []kvfsm.ScanEntry) []*kvpb.Record {
	records := make([]*kvpb.Record, len(entries))
	backing := make([]kvpb.Record, len(entries))
	for i, e := range entries {
		records[i] = &backing[i]
		backing[i].Key, backing[i].Value, backing[i].Version = e.Key, e.Value, uint64(e.Version)
	}
	return records
}
