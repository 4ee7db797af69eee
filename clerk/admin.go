package clerk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Admin changes and reads the cluster's configuration. It is safe for
// concurrent use. Its calls go from controller to controller until one serves or
// refuses them; they fail before their deadline, with an error that matches
// ErrUnavailable and says what each controller answered, where for 3 s none of
// them accepts a connection, or for 6 s none can serve, as without a majority.
type Admin struct{ c *Clerk }

// Admin returns the administrator's side of the Clerk.
func (c *Clerk) Admin() *Admin { return &Admin{c: c} }

// A JoinGroup is a group that is to become a member.
type JoinGroup struct {
	GID      shardcfg.GroupID
	Replicas []string // addresses, host:port
	Weight   uint32   // 0: 1, or unchanged for a group that is a member already
}

// A Move is one shard's change of owner.
type Move struct {
	Shard    shardcfg.ShardID
	From, To shardcfg.GroupID // 0: no owner
	Bytes    uint64           // as last reported by the holder; 0: not known
}

// A Change is what a change of configuration did, or with Plan would do.
type Change struct {
	// Num is the configuration that it made, or the present one if it changed
	// nothing.
	Num shardcfg.ConfigNum
	// Changed: it made that configuration; false for a plan, and where nothing
	// was to change.
	Changed bool
	Moves   []Move
}

// A ChangeOption modifies a change.
type ChangeOption func(*changeOptions)

type changeOptions struct {
	plan, force bool
	maxPause    time.Duration
}

// Plan changes nothing, and returns what would move.
func Plan() ChangeOption { return func(o *changeOptions) { o.plan = true } }

// Force lets Join take a group whose replicas were not asked who they are, and
// Retire one whose replicas were not asked whether they live.
func Force() ChangeOption { return func(o *changeOptions) { o.force = true } }

// MaxPause lets a shard that Move places be frozen for at most d on its way, by
// estimate, instead of what its holder allows every shard; from 1 ms to a minute.
// Move refuses others with an error that matches ErrInvalid. A longer pause lets a
// shard with many writes go sooner, a shorter one may slow its writes for a while.
func MaxPause(d time.Duration) ChangeOption { return func(o *changeOptions) { o.maxPause = d } }

// Join makes groups members, so that shards move to them. Like all changes it
// takes effect at most once, and doing it again is a success. Where the
// controllers refuse, the error matches ErrRefused.
func (a *Admin) Join(ctx context.Context, groups []JoinGroup, options ...ChangeOption) (Change, error) {
	r := &ctrlpb.JoinRequest{}
	for _, g := range groups {
		r.Groups = append(r.Groups, &ctrlpb.JoinGroup{
			Gid: uint64(g.GID), Replicas: slices.Clone(g.Replicas), Weight: g.Weight,
		})
	}
	o := collectChange(options)
	r.Plan, r.Force = o.plan, o.force
	return a.change(ctx, "join", o, func(ctx context.Context, client ctrlpb.ControllerClient, id *ctrlpb.RequestID, cluster []byte) (*ctrlpb.ChangeReply, error) {
		r.Request, r.Cluster = id, cluster
		return client.Join(ctx, r)
	})
}

// Leave gives the groups' shards to others. A group stays listed, as leaving,
// until it holds nothing any more; WaitDrained waits for that. One that is leaving
// or has left is no error; a gid under which no group ever lived is ErrNotFound.
func (a *Admin) Leave(ctx context.Context, gids []shardcfg.GroupID, options ...ChangeOption) (Change, error) {
	r := &ctrlpb.LeaveRequest{}
	for _, gid := range gids {
		r.Gids = append(r.Gids, uint64(gid))
	}
	o := collectChange(options)
	r.Plan = o.plan
	return a.change(ctx, "leave", o, func(ctx context.Context, client ctrlpb.ControllerClient, id *ctrlpb.RequestID, cluster []byte) (*ctrlpb.ChangeReply, error) {
		r.Request, r.Cluster = id, cluster
		return client.Leave(ctx, r)
	})
}

// Move places a shard by hand: it is pinned to the group until Unpin, or until
// the group leaves.
func (a *Admin) Move(ctx context.Context, shard shardcfg.ShardID, gid shardcfg.GroupID, options ...ChangeOption) (Change, error) {
	o := collectChange(options)
	if o.maxPause != 0 && (o.maxPause < time.Millisecond || o.maxPause > shardcfg.PauseMSMax*time.Millisecond) {
		return Change{}, &Error{Op: "move", Family: FamilyNotDone, Cause: ErrInvalid, Detail: fmt.Sprintf("a pause of %v is not from 1ms to 1m", o.maxPause)}
	}
	r := &ctrlpb.MoveRequest{Shard: uint32(shard), Gid: uint64(gid), Plan: o.plan, MaxPauseMs: uint32(o.maxPause.Milliseconds())}
	return a.change(ctx, "move", o, func(ctx context.Context, client ctrlpb.ControllerClient, id *ctrlpb.RequestID, cluster []byte) (*ctrlpb.ChangeReply, error) {
		r.Request, r.Cluster = id, cluster
		return client.Move(ctx, r)
	})
}

// Unpin lets a shard be balanced again.
func (a *Admin) Unpin(ctx context.Context, shard shardcfg.ShardID, options ...ChangeOption) (Change, error) {
	o := collectChange(options)
	r := &ctrlpb.UnpinRequest{Shard: uint32(shard), Plan: o.plan}
	return a.change(ctx, "unpin", o, func(ctx context.Context, client ctrlpb.ControllerClient, id *ctrlpb.RequestID, cluster []byte) (*ctrlpb.ChangeReply, error) {
		r.Request, r.Cluster = id, cluster
		return client.Unpin(ctx, r)
	})
}

func collectChange(options []ChangeOption) changeOptions {
	var o changeOptions
	for _, set := range options {
		set(&o)
	}
	return o
}

// change makes one change of configuration, exactly once: every attempt carries
// the same request id.
func (a *Admin) change(ctx context.Context, name string, o changeOptions,
	do func(context.Context, ctrlpb.ControllerClient, *ctrlpb.RequestID, []byte) (*ctrlpb.ChangeReply, error),
) (Change, error) {
	id := draw128[shardcfg.ID128]()
	request := &ctrlpb.RequestID{Id: id[:]}
	var reply *ctrlpb.ChangeReply
	err := a.insist(ctx, name, !o.plan, func(ctx context.Context, client ctrlpb.ControllerClient) (err error) {
		if request.BirthMs == 0 {
			if request.BirthMs, err = a.clock(ctx, client); err != nil {
				return preliminary{err}
			}
		}
		reply, err = do(ctx, client, request, a.c.table.clusterBytes())
		return err
	})
	if err != nil {
		return Change{}, err
	}
	change := Change{Num: shardcfg.ConfigNum(reply.GetNum()), Changed: reply.GetChanged()}
	for _, m := range reply.GetMoves() {
		change.Moves = append(change.Moves, Move{
			Shard: shardcfg.ShardID(m.GetShard()), Bytes: m.GetBytes(),
			From: shardcfg.GroupID(m.GetFrom()), To: shardcfg.GroupID(m.GetTo()),
		})
	}
	if !o.plan {
		a.c.refresh.want()
	}
	return change, nil
}

// clock asks the controllers what time it is. A change is dated by their clock, so
// that a client whose own is wrong is not refused.
func (a *Admin) clock(ctx context.Context, client ctrlpb.ControllerClient) (ms uint64, err error) {
	now, err := client.Query(ctx, &ctrlpb.QueryRequest{Cluster: a.c.table.clusterBytes()})
	if err != nil {
		return 0, err
	}
	return now.GetClockMs(), a.c.table.belongs(now.GetCluster())
}

// insist runs do, round after round, until a controller serves or refuses it, the
// deadline passes, or there seems to be nobody who could. effect: an attempt
// without an answer leaves the outcome unknown.
func (a *Admin) insist(ctx context.Context, name string, effect bool, do func(context.Context, ctrlpb.ControllerClient) error) error {
	ctx, cancel := a.c.deadline(ctx)
	defer cancel()
	ctx, drop := a.c.whileOpen(ctx)
	defer drop()
	if why := a.c.over(ctx); why != nil {
		return &Error{Op: name, Family: FamilyNotDone, Cause: why}
	}
	unresolved, reached := false, false
	wait, start := retryMin, time.Now()
	for {
		err := a.c.ctl.once(ctx, do)
		if err == nil {
			return nil
		}
		var round *roundError
		errors.As(err, &round)
		unresolved = unresolved || effect && round.unresolved
		e := &Error{Op: name, Family: FamilyNotDone, Cause: round.cause}
		if unresolved {
			e.Family = FamilyOutcomeUnknown
		}
		if !errors.Is(round.cause, ErrUnavailable) {
			if !effect && errors.Is(round.cause, ErrNotFound) {
				e.Family = FamilyDone
			}
			return e
		}
		// Who asked learns more from an error now than from one at the deadline.
		reached = reached || round.reached
		took, nobody := time.Since(start), len(a.c.ctl.addresses()) == 0
		if nobody || !unresolved && (took >= leaderlessMax || took >= unreachableMax && !reached) {
			return e
		}
		if !sleep(ctx, wait) {
			e.Cause, e.Detail = a.c.over(ctx), round.cause.Error()
			return e
		}
		wait = min(2*wait, retryMax)
	}
}

// Latest returns the latest configuration; it reflects every change that
// completed before. The config is shared and must not be changed.
func (a *Admin) Latest(ctx context.Context) (*shardcfg.Config, error) {
	return a.query(ctx, nil)
}

// Query returns the configuration of a number; one that the controllers don't
// keep, or never made, is ErrNotFound.
func (a *Admin) Query(ctx context.Context, num shardcfg.ConfigNum) (*shardcfg.Config, error) {
	n := uint64(num)
	return a.query(ctx, &n)
}

// query returns a numbered config, or the latest.
func (a *Admin) query(ctx context.Context, num *uint64) (*shardcfg.Config, error) {
	var config *shardcfg.Config
	err := a.insist(ctx, "config", false, func(ctx context.Context, client ctrlpb.ControllerClient) error {
		reply, err := client.Query(ctx, &ctrlpb.QueryRequest{Cluster: a.c.table.clusterBytes(), Num: num})
		if err != nil {
			return err
		}
		if err := a.c.table.belongs(reply.GetCluster()); err != nil {
			return err
		}
		if config, err = ctrlpb.ToConfig(reply.GetConfig()); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		a.c.sessions.observe(reply.GetClockMs())
		if num == nil && a.c.config.Pinned == nil {
			a.c.adopt(config, reply.GetHints())
		}
		return nil
	})
	return config, err
}

// Progress is how far the shards are on their way to their owners.
type Progress struct {
	Num     shardcfg.ConfigNum
	Total   int // shards
	Settled int // shards that serve at their owner, or have none
	// CopiedBytes of TotalBytes of the shards that are moving, as far as known.
	CopiedBytes, TotalBytes uint64
}

// WaitSettled returns when every shard is served by its owner in the latest
// configuration, num or later. progress, if not nil, is called from this
// goroutine after every look. A call with no deadline in ctx waits for as long
// as it takes: it is not bounded by Config.Timeout.
func (a *Admin) WaitSettled(ctx context.Context, num shardcfg.ConfigNum, progress func(Progress)) error {
	return a.waitSettled(ctx, num, progress)
}

// WaitDrained returns when none of the groups is listed any more: they hold
// nothing and may be switched off. progress, if not nil, is called with those
// that are left. Like WaitSettled it is bounded by ctx only.
func (a *Admin) WaitDrained(ctx context.Context, gids []shardcfg.GroupID, progress func(left []shardcfg.GroupID)) error {
	return a.waitDrained(ctx, gids, progress)
}

// A ReplicaStatus is one replica of a group or of the controllers.
type ReplicaStatus struct {
	ID           string // its label; empty: it never answered
	Address      string
	Role         string // leader, follower, learner; empty: not known
	AppliedIndex uint64 // by its own word; 0: not known
	Term         uint64
	// Answers: it answered, and is of the group that it is listed for.
	Answers bool
	// Healthy: it answered, and its group knows it as such.
	Healthy bool
	// Problem says why it is not, in words.
	Problem string
}

// A GroupStatus is one group as its replicas describe it.
type GroupStatus struct {
	GID         shardcfg.GroupID
	Incarnation shardcfg.Incarnation
	State       shardcfg.GroupState
	Weight      uint32
	Adopted     shardcfg.ConfigNum
	Leader      string // its address; empty: not known
	// Led: a replica answered that leads the group. What is below is its word then;
	// else that of a replica which may lag.
	Led      bool
	Replicas []ReplicaStatus
	// Shards that it holds, and what is in them.
	Shards int
	Keys   uint64
	Bytes  uint64
}

// A Handoff is a shard on its way.
type Handoff struct {
	Shard                   shardcfg.ShardID
	From, To                shardcfg.GroupID
	Phase                   string // leaving, frozen, or waiting
	CopiedBytes, TotalBytes uint64
	Pause                   time.Duration // how long it has been frozen
	Waiting                 string        // what for, in words
}

// A ShardStatus is one shard, as its owner and holder describe it.
type ShardStatus struct {
	Shard  shardcfg.ShardID
	Owner  shardcfg.GroupID // that should hold it; 0: none
	Holder shardcfg.GroupID // that does; 0: not known, or never created
	Epoch  shardcfg.Epoch
	Phase  string // absent, serving, leaving, frozen
	// To is the group that a leaving or frozen shard is on its way to, or that an
	// absent one was passed on to, by the newest word; 0: none.
	To shardcfg.GroupID
	// ToRetired: that group was declared destroyed.
	ToRetired bool
	Pause     time.Duration // for how long it has been frozen, as far as known
	Keys      uint64
	Bytes     uint64
	Digest    []byte
	// Revision of the shard at its holder.
	Revision uint64
}

// Settled reports whether the shard is where it should be.
func (s ShardStatus) Settled() bool {
	return s.Owner == 0 || s.Owner == s.Holder && s.Phase == phaseServing
}

// A Status is the whole cluster at about one moment.
type Status struct {
	// Config is nil if nobody told any: then owners are not known, and Groups are
	// those that the replicas named.
	Config *shardcfg.Config
	// ConfigErr, if not nil, is why the controllers did not tell the latest
	// configuration: Config is the newest that the Clerk knows, and may be old.
	ConfigErr   error
	Controllers []ReplicaStatus
	// Groups in ascending order of gid.
	Groups []GroupStatus
	// Unjoined are groups that run and that the configuration does not list: spare
	// ones, and those that have left.
	Unjoined []GroupStatus
	// Shards in ascending order.
	Shards   []ShardStatus
	Handoffs []Handoff
	// Total, Settled, Moving and Unavailable count shards; each is counted once
	// besides in Total. An unavailable one is served by nobody.
	Total, Settled, Moving, Unavailable int
}

// Status asks every controller and every replica at once, and puts together
// what they say. It succeeds as long as a configuration is known, from the
// controllers or from before, or replicas that tell of their groups; who did not
// answer is listed as unhealthy.
func (a *Admin) Status(ctx context.Context) (*Status, error) { return a.status(ctx) }

// Locate returns where a key lives, from what the Clerk knows, after asking the
// controllers and the group.
func (c *Clerk) Locate(ctx context.Context, key []byte) (Location, error) {
	return c.locate(ctx, key)
}
