package host

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// removalEvery is how often a replica that hears of no leader asks the others
// whether it is still a member. A question takes as long at most.
const removalEvery = time.Second

// A removalWatch finds out that the replica was removed from its group. Raft does
// not tell: the leader stops sending, and a replica that was away at that moment
// would stand for election for ever, and be refused in silence.
//
// The word of a replica that leads the same incarnation counts, each time anew: it
// lapses when nobody repeats it, so that a removal that was never committed, or a
// replica that is added again, needs no cure. A newcomer that has no configuration
// yet was never a member, and asks nobody.
type removalWatch struct {
	host    *Host
	replica *runningReplica
	removed atomic.Bool
}

func (w *removalWatch) run(ctx context.Context) {
	ticker := time.NewTicker(removalEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.note(w.ask(ctx))
	}
}

func (w *removalWatch) note(removed bool) {
	if w.removed.Swap(removed) == removed {
		return
	}
	w.replica.replica.Retire(removed)
	if removed {
		w.host.log.Warn("this replica was removed from its group: it votes and serves no more; stop it and delete its directory",
			"group", uint64(w.replica.identity.Group), "id", w.replica.identity.Label, "server", w.replica.identity.ServerID)
		return
	}
	w.host.log.Info("nobody says any more that this replica was removed from its group")
}

// ask reports whether a leader says that this replica is no member.
func (w *removalWatch) ask(ctx context.Context) bool {
	st := w.replica.replica.Status()
	if st.Leader != "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, removalEvery)
	defer cancel()
	var asked sync.WaitGroup
	var removed atomic.Bool
	for _, m := range st.Members {
		if m.ServerID != st.ServerID {
			asked.Go(func() {
				if w.lacksUs(ctx, m) {
					removed.Store(true)
					cancel()
				}
			})
		}
	}
	asked.Wait()
	return removed.Load()
}

func (w *removalWatch) lacksUs(ctx context.Context, m raftgroup.MemberStatus) bool {
	conn, err := w.host.Dial(m.Address)
	if err != nil {
		return false
	}
	list, err := raftpb.NewMembershipClient(conn).List(ctx, &raftpb.ListRequest{})
	own := w.replica.identity.Proto().GetIncarnation()
	if err != nil || !list.GetLeads() || !bytes.Equal(list.GetIdentity().GetIncarnation(), own) {
		return false
	}
	for _, member := range list.GetMembers() {
		if member.GetServerId() == w.replica.identity.ServerID {
			return false
		}
	}
	return true
}
