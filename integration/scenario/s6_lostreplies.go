package scenario

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/integration/proxy"
)

// replyLoss is the fraction of replies that S6 loses.
const replyLoss = 0.2

// lostReplies is S6.
func lostReplies(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 3)
	if err != nil {
		return err
	}
	defer c.Close()
	proxies, err := proxyGroups(c, e.Seed)
	if err != nil {
		return err
	}
	defer proxies.close()
	via := config(c)
	via.Dialer = proxies.dial
	l, err := e.load(ctx, via, "s6/")
	if err != nil {
		return err
	}
	admin, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer admin.Close()
	m := startMover(ctx, e, admin)
	err = e.changeLeaders(ctx, c)
	moves := m.stop()
	if err != nil {
		return err
	}
	lost, replies := proxies.counts()
	e.Observe("replies lost after execution", "%d of %d messages, while %d moves were asked for", lost, replies, moves)
	if lost == 0 {
		return fmt.Errorf("no reply was lost")
	}
	if err := settled(ctx, admin); err != nil {
		return err
	}
	proxies.setLoss(0) // the final reads need no luck
	if err := l.judge(ctx); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}

// changeLeaders stops the leader of one group after the other, with SIGTERM and
// SIGKILL in turn, and restarts it, for the time of the load.
func (e *Env) changeLeaders(ctx context.Context, c *cluster.Cluster) error {
	changes := 0
	for end := time.Now().Add(e.Scale.Load); time.Now().Before(end); changes++ {
		p := c.Leader(ctx, uint64(1+changes%3))
		if p != nil {
			var err error
			if changes%2 == 0 {
				err = p.Kill()
			} else {
				_, err = p.Stop(30 * time.Second)
			}
			if err != nil {
				return err
			}
			if err := p.Start(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
	}
	e.Observe("leader changes", "%d", changes)
	return nil
}

// groupProxies stand before every replica of every group.
type groupProxies map[string]*proxy.Proxy

func proxyGroups(c *cluster.Cluster, seed uint64) (groupProxies, error) {
	ps := groupProxies{}
	for _, replicas := range c.Groups {
		for _, r := range replicas {
			p, err := proxy.Start(r.Addr, replyLoss, seed)
			if err != nil {
				ps.close()
				return nil, err
			}
			ps[r.Addr] = p
		}
	}
	return ps, nil
}

// dial is a clerk's Dialer: what has a proxy is reached through it.
func (ps groupProxies) dial(ctx context.Context, addr string) (net.Conn, error) {
	if p, ok := ps[addr]; ok {
		addr = p.Addr()
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func (ps groupProxies) counts() (lost, replies uint64) {
	for _, p := range ps {
		lost, replies = lost+p.Lost(), replies+p.Replies()
	}
	return lost, replies
}

func (ps groupProxies) setLoss(loss float64) {
	for _, p := range ps {
		p.SetLoss(loss)
	}
}

func (ps groupProxies) close() {
	for _, p := range ps {
		p.Close()
	}
}
