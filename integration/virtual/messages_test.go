package virtual

import (
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rpcTimeout is how long a sender waits for an answer.
const rpcTimeout = 2 * time.Second

// A messages is a Raft transport that carries each message as a whole, and its
// answer after it, over the network's links. A message or answer that is held
// arrives late, when its sender has long given up. There is one for each life of
// a replica.
type messages struct {
	w       *world
	address string
	inbox   chan raft.RPC
	life    chan struct{} // closed when the replica crashed or closed
	once    sync.Once
}

var (
	_ raft.Transport   = (*messages)(nil)
	_ raft.WithPreVote = (*messages)(nil)
	_ raft.WithClose   = (*messages)(nil)
)

func newMessages(w *world, address string) *messages {
	return &messages{w: w, address: address, inbox: make(chan raft.RPC, 16), life: make(chan struct{})}
}

// kill loses everything that is on its way to or from this life.
func (m *messages) kill() { m.once.Do(func() { close(m.life) }) }

func (m *messages) dead() bool {
	select {
	case <-m.life:
		return true
	default:
		return false
	}
}

// call sends a request, which must not be shared with the sender, and waits for
// the answer.
func (m *messages) call(target raft.ServerAddress, request any, data io.Reader, timeout time.Duration) (any, error) {
	answer := make(chan raft.RPCResponse, 1)
	go m.carry(string(target), request, data, answer)
	select {
	case a := <-answer:
		return a.Response, a.Error
	case <-time.After(timeout):
		return nil, errLost
	}
}

// carry is the way of one message and its answer.
func (m *messages) carry(to string, request any, data io.Reader, answer chan<- raft.RPCResponse) {
	if !m.w.network.carry(m.address, to) || m.dead() {
		return
	}
	peer, reachable := m.w.messagesOf(to)
	if !reachable {
		return // a host that is off answers nothing
	}
	if peer == nil {
		answer <- raft.RPCResponse{Error: errUnreachable}
		return
	}
	back := make(chan raft.RPCResponse, 1)
	select {
	case peer.inbox <- raft.RPC{Command: request, Reader: data, RespChan: back}:
	case <-peer.life:
		return
	}
	var a raft.RPCResponse
	select {
	case a = <-back:
	case <-peer.life:
		return
	}
	if m.w.network.carry(to, m.address) && !peer.dead() && !m.dead() {
		answer <- a
	}
}

// AppendEntries implements raft.Transport.
func (m *messages) AppendEntries(_ raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	m.w.leads(args)
	own := *args
	own.Entries = slices.Clone(args.Entries)
	a, err := m.call(target, &own, nil, rpcTimeout)
	if err != nil {
		return err
	}
	*resp = *a.(*raft.AppendEntriesResponse)
	return nil
}

// RequestVote implements raft.Transport.
func (m *messages) RequestVote(_ raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	own := *args
	a, err := m.call(target, &own, nil, rpcTimeout)
	if err != nil {
		return err
	}
	*resp = *a.(*raft.RequestVoteResponse)
	return nil
}

// RequestPreVote implements raft.WithPreVote.
func (m *messages) RequestPreVote(_ raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	own := *args
	a, err := m.call(target, &own, nil, rpcTimeout)
	if err != nil {
		return err
	}
	*resp = *a.(*raft.RequestPreVoteResponse)
	return nil
}

// InstallSnapshot implements raft.Transport. The stream breaks when the link
// does; the sender's timeout ends it for the receiver too.
func (m *messages) InstallSnapshot(_ raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	m.w.sends(args)
	own := *args
	stream := &snapshotStream{m: m, to: string(target), data: data, ended: make(chan struct{})}
	defer stream.end()
	a, err := m.call(target, &own, stream, 5*rpcTimeout)
	if err != nil {
		return err
	}
	*resp = *a.(*raft.InstallSnapshotResponse)
	return nil
}

// TimeoutNow implements raft.Transport.
func (m *messages) TimeoutNow(_ raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	own := *args
	a, err := m.call(target, &own, nil, rpcTimeout)
	if err != nil {
		return err
	}
	*resp = *a.(*raft.TimeoutNowResponse)
	return nil
}

// AppendEntriesPipeline implements raft.Transport.
func (m *messages) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// SetHeartbeatHandler implements raft.Transport.
func (m *messages) SetHeartbeatHandler(func(raft.RPC)) {}

// Consumer implements raft.Transport.
func (m *messages) Consumer() <-chan raft.RPC { return m.inbox }

// LocalAddr implements raft.Transport.
func (m *messages) LocalAddr() raft.ServerAddress { return raft.ServerAddress(m.address) }

// EncodePeer implements raft.Transport.
func (m *messages) EncodePeer(_ raft.ServerID, p raft.ServerAddress) []byte { return []byte(p) }

// DecodePeer implements raft.Transport.
func (m *messages) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// Close implements raft.WithClose.
func (m *messages) Close() error {
	m.kill()
	return nil
}

// A snapshotStream is the body of an InstallSnapshot on its way.
type snapshotStream struct {
	m     *messages
	to    string
	data  io.Reader
	once  sync.Once
	ended chan struct{}
}

// Read implements io.Reader for the receiver.
func (s *snapshotStream) Read(b []byte) (int, error) {
	for {
		l, takes, changed := s.m.w.network.look(s.m.address, s.to)
		switch {
		case l.cut > 0 || s.m.dead():
			return 0, io.ErrUnexpectedEOF
		case l.held == 0:
			select {
			case <-time.After(takes):
			case <-s.ended:
				return 0, io.ErrUnexpectedEOF
			}
			return s.read(b)
		}
		select {
		case <-changed:
		case <-s.m.life:
		case <-s.ended:
			return 0, io.ErrUnexpectedEOF
		}
	}
}

func (s *snapshotStream) read(b []byte) (int, error) {
	select {
	case <-s.ended:
		return 0, io.ErrUnexpectedEOF
	default:
		return s.data.Read(b[:min(len(b), 1<<10)])
	}
}

// end is called when the sender gives up, which then closes the data.
func (s *snapshotStream) end() { s.once.Do(func() { close(s.ended) }) }
