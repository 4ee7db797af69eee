package shardkv

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/failpoint"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// A poller is the leader's conversation with the controllers: it learns of new
// configs and proposes to adopt them, claims shards that nobody ever held, and
// reports. One goroutine runs it while this replica leads. The controllers may
// be away for any time: only changes of the configuration wait for them.
type poller struct {
	s *Server
	n *node
	m *mover

	// wake makes it poll at once; buffered, one.
	wake chan struct{}
	// sizes are the contents of the shards as read at sizedAt; nil: not yet.
	sizes   map[shardcfg.ShardID]kvfsm.Content
	sizedAt time.Time
	failing bool // the last poll failed; said once
}

// sizesEvery is the interval between looks at the sizes of the shards.
const sizesEvery = 5 * time.Second

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) {
	retry := backoff{min: 50 * time.Millisecond, max: time.Second}
	for ctx.Err() == nil {
		err := p.poll(ctx)
		wait := p.interval()
		if err != nil && ctx.Err() == nil {
			p.s.metrics.polls.WithLabelValues("failed").Inc()
			if ctrlpb.ReasonOf(err) == ctrlpb.Reason_INCARNATION_RETIRED {
				select {
				case p.s.retired <- err:
				default:
				}
				return
			}
			wait = retry.next()
			if !p.failing {
				p.failing = true
				p.n.log.Warn("the controllers can't be polled; reads and writes go on", "error", err)
			}
		} else if err == nil {
			p.s.metrics.polls.WithLabelValues("ok").Inc()
			retry.reset()
			if p.failing {
				p.failing = false
				p.n.log.Info("the controllers answer again")
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// interval is short while shards move, or the group waits to be let go.
func (p *poller) interval() time.Duration {
	leaving := p.n.places.config().Groups[p.n.identity.Group].State == shardcfg.GroupLeaving
	if leaving || p.n.places.moving() || p.m.waitsForController() {
		return p.s.opts.Moving.PollMoving
	}
	return p.s.opts.Moving.PollIdle
}

// poll tells the controllers how the group is and acts on the answer. The
// report alone makes the group known, keeps its addresses true and, once it is
// leaving and holds nothing, lets it go.
func (p *poller) poll(ctx context.Context) error {
	view, err := p.view()
	if err != nil {
		return err
	}
	request := p.request(view)
	var reply *ctrlpb.PollReply
	err = p.s.controllers.call(ctx, func(ctx context.Context, c ctrlpb.ControllerClient) (err error) {
		reply, err = c.Poll(ctx, request)
		return err
	})
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	cluster, ok := shardcfg.To128[shardcfg.ClusterID](reply.GetCluster())
	if !ok || cluster != p.n.identity.Cluster {
		return fmt.Errorf("poll: the controllers are of cluster %s, this group of %s", cluster, p.n.identity.Cluster)
	}
	answer := p.answer(reply)
	// The report may be old by now.
	if view, err = p.view(); err != nil {
		return err
	}
	adopt := p.m.heard(view, answer)
	if told := p.n.places.takeHints(answer.Hints); len(told) > 0 {
		p.n.parking.wake(told)
	}
	if adopt {
		if err := p.adopt(ctx, reply); err != nil {
			return err
		}
	}
	return p.claim(ctx, view)
}

// view is the applied state, as it was published.
func (p *poller) view() (*handoff.View, error) {
	now := p.n.places.now.Load()
	v := &handoff.View{Config: now.adopted(), Records: now.appendKnown(make([]kvfsm.Record, 0, len(now.records)))}
	if err := p.size(v.Records); err != nil {
		return nil, fmt.Errorf("read the shards: %w", err)
	}
	return v, nil
}

// request describes the group.
func (p *poller) request(v *handoff.View) *ctrlpb.PollRequest {
	n := p.n
	rep := p.m.report(v)
	leader, _ := n.replica.Leader()
	r := &ctrlpb.PollRequest{Cluster: n.identity.Cluster[:], Gid: uint64(n.identity.Group), Incarnation: n.self.Incarnation[:],
		Adopted: uint64(rep.Adopted), Leader: leader, Replicas: voters(n.replica.Status()), Drained: rep.Drained}
	for _, h := range rep.Holdings {
		r.Holdings = append(r.Holdings, &ctrlpb.Holding{Shard: uint32(h.Shard), EpochGen: h.Epoch.Gen,
			EpochNum: h.Epoch.Num, Serving: h.Serving, Keys: h.Content.Keys, Bytes: h.Content.Bytes})
	}
	return r
}

// size fills in the keys and bytes of published records. They are up to sizesEvery
// old: reading and decoding all records at every poll is the greatest cost of a
// group at rest.
func (p *poller) size(records []kvfsm.Record) error {
	if now := time.Now(); p.sizes == nil || now.Sub(p.sizedAt) >= sizesEvery {
		stored, err := p.n.readRecords()
		if err != nil {
			return err
		}
		p.sizes, p.sizedAt = make(map[shardcfg.ShardID]kvfsm.Content, len(stored)), now
		for i := range stored {
			p.sizes[stored[i].Shard] = stored[i].Content
		}
	}
	for i := range records {
		if c, ok := p.sizes[records[i].Shard]; ok {
			records[i].Content = c
		}
	}
	return nil
}

// voters are the addresses of the group's voters, sorted.
func voters(s raftgroup.Status) []string {
	var addresses []string
	for _, m := range s.Members {
		if m.Role != raftgroup.RoleLearner {
			addresses = append(addresses, m.Address)
		}
	}
	slices.Sort(addresses)
	return addresses
}

// answer reads a reply. What no cluster of this shape can mean is left out.
func (p *poller) answer(reply *ctrlpb.PollReply) *handoff.PollReply {
	a := &handoff.PollReply{Num: shardcfg.ConfigNum(reply.GetConfig().GetNum()), Claimed: p.shards(reply.GetClaimed())}
	for _, g := range reply.GetRepairs() {
		if g.GetShard() < uint32(p.n.identity.ShardCount) {
			a.Repairs = append(a.Repairs, handoff.Grant{Shard: shardcfg.ShardID(g.GetShard()),
				Frozen: shardcfg.Epoch{Gen: g.GetFrozenGen(), Num: g.GetFrozenNum()}, Gen: g.GetGen()})
		}
	}
	for _, h := range reply.GetHints() {
		inc, ok := shardcfg.To128[shardcfg.Incarnation](h.GetIncarnation())
		if !ok || h.GetShard() >= uint32(p.n.identity.ShardCount) {
			continue
		}
		a.Hints = append(a.Hints, placement.Hint{Shard: shardcfg.ShardID(h.GetShard()), Replicas: h.GetReplicas(),
			Epoch:  shardcfg.Epoch{Gen: h.GetEpochGen(), Num: h.GetEpochNum()},
			Holder: kvfsm.Peer{Incarnation: inc, Group: shardcfg.GroupID(h.GetGid())}})
	}
	return a
}

// shards are those of a list that exist.
func (p *poller) shards(list []uint32) []shardcfg.ShardID {
	shards := make([]shardcfg.ShardID, 0, len(list))
	for _, s := range list {
		if s < uint32(p.n.identity.ShardCount) {
			shards = append(shards, shardcfg.ShardID(s))
		}
	}
	return shards
}

// adopt proposes the config of a reply.
func (p *poller) adopt(ctx context.Context, reply *ctrlpb.PollReply) error {
	config, err := ctrlpb.ToConfig(reply.GetConfig())
	if err != nil {
		return fmt.Errorf("config %d of the controllers: %w", reply.GetConfig().GetNum(), err)
	}
	command := kvfsm.Encode(&kvfsm.Adopt{Cluster: p.n.identity.Cluster, Config: config})
	// A log entry that no replica can read would stop them all, so what is over a bound
	// is refused here.
	if _, err := kvfsm.Decode(command); err != nil {
		return fmt.Errorf("config %d of the controllers is over a limit: %w", config.Num, err)
	}
	if err := failpoint.Hit("handoff/adopt/before"); err != nil {
		return err
	}
	results, err := p.n.replica.ProposeUrgent(ctx, []entry.Command{command})
	if err == nil {
		err = failpoint.Hit("handoff/adopt/after")
	}
	if err != nil {
		return fmt.Errorf("adopt config %d: %w", config.Num, err)
	}
	if v, ok := results[0].(kvfsm.Verdict); ok && !v.Done && v.Why != kvfsm.ReasonOldConfig {
		return fmt.Errorf("adopt config %d: %v", config.Num, v.Why)
	}
	p.m.poke()
	return nil
}

// claim ends a poll: it asks for the first tokens of shards that are ours and
// were never held.
func (p *poller) claim(ctx context.Context, v *handoff.View) error {
	shards := p.m.settled()
	if len(shards) == 0 {
		return nil
	}
	request := &ctrlpb.ClaimRequest{Cluster: p.n.identity.Cluster[:], Incarnation: p.n.self.Incarnation[:],
		Shards: make([]uint32, len(shards))}
	for i, s := range shards {
		request.Shards[i] = uint32(s)
	}
	var reply *ctrlpb.ClaimReply
	err := p.s.controllers.call(ctx, func(ctx context.Context, c ctrlpb.ControllerClient) (err error) {
		reply, err = c.Claim(ctx, request)
		return err
	})
	if err != nil {
		return fmt.Errorf("claim %d shards: %w", len(shards), err)
	}
	p.m.granted(v, shards, p.shards(reply.GetClaimed()))
	return nil
}

// watch wakes the poller whenever the controllers have a newer config, until
// ctx ends. A lost stream costs a poll interval at most.
func (p *poller) watch(ctx context.Context) {
	retry := backoff{min: 100 * time.Millisecond, max: time.Second}
	for i := 0; ctx.Err() == nil; i++ {
		address := p.s.opts.Controllers[i%len(p.s.opts.Controllers)]
		if p.watchOne(ctx, address) {
			retry.reset()
		}
		if !p.n.pause(ctx, retry.next()) {
			return
		}
	}
}

// watchOne follows one controller's stream until it ends; false: it never began.
func (p *poller) watchOne(ctx context.Context, address string) (began bool) {
	conn, err := p.s.controllers.dial(address)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := ctrlpb.NewControllerClient(conn).Watch(ctx, &ctrlpb.WatchRequest{Cluster: p.n.identity.Cluster[:],
		Have: uint64(p.n.places.config().Num)})
	if err != nil {
		return false
	}
	for {
		reply, err := stream.Recv()
		if err != nil {
			return began
		}
		began = true
		if max(reply.GetConfig().GetNum(), reply.GetDelta().GetNum()) > uint64(p.n.places.config().Num) {
			poke(p.wake)
		}
	}
}
