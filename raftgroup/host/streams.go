package host

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// raftStreams is the raft.StreamLayer of one replica: it accepts the streams
// that the mux routes to it, and opens streams that say whom they mean.
type raftStreams struct {
	host     *Host
	identity formation.Identity
	queue    *connQueue
	peers    *peerBook
}

var _ raft.StreamLayer = (*raftStreams)(nil)

func newRaftStreams(h *Host, id formation.Identity, peers *peerBook) *raftStreams {
	s := &raftStreams{host: h, identity: id, peers: peers}
	s.queue = newConnQueue(textAddr(h.Advertise()))
	h.mux.addRoute(s)
	return s
}

// Accept waits for the next stream whose preamble names this replica.
func (s *raftStreams) Accept() (net.Conn, error) { return s.queue.Accept() }

// Close ends Accept. Streams that were accepted are closed by their user, and
// in the end by the host.
func (s *raftStreams) Close() error {
	s.host.mux.dropRoute(s)
	return s.queue.Close()
}

// Addr is the address that the host advertises: Raft tells it to the others.
func (s *raftStreams) Addr() net.Addr { return s.queue.Addr() }

// Dial opens a stream to a replica, named as peerBook.resolve does. An address
// without a name is looked up; the accepting side refuses a stream that names
// nobody, as two disks may stand behind one address, one after the other.
func (s *raftStreams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	target, addr, named := strings.Cut(string(address), targetSeparator)
	if !named {
		target, addr = s.peers.at(string(address)), string(address)
	}
	if target == "" {
		return nil, fmt.Errorf("open Raft stream to %s: no member of the group is known at this address", addr)
	}
	ctx, cancel := context.WithTimeout(s.host.ctx, timeout)
	defer cancel()
	conn, err := s.host.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("open Raft stream to %s: %w", addr, err)
	}
	hello := preamble{
		cluster: s.identity.Cluster, incarnation: s.identity.Incarnation,
		target: target, source: s.identity.ServerID,
	}.append(nil)
	deadline, _ := ctx.Deadline()
	if err = conn.SetDeadline(deadline); err == nil {
		if _, err = conn.Write(hello); err == nil {
			err = conn.SetDeadline(time.Time{})
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open Raft stream to %s: %w", addr, err)
	}
	return conn, nil
}

// targetSeparator stands between a ServerID and an address in the names that
// peerBook.resolve gives to Raft's transport. No server id contains it.
const targetSeparator = "@"

// A peerBook knows the addresses of the group's members by their server ids. It
// begins with the founders and follows the group's configuration: a miss wakes
// the goroutine that rereads it.
type peerBook struct {
	self string
	miss chan struct{} // of capacity 1

	mu struct {
		sync.Mutex
		addresses map[string]string // server id -> address
	}
}

func newPeerBook(id formation.Identity) *peerBook {
	b := &peerBook{self: id.ServerID, miss: make(chan struct{}, 1)}
	b.learn(id.Founders)
	return b
}

// learn replaces what the book knows, except by nothing.
func (b *peerBook) learn(members []formation.Member) {
	if len(members) == 0 {
		return
	}
	addresses := make(map[string]string, len(members))
	for _, m := range members {
		addresses[m.ServerID] = m.Address
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.addresses = addresses
}

// resolve names a member and its address for Dial. The replica itself keeps
// its plain address, because that is what Raft tells the others.
func (b *peerBook) resolve(serverID string) (string, bool) {
	if serverID == b.self {
		return "", false
	}
	b.mu.Lock()
	address, ok := b.mu.addresses[serverID]
	b.mu.Unlock()
	if !ok {
		b.wake()
		return "", false
	}
	return serverID + targetSeparator + address, true
}

// at finds the one member at an address; empty if there is none, or two.
func (b *peerBook) at(address string) string {
	b.mu.Lock()
	found := ""
	for id, a := range b.mu.addresses {
		if a != address || id == b.self {
			continue
		}
		if found != "" {
			found = ""
			break
		}
		found = id
	}
	b.mu.Unlock()
	if found == "" {
		b.wake()
	}
	return found
}

func (b *peerBook) wake() {
	select {
	case b.miss <- struct{}{}:
	default:
	}
}

// follow rereads the group's members after a miss, at most once per interval,
// until ctx ends.
func (b *peerBook) follow(ctx context.Context, members func() []formation.Member) {
	const interval = 100 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.miss:
		}
		b.learn(members())
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// textAddr is a net.Addr that says what it was given: a host name stays one.
type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }
