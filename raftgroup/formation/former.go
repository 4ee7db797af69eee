package formation

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A step is a place where a test can make a replica crash.
type step struct {
	Name  string
	Phase phase  // of the record that is written, for the steps of a write
	Peer  string // label, for the steps of a call
}

// A Former keeps the identity of one data directory, answers Hello and Found
// for it, and forms its group. Its methods may be called from any goroutine,
// Form by one at a time.
type Former struct {
	raftpb.UnimplementedFormationServer

	opts Options
	log  hclog.Logger

	// rec is the record that is on disk; it is replaced, never changed.
	rec atomic.Pointer[record]
	// writing is a semaphore of one, held by whoever writes the file.
	writing chan struct{}
	// changed wakes Form after Found wrote.
	changed chan struct{}
	// broken is why the file could not be written; what is on disk is unknown
	// then, and nothing is promised any more.
	broken atomic.Pointer[error]
}

// Open loads the identity of o.Dir; an empty directory is given a ServerID, on
// disk. Errors include *UsageError, *DamagedError and *DirectoryError.
func Open(o Options) (*Former, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	f := &Former{opts: o, log: o.Logger, writing: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	rec, err := readRecord(o.Dir)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		serverID, err := newServerID(o.Label, o.Rand)
		if err != nil {
			return nil, err
		}
		rec = &record{Format: format, Group: o.Group, Label: o.Label, ServerID: serverID, Phase: phaseEmpty}
		if err := writeRecord(o.Dir, rec, o.hook); err != nil {
			return nil, err
		}
	}
	if err := f.checkOwn(rec); err != nil {
		return nil, err
	}
	f.rec.Store(rec)
	return f, nil
}

// checkOwn refuses the data directory of another replica.
func (f *Former) checkOwn(r *record) error {
	o := &f.opts
	differs := func(what, have, requested string) error {
		return &DirectoryError{Dir: o.Dir, What: what, Have: have, Requested: requested}
	}
	if r.Group != o.Group {
		return differs("gid", groupName(r.Group), groupName(o.Group))
	}
	if r.Label != o.Label {
		return differs("id", r.Label, o.Label)
	}
	if !r.formed() {
		return nil
	}
	if o.LogStore != "" && r.Identity.LogStore != o.LogStore {
		return differs("log store", r.Identity.LogStore, o.LogStore)
	}
	if o.Group == 0 && o.ShardCount != 0 && r.Identity.ShardCount != o.ShardCount {
		f.log.Warn("the shard count is fixed when the cluster is created; the one given is ignored",
			"shards", r.Identity.ShardCount, "given", o.ShardCount)
	}
	return nil
}

// Identity is the replica's identity, once it is formed.
func (f *Former) Identity() (Identity, bool) {
	r := f.rec.Load()
	if !r.formed() {
		return Identity{}, false
	}
	return *r.Identity, true
}

// ServerID is the random name that this disk has drawn.
func (f *Former) ServerID() string { return f.rec.Load().ServerID }

// Started reports whether the replica's stores were created before: one that is
// missing now is a loss, not a beginning.
func (f *Former) Started() bool { return f.rec.Load().Phase == phaseStarted }

// MarkStarted records, durably, that the replica's stores exist. It must return
// before the replica takes part in an election.
func (f *Former) MarkStarted(ctx context.Context) error {
	return f.update(ctx, func(r record) (record, error) {
		if !r.formed() {
			return r, fmt.Errorf("replica %q is not formed", r.Label)
		}
		r.Phase = phaseStarted
		return r, nil
	})
}

// update replaces the record by what change makes of it, durably. An error of
// change leaves it as it is.
func (f *Former) update(ctx context.Context, change func(record) (record, error)) error {
	select {
	case f.writing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.writing }()
	if err := f.failed(); err != nil {
		return err
	}
	old := f.rec.Load()
	next, err := change(*old)
	if err != nil {
		return err
	}
	if next.Phase == old.Phase && next.Ballot == old.Ballot && next.Identity == old.Identity {
		return nil
	}
	if err := writeRecord(f.opts.Dir, &next, f.opts.hook); err != nil {
		f.broken.Store(&err)
		f.wake()
		return err
	}
	f.rec.Store(&next)
	f.wake()
	return nil
}

func (f *Former) failed() error {
	if err := f.broken.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *Former) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Hello says who this replica is.
func (f *Former) Hello(context.Context, *raftpb.HelloRequest) (*raftpb.HelloReply, error) {
	if err := f.failed(); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	r := f.rec.Load()
	reply := &raftpb.HelloReply{
		Label: r.Label, Group: uint64(r.Group), ServerId: r.ServerID, Ballot: r.Ballot,
		Version: f.opts.Version, FeatureLevel: uint32(entry.FeatureLevel), Address: f.opts.Advertise,
	}
	if r.formed() {
		reply.Formed, reply.Identity = true, r.Identity.Proto()
	} else {
		reply.Peers = f.opts.peerLabels()
		if r.Phase == phasePrepared {
			reply.Prepared = r.Identity.Incarnation[:]
		}
	}
	return reply, nil
}

// Found prepares an identity with founders, or takes up one without. It answers
// once that is durable. A refusal is FailedPrecondition.
func (f *Former) Found(ctx context.Context, req *raftpb.FoundRequest) (*raftpb.FoundReply, error) {
	refuse := func(format string, args ...any) (*raftpb.FoundReply, error) {
		return nil, status.Errorf(codes.FailedPrecondition, "replica %q: "+format, append([]any{f.opts.Label}, args...)...)
	}
	r := f.rec.Load()
	if req.GetLabel() != r.Label || req.GetServerId() != r.ServerID {
		return refuse("this is server %q, the call means %q", r.ServerID, req.GetServerId())
	}
	id, err := FromProto(req.GetIdentity(), r.Label, r.ServerID)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if id.Group != r.Group {
		return refuse("this is a replica of %s, the call means %s", GroupNoun(r.Group), GroupNoun(id.Group))
	}
	var refusal error
	err = f.update(ctx, func(r record) (record, error) {
		next, problem := f.found(r, id, req)
		if problem != "" {
			_, refusal = refuse("%s", problem)
			return r, refusal
		}
		return next, nil
	})
	switch {
	case refusal != nil:
		return nil, refusal
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &raftpb.FoundReply{}, nil
}

// found decides about an identity that was proposed: the next record, or the
// problem. These are the rules that the package comment argues from.
func (f *Former) found(r record, id Identity, req *raftpb.FoundRequest) (record, string) {
	if r.formed() {
		if r.Identity.Incarnation == id.Incarnation && r.Identity.Cluster == id.Cluster {
			return r, "" // again
		}
		return r, "already belongs to incarnation " + r.Identity.Incarnation.String()
	}
	if f.opts.LogStore != "" && f.opts.LogStore != id.LogStore {
		return r, fmt.Sprintf("was started with log store %s, the group has %s", f.opts.LogStore, id.LogStore)
	}
	if len(id.Founders) == 0 {
		if len(f.opts.Peers) > 0 {
			return r, "was started with --peers, so it can't be added to a group; start it without"
		}
		r.Phase, r.Identity = phaseFormed, &id
		return r, ""
	}
	return f.prepare(r, id, req)
}

func (f *Former) prepare(r record, id Identity, req *raftpb.FoundRequest) (record, string) {
	labels := make([]string, len(id.Founders))
	for i, m := range id.Founders {
		labels[i] = m.Label
	}
	if own := f.opts.peerLabels(); !slices.Equal(labels, own) {
		return r, fmt.Sprintf("was started with peers %v, the group would have %v", own, labels)
	}
	// Every start compares this replica's address with that of the founder.
	own, _ := id.founder(r.Label)
	switch {
	case own.Address != f.opts.Advertise:
		return r, fmt.Sprintf("others reach it at %s, the group would have it at %s: start all of them with the same --peers", f.opts.Advertise, own.Address)
	case req.GetProposer() != labels[0]:
		return r, fmt.Sprintf("%q proposes, it is up to %q", req.GetProposer(), labels[0])
	case id.Group == 0 && id.ShardCount != f.opts.ShardCount:
		return r, fmt.Sprintf("was started with %d shards, the cluster would have %d", f.opts.ShardCount, id.ShardCount)
	case req.GetBallot() == 0 || req.GetBallot() < r.Ballot:
		return r, fmt.Sprintf("has prepared ballot %d, this is ballot %d", r.Ballot, req.GetBallot())
	case req.GetBallot() == r.Ballot && r.Identity.sameGroup(&id):
		return r, "" // again
	case req.GetBallot() == r.Ballot:
		return r, fmt.Sprintf("has prepared another identity in ballot %d", r.Ballot)
	}
	r.Phase, r.Ballot, r.Identity = phasePrepared, req.GetBallot(), &id
	return r, ""
}

// commit makes the identity that was prepared in ballot final. It reports false
// if another one was prepared since.
func (f *Former) commit(ctx context.Context, incarnation shardcfg.Incarnation, ballot uint64) (bool, error) {
	done := false
	err := f.update(ctx, func(r record) (record, error) {
		if r.formed() {
			done = r.Identity.Incarnation == incarnation
			return r, nil
		}
		if r.Phase == phasePrepared && r.Ballot == ballot && r.Identity.Incarnation == incarnation {
			r.Phase, done = phaseFormed, true
		}
		return r, nil
	})
	return done && err == nil, err
}
