package shardkv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/placement"
)

// peerAttemptMax bounds one short call to one replica of another group.
const peerAttemptMax = 2 * time.Second

// peers is the way to the replicas of other groups: it remembers which of them
// answered last. Safe for concurrent use.
type peers struct {
	dial dialer

	mu struct {
		sync.Mutex
		preference placement.Preference
	}
}

func newPeers(dial dialer) *peers { return &peers{dial: dial} }

// errNoPeer is wrapped when no replica of a group answered.
var errNoPeer = errors.New("no replica of the group answered")

// call runs do with one replica of a group after the other, the preferred one
// first, each for at most attemptMax, until one answers; answered is its address.
func (p *peers) call(ctx context.Context, attemptMax time.Duration, group shardcfg.Incarnation, addresses []string,
	do func(context.Context, grpc.ClientConnInterface) error) (answered string, err error) {
	last := errors.New("no address is known")
	for _, address := range p.order(group, addresses) {
		conn, err := p.dial(address)
		if err == nil {
			attempt, cancel := context.WithTimeout(ctx, attemptMax)
			err = do(attempt, conn)
			cancel()
		}
		if err == nil {
			p.prefer(group, address)
			return address, nil
		}
		last = fmt.Errorf("%s: %w", address, err)
		if ctx.Err() != nil {
			break
		}
	}
	p.forget(group)
	return "", fmt.Errorf("%w: %w", errNoPeer, last)
}

func (p *peers) order(group shardcfg.Incarnation, addresses []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.preference.Order(group, addresses)
}

func (p *peers) prefer(group shardcfg.Incarnation, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.preference.Prefer(group, address)
}

func (p *peers) forget(group shardcfg.Incarnation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.preference.Forget(group)
}

// follow goes on from a replica that answers, and is of no help.
func (p *peers) follow(group shardcfg.Incarnation, addresses []string, asked, leader string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.preference.Follow(group, addresses, asked, leader)
}
