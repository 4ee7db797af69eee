package shardkv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// peerAttemptMax bounds one call to one replica of another group.
const peerAttemptMax = 2 * time.Second

// peers is the way to the replicas of other groups: it remembers which of them
// answered last. Safe for concurrent use.
type peers struct {
	dial dialer

	mu struct {
		sync.Mutex
		preferred map[shardcfg.Incarnation]string
	}
}

func newPeers(dial dialer) *peers {
	p := &peers{dial: dial}
	p.mu.preferred = map[shardcfg.Incarnation]string{}
	return p
}

// errNoPeer is wrapped when no replica of a group answered.
var errNoPeer = errors.New("no replica of the group answered")

// call runs do with one replica of a group after the other, the preferred one
// first, until one answers.
func (p *peers) call(ctx context.Context, group shardcfg.Incarnation, addresses []string,
	do func(context.Context, grpc.ClientConnInterface) error) error {
	last := errors.New("no address is known")
	for _, address := range p.order(group, addresses) {
		conn, err := p.dial(address)
		if err == nil {
			attempt, cancel := context.WithTimeout(ctx, peerAttemptMax)
			err = do(attempt, conn)
			cancel()
		}
		if err == nil {
			p.prefer(group, address)
			return nil
		}
		last = fmt.Errorf("%s: %w", address, err)
		if ctx.Err() != nil {
			break
		}
	}
	p.prefer(group, "")
	return fmt.Errorf("%w: %w", errNoPeer, last)
}

func (p *peers) order(group shardcfg.Incarnation, addresses []string) []string {
	p.mu.Lock()
	preferred := p.mu.preferred[group]
	p.mu.Unlock()
	if preferred == "" {
		return addresses
	}
	order := append(make([]string, 0, len(addresses)+1), preferred)
	for _, a := range addresses {
		if a != preferred {
			order = append(order, a)
		}
	}
	return order
}

// preferredMax bounds the groups of which it is remembered whom to ask first.
const preferredMax = 4096

// prefer makes address the first to be asked, for a group that is to be asked
// again; empty: none.
func (p *peers) prefer(group shardcfg.Incarnation, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.preferred) >= preferredMax {
		clear(p.mu.preferred)
	}
	if address == "" {
		delete(p.mu.preferred, group)
	} else {
		p.mu.preferred[group] = address
	}
}

// rotate makes the address after the preferred one the first to be asked: the
// preferred one answers, and is of no help.
func (p *peers) rotate(group shardcfg.Incarnation, addresses []string) {
	if len(addresses) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.Index(addresses, p.mu.preferred[group])
	p.mu.preferred[group] = addresses[(at+1)%len(addresses)]
}

// follow asks leader first from now on, or, where it is not known, the next
// address.
func (p *peers) follow(group shardcfg.Incarnation, addresses []string, leader string) {
	if leader != "" {
		p.prefer(group, leader)
		return
	}
	p.rotate(group, addresses)
}
