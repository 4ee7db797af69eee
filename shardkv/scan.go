package shardkv

import (
	"context"
	"errors"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
	"github.com/shoalkv/shoal/shardkv/placement"
)

const (
	scanLimitDefault = 1000
	scanLimitMax     = 10000
	// scanBytesMax bounds the keys and values of a page; one larger record
	// travels alone.
	scanBytesMax = 1 << 20
)

// Scan answers with one page of one shard as it was at one moment.
func (s *Server) Scan(ctx context.Context, r *kvpb.ScanRequest) (*kvpb.ScanResponse, error) {
	response := &kvpb.ScanResponse{Outcome: &kvpb.Outcome{}}
	fail := func(f fault) { response.Outcome.Code, response.Outcome.Message = f.code, f.message }
	switch n := s.node.Load(); {
	case n == nil:
		fail(starting)
	case !s.total.take(scanBytesMax):
		fail(busyServer)
	default:
		defer s.total.give(scanBytesMax)
		bounded, cancel := context.WithTimeout(ctx, s.timeout(r.GetTimeoutMs()))
		defer cancel()
		if f := n.scan(bounded, r, response); f.bad() {
			fail(f)
		}
		response.Leader, _ = n.replica.Leader()
	}
	s.metrics.outcomes[response.Outcome.Code].Inc()
	return response, nil
}

func checkScan(r *kvpb.ScanRequest, cluster shardcfg.ClusterID, shardCount int) fault {
	if f := checkCluster(r.GetCluster(), cluster); f.bad() {
		return f
	}
	switch {
	case r.GetShard() >= uint32(shardCount):
		return invalid("shard %d does not exist; the cluster has %d", r.GetShard(), shardCount)
	case len(r.GetPrefix()) > shardcfg.KeyBytesMax:
		return invalid("prefix is longer than %d bytes", shardcfg.KeyBytesMax)
	case len(r.GetAfter()) > shardcfg.KeyBytesMax:
		return invalid("start key is longer than %d bytes", shardcfg.KeyBytesMax)
	}
	return fault{}
}

// scan fills in a page, or the redirect; any other end is a fault.
func (n *node) scan(ctx context.Context, r *kvpb.ScanRequest, response *kvpb.ScanResponse) fault {
	if f := checkScan(r, n.identity.Cluster, n.identity.ShardCount); f.bad() {
		return f
	}
	shard := shardcfg.ShardID(r.GetShard())
	var t *ticket
	defer func() {
		if t != nil {
			n.parking.leave(t)
		}
	}()
	for {
		at, f := n.scanOnce(ctx, r, response)
		switch {
		case f.bad() || response.Outcome.Code != kvpb.Code_WRONG_GROUP:
			return f
		case at.Here:
			if ctx.Err() != nil {
				return busyShard(shard)
			}
			continue
		case !at.Wait:
			n.redirect(response.Outcome, at)
			return fault{}
		case t == nil:
			var ok bool
			if t, ok = n.parking.enter([]shardcfg.ShardID{shard}, operationOverheadBytes); !ok {
				return busyParked
			}
			continue // the shard may have changed before the ticket was in
		}
		select {
		case <-t.Value:
		case <-ctx.Done():
			return busyShard(shard)
		case <-n.closed:
			return starting
		}
	}
}

// scanOnce reads the page if the shard is served here; else the outcome's code
// is WRONG_GROUP, and the placing says where it is.
func (n *node) scanOnce(ctx context.Context, r *kvpb.ScanRequest, response *kvpb.ScanResponse) (placement.Placing, fault) {
	if !n.leading() {
		return placement.Placing{}, n.notLeader()
	}
	response.Outcome.Code = kvpb.Code_WRONG_GROUP
	if at := n.places.of(shardcfg.ShardID(r.GetShard())); !at.Here {
		return at, fault{}
	}
	if err := n.replica.ReadBarrier(ctx); err != nil {
		return placement.Placing{}, asRead(n.faultOf(err))
	}
	page, err := n.scanSnapshot(r)
	if err != nil {
		return placement.Placing{}, asRead(n.faultOf(err))
	}
	if page.Code == kvfsm.CodeWrongGroup {
		return n.places.from(page.Where), fault{}
	}
	response.Outcome.Code, response.End = kvpb.Code_OK, page.End
	response.Records = make([]*kvpb.Record, len(page.Entries))
	backing := make([]kvpb.Record, len(page.Entries))
	for i, e := range page.Entries {
		response.Records[i] = &backing[i]
		backing[i].Key, backing[i].Value, backing[i].Version = e.Key, e.Value, uint64(e.Version)
	}
	return placement.Placing{Here: true}, fault{}
}

func (n *node) scanSnapshot(r *kvpb.ScanRequest) (page kvfsm.ScanPage, err error) {
	snapshot, err := n.replica.Store().NewSnapshot()
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	limit := int(min(r.GetLimit(), scanLimitMax))
	if limit == 0 {
		limit = scanLimitDefault
	}
	return kvfsm.ReadScan(snapshot, kvfsm.Scan{Shard: shardcfg.ShardID(r.GetShard()), Prefix: r.GetPrefix(),
		After: r.GetAfter(), KeysMax: limit, BytesMax: scanBytesMax, KeysOnly: r.GetKeysOnly()})
}
