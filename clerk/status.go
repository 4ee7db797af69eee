package clerk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	// askMax bounds the question to one replica, without the time in which its
	// answer is arriving: who is slower is listed as unhealthy.
	askMax    = 2 * time.Second
	askersMax = 64
	// reportAgeMax is how old a group's last report to the controllers may be for it
	// to count as running.
	reportAgeMax = 10 * time.Second
)

// A replicaAnswer is what a replica said, or why it did not.
type replicaAnswer struct {
	address string
	status  *kvpb.StatusResponse
	err     error
}

// askReplicas asks every address once, many at a time. The answers are in the
// order of addresses, without repetitions.
func (c *Clerk) askReplicas(ctx context.Context, addresses []string, shards rows) []replicaAnswer {
	ctx, drop := c.whileOpen(ctx)
	defer drop()
	var answers []replicaAnswer
	for _, addr := range addresses {
		if !slices.ContainsFunc(answers, func(a replicaAnswer) bool { return a.address == addr }) {
			answers = append(answers, replicaAnswer{address: addr})
		}
	}
	each(len(answers), func(i int) {
		a := &answers[i]
		a.status, a.err = c.askReplica(ctx, a.address, shards)
	})
	return answers
}

func (c *Clerk) askReplica(ctx context.Context, addr string, shards rows) (*kvpb.StatusResponse, error) {
	ctx, cancel := c.pool.attend(ctx, addr, askMax, nil)
	defer cancel()
	conn, err := c.pool.ready(ctx, addr)
	if err != nil {
		return nil, err
	}
	r, err := kvpb.NewKVClient(conn).Status(ctx, shards.request(c.table.clusterBytes()))
	if err != nil {
		return nil, reason(ctx, err)
	}
	return r, nil
}

// each runs f for 0 to n-1, many at a time.
func each(n int, f func(int)) {
	var wait sync.WaitGroup
	room := make(chan struct{}, askersMax)
	for i := range n {
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			f(i)
		})
	}
	wait.Wait()
}

// A survey is what controllers and replicas said at about one moment.
type survey struct {
	config      *shardcfg.Config
	placed      bool                         // false: nobody told a config; config only lists the groups that are known
	configErr   error                        // nil: config is the controllers' latest
	infos       map[string]*ctrlpb.InfoReply // by address
	controllers []string
	replicas    map[string]replicaAnswer // by address
}

// survey asks everyone. It fails only if neither a configuration nor a group is
// known.
func (c *Clerk) survey(ctx context.Context, controllers bool) (*survey, error) {
	s := &survey{placed: true, infos: map[string]*ctrlpb.InfoReply{}, replicas: map[string]replicaAnswer{}}
	asking, cancel := c.pool.attendAll(ctx, c.ctl.addresses, askMax)
	config, err := c.queryLatest(asking)
	cancel()
	if err != nil {
		config = c.table.config()
	}
	if config == nil {
		s.placed = false
		if config = c.unplacedGroups(); config == nil {
			return nil, &Error{Op: "status", Family: FamilyNotDone, Cause: err}
		}
	}
	s.config, s.configErr = config, err
	if controllers {
		c.askControllers(ctx, s)
	}
	var addresses []string
	for _, gid := range config.GroupIDs() {
		addresses = append(addresses, config.Groups[gid].Replicas...)
	}
	for _, g := range s.unjoinedReports() {
		addresses = append(addresses, g.GetReplicas()...)
	}
	for _, a := range c.askReplicas(ctx, addresses, allShards) {
		s.replicas[a.address] = a
	}
	return s, nil
}

// askControllers asks the controllers, and then those that they name.
func (c *Clerk) askControllers(ctx context.Context, s *survey) {
	ctx, drop := c.whileOpen(ctx)
	defer drop()
	var mu sync.Mutex
	todo := c.ctl.addresses()
	slices.Sort(todo)
	for len(todo) > 0 {
		s.controllers = append(s.controllers, todo...)
		each(len(todo), func(i int) {
			ctx, cancel := c.pool.attend(ctx, todo[i], askMax, nil)
			defer cancel()
			conn, err := c.pool.ready(ctx, todo[i])
			if err != nil {
				return
			}
			info, err := ctrlpb.NewControllerClient(conn).Info(ctx, &ctrlpb.InfoRequest{Cluster: c.table.clusterBytes()})
			if err == nil {
				mu.Lock()
				s.infos[todo[i]] = info
				mu.Unlock()
			}
		})
		todo = nil
		for _, info := range s.infos {
			for _, m := range info.GetMembers() {
				if a := m.GetAddress(); a != "" && !slices.Contains(s.controllers, a) && !slices.Contains(todo, a) {
					todo = append(todo, a)
				}
			}
		}
		slices.Sort(todo)
	}
}

func (a *Admin) status(ctx context.Context) (*Status, error) {
	ctx, cancel := a.c.deadline(ctx)
	defer cancel()
	s, err := a.c.survey(ctx, true)
	if err != nil {
		return nil, err
	}
	st := &Status{Config: s.config, ConfigErr: s.configErr, Controllers: s.controllerStatus(), Total: len(s.config.Shards)}
	if !s.placed {
		st.Config = nil
	}
	for _, gid := range s.config.GroupIDs() {
		st.Groups = append(st.Groups, s.groupStatus(gid, s.config.Groups[gid]))
	}
	for _, g := range s.unjoinedReports() {
		inc, _ := shardcfg.To128[shardcfg.Incarnation](g.GetIncarnation())
		st.Unjoined = append(st.Unjoined, s.groupStatus(shardcfg.GroupID(g.GetGid()), shardcfg.Group{Incarnation: inc, Replicas: g.GetReplicas()}))
	}
	st.Shards, st.Handoffs = s.shards()
	st.count()
	return st, nil
}

// unplacedGroups are the groups that replicas told of, as a config without owners;
// nil: not even the number of shards is known.
func (c *Clerk) unplacedGroups() *shardcfg.Config {
	n := c.table.shardCount()
	if n == 0 {
		return nil
	}
	config := &shardcfg.Config{Shards: make([]shardcfg.GroupID, n), Groups: map[shardcfg.GroupID]shardcfg.Group{}}
	for _, g := range c.table.groups() {
		if g.GID != 0 {
			config.Groups[g.GID] = shardcfg.Group{Incarnation: g.Incarnation, Replicas: g.Replicas, Weight: 1, State: shardcfg.GroupMember}
		}
	}
	return config
}

// unjoinedReports are what groups that run, and that the config does not list, last
// reported to the controllers.
func (s *survey) unjoinedReports() (list []*ctrlpb.GroupReport) {
	if !s.placed {
		return nil
	}
	for _, info := range s.infos {
		for _, g := range info.GetGroups() {
			_, listed := s.config.Groups[shardcfg.GroupID(g.GetGid())]
			if !listed && time.Duration(g.GetAgeMs())*time.Millisecond < reportAgeMax {
				list = append(list, g)
			}
		}
	}
	slices.SortFunc(list, func(a, b *ctrlpb.GroupReport) int {
		return cmp.Or(cmp.Compare(a.GetGid(), b.GetGid()), bytes.Compare(a.GetIncarnation(), b.GetIncarnation()))
	})
	return list
}

// controllerStatus lists the controllers, those that the others name included.
func (s *survey) controllerStatus() []ReplicaStatus {
	var out []ReplicaStatus
	leader, term := "", uint64(0)
	for _, info := range s.infos {
		if info.GetLeader() != "" && info.GetTerm() >= term {
			leader, term = info.GetLeader(), info.GetTerm()
		}
	}
	for _, addr := range s.controllers {
		r := ReplicaStatus{Address: addr, Problem: "it does not answer"}
		for _, other := range s.infos {
			for _, m := range other.GetMembers() {
				if m.GetAddress() == addr {
					r.ID, r.Role = m.GetId(), m.GetRole()
				}
			}
		}
		if info := s.infos[addr]; info != nil {
			r.ID, r.AppliedIndex, r.Term = info.GetId(), info.GetAppliedIndex(), info.GetTerm()
			r.Answers, r.Healthy, r.Problem = true, true, ""
			if info.GetLeader() == "" {
				r.Healthy, r.Problem = false, "it knows no leader"
			}
		}
		switch {
		case addr == leader && r.Healthy:
			r.Role = roleLeader
		case r.Role == roleLeader || r.Role == "" && r.Healthy:
			r.Role = "follower"
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b ReplicaStatus) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// best is the answer of a group that knows most: of its leader, else of the
// replica that applied most. nil: none answered, or none of this group.
func (s *survey) best(gid shardcfg.GroupID) *kvpb.StatusResponse {
	return s.bestOf(gid, s.config.Groups[gid].Replicas)
}

func (s *survey) bestOf(gid shardcfg.GroupID, addresses []string) *kvpb.StatusResponse {
	var best *kvpb.StatusResponse
	rank := func(r *kvpb.StatusResponse) (uint64, uint64) {
		if leads(r) {
			return r.GetTerm(), 1<<63 + r.GetAppliedIndex()
		}
		return 0, r.GetAppliedIndex()
	}
	var term, index uint64
	for _, addr := range addresses {
		r := s.replicas[addr].status
		if r == nil || r.GetGid() != uint64(gid) {
			continue
		}
		t, i := rank(r)
		if best == nil || cmp.Or(cmp.Compare(t, term), cmp.Compare(i, index)) > 0 {
			best, term, index = r, t, i
		}
	}
	return best
}

// leads reports whether a replica says that it leads its group. Without a quorum
// it stops saying so within a timeout.
func leads(r *kvpb.StatusResponse) bool {
	return slices.ContainsFunc(r.GetReplicas(), func(m *kvpb.Replica) bool { return m.GetId() == r.GetId() && m.GetRole() == roleLeader })
}

const roleLeader = "leader"

func (s *survey) groupStatus(gid shardcfg.GroupID, g shardcfg.Group) GroupStatus {
	best := s.bestOf(gid, g.Replicas)
	out := GroupStatus{
		GID: gid, Incarnation: g.Incarnation, State: g.State, Weight: g.Weight,
		Adopted: shardcfg.ConfigNum(best.GetConfig()), Leader: best.GetLeader(),
		Shards: int(best.GetHolding()), Keys: best.GetKeys(), Bytes: best.GetBytes(), Led: leads(best),
	}
	addresses := slices.Clone(g.Replicas)
	for _, m := range best.GetReplicas() {
		if !slices.Contains(addresses, m.GetAddress()) {
			addresses = append(addresses, m.GetAddress())
		}
	}
	for _, addr := range addresses {
		out.Replicas = append(out.Replicas, s.replicaStatus(gid, addr, best))
	}
	slices.SortStableFunc(out.Replicas, func(a, b ReplicaStatus) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// replicaStatus joins what a replica said with what its group says of it.
func (s *survey) replicaStatus(gid shardcfg.GroupID, addr string, best *kvpb.StatusResponse) ReplicaStatus {
	r := ReplicaStatus{Address: addr}
	listed := false
	for _, m := range best.GetReplicas() {
		if m.GetAddress() == addr {
			listed = true
			r.ID, r.Role, r.Healthy = m.GetId(), m.GetRole(), m.GetHealthy()
		}
	}
	a, asked := s.replicas[addr]
	switch {
	case !asked:
		if !r.Healthy {
			r.Problem = "its group does not hear from it"
		}
		return r
	case a.err != nil:
		r.Healthy, r.Problem = false, a.err.Error()
		if r.Role == roleLeader {
			r.Role = "follower" // it was; who does not answer does not lead
		}
		return r
	case a.status.GetGid() != uint64(gid):
		return ReplicaStatus{Address: addr, Problem: "it is of another group"}
	}
	r.ID, r.AppliedIndex, r.Term, r.Answers = a.status.GetId(), a.status.GetAppliedIndex(), a.status.GetTerm(), true
	switch {
	case a.status.GetLeader() == "":
		r.Healthy, r.Problem = false, "it knows no leader"
	case !listed:
		r.Healthy, r.Problem = false, "its group does not list it"
	default:
		r.Healthy = true // it answered: fresher than what the group knows of it
	}
	return r
}

// waitDrained looks until none of the groups is listed.
func (a *Admin) waitDrained(ctx context.Context, gids []shardcfg.GroupID, progress func([]shardcfg.GroupID)) error {
	ctx, drop := a.c.whileOpen(ctx)
	defer drop()
	var last error
	for {
		looking, cancel := context.WithTimeout(ctx, a.c.config.Timeout)
		config, err := a.query(looking, nil)
		cancel()
		if err == nil {
			var left []shardcfg.GroupID
			for _, gid := range gids {
				if _, listed := config.Groups[gid]; listed {
					left = append(left, gid)
				}
			}
			if progress != nil {
				progress(left)
			}
			if len(left) == 0 {
				return nil
			}
		}
		last = obstacle(ctx, last, err)
		if !sleep(ctx, settleEach) {
			return a.waitError(ctx, "wait for groups to drain", last)
		}
	}
}

// obstacle is what stands in the way of a wait after another look: what that look
// met, unless it was cut off.
func obstacle(ctx context.Context, before, met error) error {
	if ctx.Err() != nil && met != nil {
		return before
	}
	return met
}

func (a *Admin) waitError(ctx context.Context, op string, last error) error {
	e := &Error{Op: op, Family: FamilyNotDone, Cause: ended(ctx)}
	var look *Error
	switch {
	case errors.As(last, &look): // what is known of the look is nothing of the wait
		e.Detail = look.Cause.Error()
	case last != nil:
		e.Detail = last.Error()
	}
	return e
}

// locate reads the key, so that redirects are followed to the end, and asks the
// group that answered for the shard's epoch.
func (c *Clerk) locate(ctx context.Context, key []byte) (Location, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if _, err := c.Get(ctx, key); err != nil && !errors.Is(err, ErrNotFound) {
		if failed := (*Error)(nil); errors.As(err, &failed) {
			failed.Op = "locate"
		}
		return Location{}, err
	}
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	t := &c.table.mu.table
	l := Location{Slot: shardcfg.SlotOf(key), Shard: shardcfg.ShardOf(key, t.ShardCount())}
	l.Group, l.Incarnation, l.Leader, l.Epoch, _ = t.Target(l.Shard)
	if config := t.Config(); config != nil {
		l.Owner, _ = config.Owner(l.Shard)
	}
	return l, nil
}
