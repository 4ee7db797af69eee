// Package transport wraps a Raft transport so that its holder can prove, after
// the fact, what a quorum acknowledged, and so that messages are bounded in
// bytes.
//
// Raft's own VerifyLeader counts any answer that arrives after the call, also
// answers to messages sent before it and answers of non-voters; a leader that
// was paused believes answers that waited in its socket buffers. The wrapper
// stamps every AppendEntries, heartbeats included, with the number of the newest
// round as it is sent, and records the stamp for the peer once an answer of the
// same term came back. A round is confirmed by the peers whose stamp is at least
// its number. No clock takes part.
//
// It also
//   - leaves the heartbeat fast path off: it runs AppendEntries beside the main
//     loop (hashicorp/raft#695);
//   - refuses pipelines, which lose a follower after one failed append
//     (hashicorp/raft#612);
//   - cuts AppendEntries by bytes, and never lets a message claim more committed
//     entries than it proves to be in the follower's log;
//   - lets votes be recorded by server id, not by address alone;
//   - cuts off a peer that falls silent in the middle of a message;
//   - lets a snapshot be frozen only for a receiver that is there;
//   - passes pre-vote through, which is silently off if a transport lacks it;
//   - refuses a peer that has forgotten what it acknowledged;
//   - withholds a peer's acknowledgements from Raft while its address is changed;
//   - keeps each peer's matching index and last contact, which Raft hides.
//
// Row 3 of the layers: hashicorp/raft may be imported. It starts no goroutine;
// Raft's replication goroutines call it.
package transport

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// entryOverheadBytes is a generous bound on what the codec adds to an entry.
const entryOverheadBytes = 96

// Options of Wrap.
type Options struct {
	// Advertise is the local address; empty means that of the inner transport.
	Advertise string
	// Resolve, if set, overrides the address of a peer.
	Resolve func(serverID string) (addr string, ok bool)
	// AppendBytesMax bounds the entries of one message; it holds one at least.
	// 0 means no bound.
	AppendBytesMax int
	// SilenceMax is for how long a peer may have been silent that is sent a
	// snapshot; 0 means no bound.
	SilenceMax time.Duration
	// Appended, if set, hears of each answer of a peer that stored the entries of a
	// message, and how long it took.
	Appended func(id raft.ServerID, took time.Duration)
}

// ErrMuted is returned by every message after Mute.
var ErrMuted = errors.New("transport: the replica has stopped")

// ErrSuspended is returned by every message between Suspend and Resume.
var ErrSuspended = errors.New("transport: raft is being stopped")

// ErrRetired is returned by requests for votes while the replica is retired.
var ErrRetired = errors.New("transport: the replica was removed from its group, and asks for no votes")

// ErrDeposed is returned for a message of one term that carries entries or state
// of a later one. Raft goes on replicating for a leader that was deposed until its
// back-off ends, up to ten seconds later, and then sends what its log and its
// machine hold by that time, with the old term. A follower that has not heard of
// the new term would store what is newer than the term it remembers, and could not
// be started again.
var ErrDeposed = errors.New("transport: the message is of an earlier term than what it carries")

// StandIn is the type of an entry that its replica knows by index and term only. Raft
// compares it with what a message names; it is never sent.
const StandIn raft.LogType = 0xFF

// ErrForgotten is returned for a message to a peer whose answer shows that its log
// ends before what it had acknowledged to this leader, in the same term: its disk
// was put back from an older copy. It has forgotten entries that count as
// committed, and perhaps a vote, so that what it acknowledges is worth nothing.
var ErrForgotten = errors.New("transport: the peer has forgotten entries that it had acknowledged")

// ErrSilent is returned for a snapshot to a peer that has not answered lately.
var ErrSilent = errors.New("transport: the receiver of the snapshot does not answer")

// ErrNoPreVote is returned by Wrap for a transport without pre-vote.
var ErrNoPreVote = errors.New("transport: the transport does not support pre-vote")

// A Transport is the wrapper. All methods may be called concurrently.
type Transport struct {
	inner   raft.Transport
	preVote raft.WithPreVote
	options Options

	round     atomic.Uint64
	muted     atomic.Bool
	suspended atomic.Bool
	retired   atomic.Bool

	mu struct {
		sync.Mutex
		peers    map[raft.ServerID]Peer
		withheld map[raft.ServerID]chan struct{} // closed at the release
	}
	wake chan struct{} // buffered 1: some peer's record changed
}

// A Peer is what the answers of one peer have shown.
type Peer struct {
	// Term and Round are those of the newest stamp that the peer acknowledged.
	Term, Round uint64
	// MatchTerm is the term whose leader learnt that the peer stores the log up
	// to Match.
	MatchTerm, Match uint64
	// Contact is when the peer last answered anything.
	Contact time.Time
	// Failing: the message that ended last was not answered.
	Failing bool
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Wrap wraps inner, which must support pre-vote.
func Wrap(inner raft.Transport, o Options) (*Transport, error) {
	preVote, ok := inner.(raft.WithPreVote)
	if !ok {
		return nil, ErrNoPreVote
	}
	t := &Transport{inner: inner, preVote: preVote, options: o, wake: make(chan struct{}, 1)}
	t.mu.peers = make(map[raft.ServerID]Peer)
	t.mu.withheld = make(map[raft.ServerID]chan struct{})
	return t, nil
}

// BeginRound starts a round of acknowledgements and returns its number. Every
// message sent from now on carries it, or that of a later round.
func (t *Transport) BeginRound() uint64 { return t.round.Add(1) }

// Changed receives a value, at some time after any peer's record changed. One
// goroutine may wait on it.
func (t *Transport) Changed() <-chan struct{} { return t.wake }

// Peer returns what is known of one peer.
func (t *Transport) Peer(id raft.ServerID) Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.peers[id]
}

// Acknowledged reports whether the peer has answered, in the term, a message
// that was sent after the round began.
func (t *Transport) Acknowledged(id raft.ServerID, term, round uint64) bool {
	p := t.Peer(id)
	return p.Term == term && p.Round >= round
}

// Mute lets no further message out. A leader whose main loop hangs in its disk
// goes on sending heartbeats, and would keep the others from electing a better
// one.
func (t *Transport) Mute() { t.muted.Store(true) }

// Suspend lets no message out until Resume, and ends the snapshots on their way.
// A life of Raft that was told to stop may still try one message after the other,
// and does not end before each of them did.
func (t *Transport) Suspend() { t.suspended.Store(true) }

// Resume ends Suspend.
func (t *Transport) Resume() { t.suspended.Store(false) }

// Retire lets no request for a vote out, or lets them out again. All else passes:
// a leader that adds the replica again is answered.
func (t *Transport) Retire(retired bool) { t.retired.Store(retired) }

func (t *Transport) mayStand() error {
	if t.retired.Load() {
		return ErrRetired
	}
	return t.allowed()
}

func (t *Transport) allowed() error {
	switch {
	case t.muted.Load():
		return ErrMuted
	case t.suspended.Load():
		return ErrSuspended
	}
	return nil
}

// A snapshotReader is a snapshot that is being sent: it ends when messages may
// no longer leave.
type snapshotReader struct {
	io.Reader
	t *Transport
}

func (r snapshotReader) Read(b []byte) (int, error) {
	if err := r.t.allowed(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// AppendEntries implements raft.Transport. It may shorten args.Entries: the
// caller then takes only those for stored and sends the rest next.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.allowed(); err != nil {
		return err
	}
	// Raft reads one entry after the other, and the log may be cut between two: a later
	// term may stand before an earlier one.
	later := func(e *raft.Log) bool { return e.Term > args.Term || e.Type == StandIn }
	if args.PrevLogTerm > args.Term || slices.ContainsFunc(args.Entries, later) {
		return ErrDeposed
	}
	t.cut(args)
	// The stamp must be read before the message can leave.
	stamp := t.round.Load()
	stored := t.stored(id, args.Term)
	begin := time.Now()
	var answer raft.AppendEntriesResponse
	if err := t.inner.AppendEntries(id, t.resolve(id, target), args, &answer); err != nil {
		t.failed(id)
		return err
	}
	if answer.Term == args.Term && answer.LastLog < stored {
		// The peer finds out by itself when it is called anew.
		t.closeStreams()
		return ErrForgotten
	}
	*resp = answer
	t.record(id, args, &answer, stamp)
	if t.options.Appended != nil && answer.Success && len(args.Entries) > 0 {
		t.options.Appended(id, time.Since(begin))
	}
	if len(args.Entries) > 0 {
		t.awaitRelease(id)
	}
	return nil
}

// cut bounds the message in bytes, and its commit index by what the message
// itself proves about the follower's log (figure 2 of the Raft paper: the index
// of the last new entry). Raft's follower would take its own last index instead,
// which a message that was cut short does not vouch for.
func (t *Transport) cut(args *raft.AppendEntriesRequest) {
	if limit := t.options.AppendBytesMax; limit > 0 {
		total := 0
		for i, e := range args.Entries {
			total += entryOverheadBytes + len(e.Data) + len(e.Extensions)
			if total > limit && i > 0 {
				args.Entries = args.Entries[:i]
				break
			}
		}
	}
	args.LeaderCommitIndex = min(args.LeaderCommitIndex, args.PrevLogEntry+uint64(len(args.Entries)))
}

// stored returns the newest entry that the peer has acknowledged in the term.
func (t *Transport) stored(id raft.ServerID, term uint64) uint64 {
	if p := t.Peer(id); p.MatchTerm == term {
		return p.Match
	}
	return 0
}

func (t *Transport) record(id raft.ServerID, args *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse, stamp uint64) {
	t.mu.Lock()
	p := t.mu.peers[id]
	p.Contact, p.Failing = time.Now(), false
	if answer.Term == args.Term {
		if p.Term != args.Term {
			p.Term, p.Round = args.Term, stamp
		}
		p.Round = max(p.Round, stamp)
		// A heartbeat proves nothing about the log.
		if match := args.PrevLogEntry + uint64(len(args.Entries)); answer.Success && match > 0 {
			if p.MatchTerm != args.Term {
				p.MatchTerm, p.Match = args.Term, match
			}
			p.Match = max(p.Match, match)
		}
	}
	t.mu.peers[id] = p
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// failed notes that a message to the peer was not answered.
func (t *Transport) failed(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.mu.peers[id]
	p.Failing = true
	t.mu.peers[id] = p
}

// silent reports whether the peer has not answered lately.
func (t *Transport) silent(id raft.ServerID) bool {
	p := t.Peer(id)
	return p.Failing || t.options.SilenceMax > 0 && time.Since(p.Contact) > t.options.SilenceMax
}

func (t *Transport) resolve(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	if t.options.Resolve != nil {
		if addr, ok := t.options.Resolve(string(id)); ok {
			return raft.ServerAddress(addr)
		}
	}
	return target
}

// AppendEntriesPipeline implements raft.Transport: there are no pipelines.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// SetHeartbeatHandler implements raft.Transport, and ignores the handler: all
// messages go through Raft's main loop.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.mayStand(); err != nil {
		return err
	}
	return t.inner.RequestVote(id, t.resolve(id, target), args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.mayStand(); err != nil {
		return err
	}
	return t.preVote.RequestPreVote(id, t.resolve(id, target), args, resp)
}

// A Snapshot is a state that is frozen only when it is about to be sent. Raft opens
// one for a peer whether the peer is there or not, every ten seconds.
type Snapshot interface {
	io.Reader
	// Freeze fixes the state that is sent to the peer, and describes it in the
	// request.
	Freeze(to raft.ServerID, req *raft.InstallSnapshotRequest) error
}

// InstallSnapshot implements raft.Transport. It freezes data if that is a Snapshot.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.allowed(); err != nil {
		return err
	}
	if t.silent(id) {
		return ErrSilent
	}
	if s, ok := data.(Snapshot); ok {
		if err := s.Freeze(id, args); err != nil {
			return err
		}
	}
	if args.LastLogTerm > args.Term {
		return ErrDeposed
	}
	err := t.inner.InstallSnapshot(id, t.resolve(id, target), args, resp, snapshotReader{data, t})
	if err != nil {
		t.failed(id)
	}
	return err
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if err := t.allowed(); err != nil {
		return err
	}
	return t.inner.TimeoutNow(id, t.resolve(id, target), args, resp)
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.inner.Consumer() }

// LocalAddr implements raft.Transport.
func (t *Transport) LocalAddr() raft.ServerAddress {
	if t.options.Advertise != "" {
		return raft.ServerAddress(t.options.Advertise)
	}
	return t.inner.LocalAddr()
}

// peerSeparator stands between server id and address in an encoded peer.
// Neither contains it.
const peerSeparator = '@'

// EncodePeer implements raft.Transport. Raft records votes by this encoding, and
// repeats a vote to the candidate that has it already without comparing logs. So
// it names the disk: another one may have come to the same address.
func (t *Transport) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return append(append([]byte(id), peerSeparator), t.inner.EncodePeer(id, addr)...)
}

// DecodePeer implements raft.Transport. It takes a plain address as well.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress {
	return t.inner.DecodePeer(b[bytes.LastIndexByte(b, peerSeparator)+1:])
}

// Close implements raft.WithClose, and does nothing: Raft calls it at each of
// its shutdowns, and the transport outlives a restart of Raft within the
// replica.
func (t *Transport) Close() error { return nil }

// Shut closes the inner transport and its connections, for good.
func (t *Transport) Shut() error {
	t.closeStreams()
	if c, ok := t.inner.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// closeStreams closes the connections to the peers, so that each is called anew.
func (t *Transport) closeStreams() {
	if n, ok := t.inner.(interface{ CloseStreams() }); ok {
		n.CloseStreams()
	}
}
