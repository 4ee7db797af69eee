package host

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// questionTimeout bounds the call back to a replica that opens a stream.
const questionTimeout = time.Second

// A member is what the streams need to know of their replica.
type member interface {
	// Members is the newest configuration that the replica knows.
	Members() (index uint64, list []formation.Member)
	// Acknowledged is what another member has acknowledged to this one.
	Acknowledged(serverID string) (term, index uint64)
	// CheckAcknowledged fails if this one has forgotten what it acknowledged.
	CheckAcknowledged(leader string, term, index uint64) error
	// Stop stops the replica for good.
	Stop(reason error)
}

// judge decides about a stream that names this replica.
//
// Only a member that is where the group has it gets one. Two processes may run on
// copies of one directory, under one server id: if both stood for election, or one
// stood and the other voted, what a majority acknowledged could be lost. Nobody
// opens a stream to the one that is elsewhere; here, nobody takes one from it. As
// it may well say that it is where the other one is, it is called back there.
func (s *raftStreams) judge(ctx context.Context, p preamble) answer {
	m, err := s.running(ctx)
	if err != nil {
		return answer{answerRefused, err.Error()}
	}
	// A caller that knows a newer configuration has checked itself against that.
	index, members := m.Members()
	for _, listed := range members {
		if listed.ServerID == p.source && listed.Address != p.address && p.config <= index {
			return answer{answerElsewhere, listed.Address}
		}
	}
	if a := s.question(ctx, p); a.code != answerWelcome {
		return a
	}
	if err := m.CheckAcknowledged(p.source, p.term, p.acknowledged); err != nil {
		m.Stop(err)
		return answer{answerRefused, err.Error()}
	}
	return answer{}
}

// answer answers a preamble that names this replica, within the time that a
// connection has to say what it is.
func (s *raftStreams) answer(p preamble) answer {
	if p.kind == kindQuestion {
		return s.answerQuestion(p)
	}
	ctx, cancel := context.WithTimeout(s.host.ctx, s.host.opts.SniffTimeout)
	defer cancel()
	return s.judge(ctx, p)
}

// question asks at the caller's address whether it is the caller that answers
// there. Without an answer it is not known, and the stream is refused: another
// one may come to that address at any moment.
func (s *raftStreams) question(ctx context.Context, p preamble) answer {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	q := preamble{kind: kindQuestion, cluster: s.identity.Cluster, incarnation: s.identity.Incarnation,
		process: p.process, target: p.source, source: s.identity.ServerID, address: s.host.Advertise()}
	conn, a, err := s.call(ctx, p.address, q)
	if err != nil {
		return answer{answerRefused, fmt.Sprintf("it is not known to be at %s: %v", p.address, err)}
	}
	conn.Close()
	return a
}

// answerQuestion says whether this is the process that is asked about.
func (s *raftStreams) answerQuestion(p preamble) answer {
	if p.process != s.host.process {
		return answer{answerCopy, s.host.Advertise()}
	}
	return answer{}
}

// call opens a connection to a replica, with a preamble, and returns its answer.
// The connection has no deadline any more.
func (s *raftStreams) call(ctx context.Context, addr string, p preamble) (net.Conn, answer, error) {
	conn, err := s.host.dial(ctx, addr)
	if err != nil {
		return nil, answer{}, err
	}
	var a answer
	deadline, _ := ctx.Deadline()
	if err = conn.SetDeadline(deadline); err == nil {
		if _, err = conn.Write(p.append(nil)); err == nil {
			if a, err = readAnswer(conn); err == nil {
				err = conn.SetDeadline(time.Time{})
			}
		}
	}
	if err != nil {
		conn.Close()
		return nil, answer{}, err
	}
	return conn, a, nil
}

// heed turns an answer that is no welcome into an error. If it says that this
// process must not be who it says it is, the replica stops.
func (s *raftStreams) heed(m member, a answer, by string) error {
	id, own := &s.identity, s.host.Advertise()
	var err error
	switch a.code {
	case answerElsewhere:
		err = &formation.AddressError{Group: id.Group, Label: id.Label, Own: own, Listed: a.text}
	case answerCopy:
		err = &formation.CopyError{Group: id.Group, Label: id.Label, Address: a.text, Peer: formation.LabelOf(by)}
	default:
		return fmt.Errorf("refused by %q: %s", by, a.text)
	}
	m.Stop(err)
	return err
}

// running waits for the replica, which is open a moment after its streams are.
func (s *raftStreams) running(ctx context.Context) (member, error) {
	select {
	case <-s.opened:
		return s.member, nil
	case <-s.queue.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("the replica is starting: %w", ctx.Err())
	}
}

// open says which replica the streams are of.
func (s *raftStreams) open(m member) {
	s.member = m
	s.peers.open(m.Members)
	close(s.opened)
}
