package formation

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A round is what the peers answered when they were asked once.
type round struct {
	replies map[string]*raftpb.HelloReply // by label; without this replica
	errs    map[string]error              // of those that did not answer
}

// Form returns the replica's identity: the one that its directory has, or else
// the one that it forms a group with, or is given when it is added to one. It
// waits for the others for as long as it takes, until ctx ends, and logs what it
// waits for. The Former must be served as Formation meanwhile.
//
// Errors include those for which Refused reports true, and that of ctx.
func (f *Former) Form(ctx context.Context) (Identity, error) {
	report := reporter{f: f}
	var cluster *clusterFacts
	for {
		if err := f.failed(); err != nil {
			return Identity{}, err
		}
		if id, ok := f.Identity(); ok {
			return id, nil
		}
		if len(f.opts.Peers) == 0 {
			report.waiting("to be added to its group: shoal replicas %s add %s", groupName(f.opts.Group), f.opts.Advertise)
		} else if err := f.advance(ctx, &report, &cluster); err != nil {
			return Identity{}, err
		}
		if _, ok := f.Identity(); ok {
			continue
		}
		select {
		case <-ctx.Done():
			return Identity{}, fmt.Errorf("form %s: %w (%s)", GroupNoun(f.opts.Group), ctx.Err(), cmp.Or(report.last, "not begun"))
		case <-f.changed:
		case <-time.After(f.opts.Interval):
		}
	}
}

// advance asks the peers and takes the step that their answers allow.
func (f *Former) advance(ctx context.Context, report *reporter, cluster **clusterFacts) error {
	answers := f.ask(ctx)
	formed, err := f.judge(ctx, answers)
	if formed || err != nil {
		return err
	}
	if len(answers.errs) > 0 {
		report.waiting("for peers that do not answer: %s", describe(answers.errs))
		return nil
	}
	labels := f.opts.peerLabels()
	for _, label := range labels {
		if reply := answers.replies[label]; reply != nil && !slices.Equal(reply.GetPeers(), labels) {
			report.waiting("for peers to agree: %q was started with peers %v, this replica with %v", label, reply.GetPeers(), labels)
			return nil
		}
	}
	if proposer := labels[0]; proposer != f.opts.Label {
		report.waiting("for %q, the lowest id, to propose the group", proposer)
		return nil
	}
	if *cluster == nil {
		facts, err := f.cluster(ctx)
		if err != nil {
			report.waiting("for the controllers, to learn the cluster: %v", err)
			return ctx.Err()
		}
		*cluster = &facts
		if f.opts.Group != 0 {
			// That may have taken minutes: what the peers said is old.
			f.wake()
			return nil
		}
	}
	return f.propose(ctx, answers, **cluster, report)
}

// clusterFacts are what the proposer must know of the cluster.
type clusterFacts struct {
	id     shardcfg.ClusterID
	shards int
}

// cluster asks the controllers; a controller mints the cluster instead.
func (f *Former) cluster(ctx context.Context) (clusterFacts, error) {
	if f.opts.Group == 0 {
		var facts clusterFacts
		facts.shards = f.opts.ShardCount
		return facts, f.draw((*[16]byte)(&facts.id))
	}
	ctx, cancel := context.WithTimeout(ctx, reportEvery)
	defer cancel()
	id, shards, err := f.opts.Cluster(ctx)
	if err == nil && id.IsZero() {
		err = errors.New("the controllers do not know their cluster yet")
	}
	if err == nil {
		err = shardcfg.CheckShardCount(shards)
	}
	return clusterFacts{id: id, shards: shards}, err
}

func (f *Former) draw(id *[16]byte) error {
	if _, err := io.ReadFull(f.opts.Rand, id[:]); err != nil {
		return fmt.Errorf("draw a random name: %w", err)
	}
	return nil
}

// ask says hello to all peers at once.
func (f *Former) ask(ctx context.Context) round {
	r := round{replies: map[string]*raftpb.HelloReply{}, errs: map[string]error{}}
	var mu sync.Mutex
	f.eachPeer(ctx, func(ctx context.Context, label string, client raftpb.FormationClient) error {
		reply, err := client.Hello(ctx, &raftpb.HelloRequest{Group: uint64(f.opts.Group), Label: f.opts.Label})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			r.replies[label] = reply
		}
		return err
	}, func(label string, err error) {
		mu.Lock()
		defer mu.Unlock()
		r.errs[label] = err
	})
	return r
}

// eachPeer makes one bounded call to each peer, all at once, and waits for
// them.
func (f *Former) eachPeer(ctx context.Context, call func(context.Context, string, raftpb.FormationClient) error, failed func(string, error)) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for label, address := range f.opts.Peers {
		if label == f.opts.Label {
			continue
		}
		wg.Go(func() {
			conn, err := f.opts.Dial(address)
			if err == nil {
				err = call(ctx, label, raftpb.NewFormationClient(conn))
			}
			if err != nil {
				failed(label, err)
			}
		})
	}
	wg.Wait()
}

// judge looks for peers that are formed, or are not who they should be. It
// reports true if this replica is formed now.
func (f *Former) judge(ctx context.Context, answers round) (formed bool, err error) {
	for _, label := range f.opts.peerLabels() {
		reply := answers.replies[label]
		if reply == nil {
			continue
		}
		address := f.opts.Peers[label]
		if gid := shardcfg.GroupID(reply.GetGroup()); gid != f.opts.Group {
			return false, &PeerError{Peer: label, Address: address,
				Problem: fmt.Sprintf("is a replica of %s, not of %s", GroupNoun(gid), GroupNoun(f.opts.Group))}
		}
		if reply.GetLabel() != label {
			return false, &PeerError{Peer: label, Address: address, Problem: fmt.Sprintf("says that its id is %q", reply.GetLabel())}
		}
		if reply.GetFormed() {
			return f.follow(ctx, label, reply)
		}
	}
	return false, nil
}

// follow commits what this replica has prepared, if the peer is formed with it
// (FORM-4), and otherwise finds out why this replica can't be part of its group.
func (f *Former) follow(ctx context.Context, peer string, reply *raftpb.HelloReply) (bool, error) {
	theirs, err := FromProto(reply.GetIdentity(), peer, reply.GetServerId())
	if err != nil {
		return false, &PeerError{Peer: peer, Address: f.opts.Peers[peer], Problem: err.Error()}
	}
	r := f.rec.Load()
	if r.formed() {
		return true, nil // by a Found since the peers were asked
	}
	if r.Phase != phasePrepared {
		return false, &WipedError{Group: r.Group, Label: r.Label, Address: f.opts.Advertise,
			Peer: peer, Incarnation: theirs.Incarnation}
	}
	if founder, ok := r.Identity.founder(peer); !ok || founder.ServerID != theirs.ServerID || !r.Identity.sameGroup(&theirs) {
		return false, &ConflictError{Peer: peer, Have: theirs.Incarnation, Own: r.Identity.Incarnation}
	}
	if f.opts.peerLabels()[0] == r.Label {
		// The proposer is formed before anyone else (FORM-3); if its file does
		// not say so, it has lost its last write, and perhaps votes with it.
		return false, &DamagedError{Path: f.opts.Dir, Problem: "the directory is older than its group; was it restored from a copy?"}
	}
	return f.commit(ctx, r.Identity.Incarnation, r.Ballot)
}

// propose has every founder prepare one identity, and commits it.
func (f *Former) propose(ctx context.Context, answers round, facts clusterFacts, report *reporter) error {
	id, ballot, err := f.choose(answers, facts)
	if err != nil {
		return err
	}
	f.log.Info("forming the group", "group", groupName(id.Group), "incarnation", id.Incarnation.String(), "ballot", ballot, "replicas", len(id.Founders))
	request := func(m Member) *raftpb.FoundRequest {
		return &raftpb.FoundRequest{Identity: id.Proto(), Label: m.Label, ServerId: m.ServerID, Ballot: ballot, Proposer: f.opts.Label}
	}
	own, _ := id.founder(f.opts.Label)
	if _, err := f.Found(ctx, request(own)); err != nil {
		if broken := f.failed(); broken != nil {
			return broken
		}
		report.waiting("for its own preparation: %v", err)
		return ctx.Err()
	}
	var mu sync.Mutex
	failures := map[string]error{}
	f.eachPeer(ctx, func(ctx context.Context, label string, client raftpb.FormationClient) error {
		if err := f.opts.hook(step{Name: "call", Peer: label}); err != nil {
			return err
		}
		m, _ := id.founder(label)
		if _, err := client.Found(ctx, request(m)); err != nil {
			return err
		}
		return f.opts.hook(step{Name: "called", Peer: label})
	}, func(label string, err error) {
		mu.Lock()
		defer mu.Unlock()
		failures[label] = err
	})
	if len(failures) > 0 {
		report.waiting("for peers to prepare the group: %s", describe(failures))
		return ctx.Err()
	}
	if err := f.opts.hook(step{Name: "commit"}); err != nil {
		return err
	}
	if _, err := f.commit(ctx, id.Incarnation, ballot); err != nil {
		return err
	}
	return f.opts.hook(step{Name: "committed"})
}

// choose goes on with what was prepared, if the disks are still the same and
// nobody has seen a higher ballot, or another identity in this one; or else draws a
// new identity.
func (f *Former) choose(answers round, facts clusterFacts) (Identity, uint64, error) {
	r := f.rec.Load()
	id := Identity{
		Format: format, Cluster: facts.id, Group: r.Group, ShardCount: facts.shards,
		Label: r.Label, ServerID: r.ServerID, LogStore: f.opts.logStore(), Founders: []Member{},
	}
	highest, contested := r.Ballot, false
	for _, label := range f.opts.peerLabels() {
		m := Member{Label: label, ServerID: r.ServerID, Address: f.opts.Peers[label]}
		if reply := answers.replies[label]; reply != nil {
			m.ServerID = reply.GetServerId()
			highest = max(highest, reply.GetBallot())
			// A message of this replica's previous disk may have come late.
			contested = contested || r.Phase == phasePrepared && reply.GetBallot() == r.Ballot &&
				!bytes.Equal(reply.GetPrepared(), r.Identity.Incarnation[:])
		}
		id.Founders = append(id.Founders, m)
	}
	if r.Phase == phasePrepared && r.Ballot == highest && !contested {
		had := *r.Identity
		id.Incarnation = had.Incarnation
		if r.Group == 0 {
			id.Cluster = had.Cluster
		}
		if had.sameGroup(&id) {
			return had, r.Ballot, nil
		}
	}
	if err := f.draw((*[16]byte)(&id.Incarnation)); err != nil {
		return Identity{}, 0, err
	}
	return id, highest + 1, id.check()
}

// A reporter logs what a replica waits for: a change at most once a second, and
// the same thing every few seconds.
type reporter struct {
	f      *Former
	last   string // the newest, logged or not
	logged string
	at     time.Time
}

const reportChangeEvery = time.Second

func (r *reporter) waiting(format string, args ...any) {
	r.last = "waiting " + fmt.Sprintf(format, args...)
	pause := reportEvery
	if r.last != r.logged {
		pause = reportChangeEvery
	}
	if now := time.Now(); now.Sub(r.at) >= pause {
		r.logged, r.at = r.last, now
		r.f.log.Info(r.last, "group", groupName(r.f.opts.Group), "id", r.f.opts.Label)
	}
}

// describe lists who failed, in order.
func describe(errs map[string]error) string {
	parts := make([]string, 0, len(errs))
	for label, err := range errs {
		parts = append(parts, fmt.Sprintf("%q (%v)", label, err))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
