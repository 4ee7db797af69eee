package shardkv

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/raftgroup/host/fence"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

const (
	// fetchHoldBack is shorter than holdBackMax: other shards wait for their turn
	// behind it.
	fetchHoldBack = 20 * time.Millisecond
	// fetchAttempts is how many replicas may be silent in turn before a Fetch is given
	// up.
	fetchAttempts = 3
	// copyWaitMax is for how long a Fetch waits for the rate of copying; shorter
	// than the driver waits for its answer.
	copyWaitMax = 500 * time.Millisecond
	// limiterBurst is what may be copied at once after a quiet time.
	limiterBurst = 16 << 20
	// foregroundShare is how many requests in flight halve the rate of copying.
	foregroundShare = 64
)

// invite sends an Invite and passes its answers on.
func (m *mover) invite(ctx context.Context, i handoff.Invite) {
	defer m.poke()
	ctx, cancel := context.WithTimeout(fence.WithTarget(ctx, i.To.Incarnation), invitingMax)
	defer cancel()
	if i.Hold {
		m.inviteFrozen(ctx, i)
		return
	}
	begun := time.Now()
	if _, err := m.inviteOnce(ctx, &i, 0); err == nil {
		m.measure(&m.mu.rates.RoundTrip, time.Since(begun))
	}
}

// inviteFrozen asks for frozen shards until all are served by the receiver, for
// as long as one answer may be held back; then the driver asks again.
func (m *mover) inviteFrozen(ctx context.Context, i handoff.Invite) {
	until := time.Now().Add(holdBackMax)
	for len(i.Shards) > 0 {
		wait := time.Until(until)
		answer, err := m.inviteOnce(ctx, &i, max(wait, 0))
		if err != nil || wait <= 0 {
			return
		}
		m.poke()
		var rest []handoff.Invitation
		for k, v := range i.Shards {
			if !v.Epoch.Less(answer.Shards[k].Epoch) {
				rest = append(rest, v)
			}
		}
		i.Shards = rest
	}
}

// inviteOnce sends one Invite and passes its answer on.
func (m *mover) inviteOnce(ctx context.Context, i *handoff.Invite, wait time.Duration) (answer handoff.InviteReply, err error) {
	request := inviteMessage(m.n.identity.Cluster, i)
	request.WaitMs = uint32(wait.Milliseconds())
	var reply *kvpb.InviteReply
	asked, err := m.s.peers.call(ctx, peerAttemptMax, i.To.Incarnation, i.Replicas, func(ctx context.Context, c grpc.ClientConnInterface) (err error) {
		reply, err = kvpb.NewHandoffClient(c).Invite(ctx, request)
		return err
	})
	if err == nil {
		answer, err = toInviteReply(reply, m.n.identity.ShardCount)
	}
	if err == nil && (answer.From != i.To.Incarnation || len(answer.Shards) != len(i.Shards)) {
		err = errors.New("another group answered, or something else than was asked")
	}
	if err != nil {
		m.n.log.Debug("handoff: invite", "to", i.To.Group, "error", err)
		return answer, err // the driver repeats what is not answered
	}
	if !reply.GetLeading() {
		m.s.peers.follow(i.To.Incarnation, i.Replicas, asked, reply.GetLeader())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.driver.Answered(m.now(), *i, answer)
	return answer, nil
}

// fetch sends one Fetch and passes the pages on. While copying is ahead of its
// rate it asks for tails only.
func (m *mover) fetch(ctx context.Context, f handoff.Fetch) {
	defer m.poke()
	f, early := m.inTime(f)
	if early > copyWaitMax {
		return // all of it; the driver asks again
	}
	m.n.pause(ctx, early)
	ctx, cancel := context.WithTimeout(fence.WithTarget(ctx, f.From.Incarnation), f.Patience)
	defer cancel()
	request := fetchMessage(m.n.identity.Cluster, &f)
	request.WaitMs = uint32(fetchHoldBack.Milliseconds())
	var reply *kvpb.FetchReply
	asked, err := m.s.peers.call(ctx, f.Patience/fetchAttempts, f.From.Incarnation, m.addresses(&f), func(ctx context.Context, c grpc.ClientConnInterface) (err error) {
		reply, err = kvpb.NewHandoffClient(c).Fetch(ctx, request)
		return err
	})
	var pages []kvfsm.Page
	if err == nil {
		if !reply.GetLeading() {
			m.s.peers.follow(f.From.Incarnation, m.addresses(&f), asked, reply.GetLeader())
		}
		pages, err = toPages(reply, m.n.identity.ShardCount)
	}
	m.chargeCopy(&f, pages)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.n.log.Debug("handoff: fetch", "from", f.From.Group, "error", err)
		m.mu.driver.FetchFailed(m.now(), f)
		return
	}
	m.mu.driver.Fetched(m.now(), f, pages)
}

// addresses are those of the holder: as the driver knows them, else as the
// holder said when it invited us.
func (m *mover) addresses(f *handoff.Fetch) []string {
	if len(f.Replicas) > 0 {
		return f.Replicas
	}
	return m.n.places.addressesOf(f.From)
}

// inTime returns what of a Fetch may be asked for when copying is ahead of its
// rate: tails at once, copies only after a wait. If that is long the driver is
// told to ask again later. The wait comes before the page and not behind it, because a page
// at hand that had to wait longer than its call may take would be thrown away:
// then a low rate, or a busy server, would let nothing move at all (INV-5).
func (m *mover) inTime(f handoff.Fetch) (now handoff.Fetch, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wait = time.Until(m.mu.copyAfter)
	if wait <= 0 {
		return f, 0
	}
	tails := f
	tails.Wants = nil
	for _, w := range f.Wants {
		if w.Cursor.Tail {
			tails.Wants = append(tails.Wants, w)
		}
	}
	if len(tails.Wants) > 0 {
		return tails, 0
	}
	if wait > copyWaitMax {
		m.mu.driver.FetchFailed(m.now(), f)
	}
	return f, wait
}

// chargeCopy puts off the next copies by what pages take at the rate of copying,
// and lets copying yield to clients: the more requests are in flight, the slower
// it is. Tails cost nothing, because clients wait for their end; but the last page of
// a copy, which may be its only one, is none.
func (m *mover) chargeCopy(f *handoff.Fetch, pages []kvfsm.Page) {
	size := 0
	for i := range pages[:min(len(pages), len(f.Wants))] {
		n := pages[i].Bytes()
		m.s.metrics.copied.Add(float64(n))
		if !f.Wants[i].Cursor.Tail {
			size += n
		}
	}
	requests, _ := m.s.total.inFlight()
	size += size * requests / foregroundShare
	now := time.Now()
	var delay time.Duration
	for size > 0 {
		n := min(size, limiterBurst)
		delay = m.s.limiter.ReserveN(now, n).DelayFrom(now)
		size -= n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if after := now.Add(delay); after.After(m.mu.copyAfter) {
		m.mu.copyAfter = after
	}
}

// invited passes an invitation to the driver.
func (m *mover) invited(i handoff.Invite) {
	m.mu.Lock()
	m.mu.driver.Invited(m.now(), i)
	m.mu.Unlock()
	m.poke()
}

// wanted tells the driver how far a receiver is.
func (m *mover) wanted(to shardcfg.Incarnation, wants []kvfsm.Want) {
	m.mu.Lock()
	m.mu.driver.Wanted(m.now(), to, wants)
	m.mu.Unlock()
	m.poke()
}
