package host

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
)

// raftStreams is the raft.StreamLayer of one replica: it accepts the streams
// that the mux routes to it, and opens streams that say whom they mean.
type raftStreams struct {
	host     *Host
	identity formation.Identity
	queue    *connQueue
	peers    *peerBook

	opened chan struct{} // closed when member is set
	member member
}

var _ raft.StreamLayer = (*raftStreams)(nil)

func newRaftStreams(h *Host, id formation.Identity, peers *peerBook) *raftStreams {
	s := &raftStreams{host: h, identity: id, peers: peers, opened: make(chan struct{})}
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
	conn, err := s.stream(ctx, target, addr)
	if err != nil {
		return nil, fmt.Errorf("open Raft stream to %s: %w", addr, err)
	}
	return conn, nil
}

// stream opens a stream to the replica of a server id, and waits until it is
// welcome.
func (s *raftStreams) stream(ctx context.Context, target, addr string) (net.Conn, error) {
	m, err := s.running(ctx)
	if err != nil {
		return nil, err
	}
	p := preamble{kind: kindStream, cluster: s.identity.Cluster, incarnation: s.identity.Incarnation,
		process: s.host.process, target: target, source: s.identity.ServerID, address: s.host.Advertise()}
	p.config, _ = m.Members()
	p.term, p.acknowledged = m.Acknowledged(target)
	conn, a, err := s.call(ctx, addr, p)
	if err != nil {
		return nil, err
	}
	if a.code != answerWelcome {
		conn.Close()
		return nil, s.heed(m, a, target)
	}
	return conn, nil
}

// targetSeparator stands between a ServerID and an address in the names that
// peerBook.resolve gives to Raft's transport. No server id contains it.
const targetSeparator = "@"

// A peerBook knows the addresses of the group's members by their server ids: the
// founders, then what the group's newest configuration says. It does not forget
// one that was removed, and has to be told.
type peerBook struct {
	self string

	mu struct {
		sync.Mutex
		addresses map[string]string                              // server id -> address
		source    func() (index uint64, list []formation.Member) // nil before open
	}
}

func newPeerBook(id formation.Identity, renumbered raftgroup.Renumbering) *peerBook {
	b := &peerBook{self: id.ServerID}
	b.mu.addresses = make(map[string]string)
	for _, m := range id.Founders {
		b.mu.addresses[m.ServerID] = renumbered.Address(m.ServerID, m.Address)
	}
	return b
}

// open says where the group's configuration is found.
func (b *peerBook) open(source func() (uint64, []formation.Member)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.source = source
}

// resolve names a member and its address for Dial. The replica itself keeps
// its plain address, because that is what Raft tells the others.
func (b *peerBook) resolve(serverID string) (string, bool) {
	if serverID == b.self {
		return "", false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.learnLocked()
	address, ok := b.mu.addresses[serverID]
	return serverID + targetSeparator + address, ok
}

// at finds the one member at an address; empty if there is none, or two.
func (b *peerBook) at(address string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.learnLocked()
	found := ""
	for id, a := range b.mu.addresses {
		if a != address || id == b.self {
			continue
		}
		if found != "" {
			return ""
		}
		found = id
	}
	return found
}

// learnLocked takes in the newest configuration. Whoever else was at an address
// of it is there no more.
func (b *peerBook) learnLocked() {
	if b.mu.source == nil {
		return
	}
	_, members := b.mu.source()
	for _, m := range members {
		if b.mu.addresses[m.ServerID] == m.Address {
			continue
		}
		maps.DeleteFunc(b.mu.addresses, func(_, a string) bool { return a == m.Address })
		b.mu.addresses[m.ServerID] = m.Address
	}
}

// textAddr is a net.Addr that says what it was given: a host name stays one.
type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }
