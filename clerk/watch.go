package clerk

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Watch yields the newest configuration now and after every change, skipping
// numbers that were overtaken, until ctx ends or the loop does. It goes from
// one controller to another as they fail; the only error that it yields, as its
// last, is that ctx ended, that the Clerk was closed, that no controller is
// known, or that the controllers belong to another cluster. It has no deadline
// but that of ctx. The configs are shared and must not be changed.
func (a *Admin) Watch(ctx context.Context) iter.Seq2[*shardcfg.Config, error] {
	return func(yield func(*shardcfg.Config, error) bool) {
		ctx, drop := a.c.whileOpen(ctx)
		defer drop()
		var have *shardcfg.Config
		wait := retryMin
		for turn := 0; ; turn++ {
			before := have
			addresses := a.c.ctl.addresses()
			if len(addresses) == 0 {
				yield(nil, &Error{Op: "watch", Family: FamilyNotDone, Cause: ErrUnavailable, Detail: "no controller is configured"})
				return
			}
			err := a.follow(ctx, addresses[turn%len(addresses)], &have, yield)
			switch {
			case err == nil:
				return
			case errors.Is(err, ErrWrongCluster):
				yield(nil, &Error{Op: "watch", Family: FamilyNotDone, Cause: err})
				return
			case have != before:
				wait = retryMin
			}
			if !sleep(ctx, wait) {
				cause := ended(ctx)
				if a.c.life.Err() != nil {
					cause = ErrClosed
				}
				yield(nil, &Error{Op: "watch", Family: FamilyNotDone, Cause: cause, Detail: err.Error()})
				return
			}
			wait = min(2*wait, retryMax)
		}
	}
}

// follow yields what one controller's stream brings; nil: the loop ended.
func (a *Admin) follow(ctx context.Context, addr string, have **shardcfg.Config, yield func(*shardcfg.Config, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connecting, stop := context.WithTimeout(ctx, controllerMax)
	conn, err := a.c.pool.ready(connecting, addr)
	stop()
	if err != nil {
		return fmt.Errorf("%s %w", addr, err)
	}
	r := &ctrlpb.WatchRequest{Cluster: a.c.table.clusterBytes()}
	if *have != nil {
		r.Have = uint64((*have).Num)
	}
	stream, err := ctrlpb.NewControllerClient(conn).Watch(ctx, r)
	if err != nil {
		return err
	}
	for {
		reply, err := stream.Recv()
		if err != nil {
			if refused := refusalOf(err); errors.Is(refused, ErrWrongCluster) {
				return refused
			}
			return err
		}
		if err := a.c.table.belongs(reply.GetCluster()); err != nil {
			return err
		}
		next, err := configOf(reply, *have)
		if err != nil {
			*have = nil // start over with a whole config
			return err
		}
		if *have != nil && next.Num <= (*have).Num {
			continue
		}
		*have = next
		if a.c.config.Pinned == nil {
			a.c.adopt(next, nil)
		}
		if !yield(next, nil) {
			return nil
		}
	}
}

// configOf is the config that a message of a watch leads to.
func configOf(reply *ctrlpb.WatchReply, have *shardcfg.Config) (*shardcfg.Config, error) {
	if reply.GetDelta() == nil {
		return ctrlpb.ToConfig(reply.GetConfig())
	}
	if have == nil {
		return nil, errors.New("a delta came before any configuration")
	}
	delta, err := ctrlpb.ToDelta(reply.GetDelta(), len(have.Shards))
	if err != nil {
		return nil, err
	}
	return delta.Apply(have)
}
