package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// fakeTransport answers AppendEntries as the test says.
type fakeTransport struct {
	raft.Transport
	target  raft.ServerAddress
	handler func(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error
}

func (f *fakeTransport) AppendEntries(_ raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	f.target = target
	return f.handler(args, resp)
}

func (f *fakeTransport) RequestPreVote(raft.ServerID, raft.ServerAddress, *raft.RequestPreVoteRequest, *raft.RequestPreVoteResponse) error {
	return nil
}

func wrap(t *testing.T, f *fakeTransport, o Options) *Transport {
	t.Helper()
	w, err := Wrap(f, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Claim: a round is acknowledged only by an answer, of the same term, to a
// message that was sent after the round began.
func TestRounds(t *testing.T) {
	f := &fakeTransport{}
	w := wrap(t, f, Options{})
	answer := func(term uint64, err error) func(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
		return func(_ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
			resp.Term = term
			return err
		}
	}
	send := func(term uint64) {
		var resp raft.AppendEntriesResponse
		w.AppendEntries("p", "addr", &raft.AppendEntriesRequest{Term: term}, &resp)
	}
	first := w.BeginRound()
	var second uint64
	// The second round begins while the message is on its way.
	f.handler = func(_ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		second = w.BeginRound()
		resp.Term = 3
		return nil
	}
	send(3)
	if !w.Acknowledged("p", 3, first) || w.Acknowledged("p", 3, second) {
		t.Fatal("an answer confirmed a round that began after its message was sent")
	}
	select {
	case <-w.Changed():
	default:
		t.Fatal("nobody was woken")
	}
	f.handler = answer(3, errors.New("lost"))
	send(3)
	f.handler = answer(4, nil)
	send(3)
	if w.Acknowledged("p", 3, second) || w.Acknowledged("p", 4, first) {
		t.Fatal("an error, or an answer of another term, confirmed a round")
	}
	f.handler = answer(3, nil)
	send(3)
	if !w.Acknowledged("p", 3, second) || w.Acknowledged("q", 3, second) {
		t.Fatal("a good answer did not confirm the round, or did for another peer")
	}
	f.handler = answer(5, nil)
	send(5)
	if w.Acknowledged("p", 3, second) || !w.Acknowledged("p", 5, second) {
		t.Fatal("an acknowledgement outlived its term")
	}
}

// Claim: messages are cut by bytes at an entry, hold one entry at least, and
// never claim more committed than they prove to be stored.
func TestCut(t *testing.T) {
	f := &fakeTransport{handler: func(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		resp.Term, resp.Success, resp.LastLog = args.Term, true, args.PrevLogEntry
		return nil
	}}
	w := wrap(t, f, Options{AppendBytesMax: 10_000, Resolve: func(id string) (string, bool) { return "other:" + id, id == "p" }})
	for _, tc := range []struct {
		sizes                      []int
		prev, commit               uint64
		wantEntries                int
		wantCommit, wantPeersMatch uint64
	}{
		{sizes: nil, prev: 0, commit: 0},
		{sizes: nil, prev: 7, commit: 20, wantCommit: 7, wantPeersMatch: 7},
		{sizes: []int{100, 100}, prev: 7, commit: 8, wantEntries: 2, wantCommit: 8, wantPeersMatch: 9},
		{sizes: []int{50_000, 10}, prev: 9, commit: 30, wantEntries: 1, wantCommit: 10, wantPeersMatch: 10},
		{sizes: []int{4000, 4000, 4000}, prev: 10, commit: 30, wantEntries: 2, wantCommit: 12, wantPeersMatch: 12},
	} {
		args := raft.AppendEntriesRequest{Term: 1, PrevLogEntry: tc.prev, LeaderCommitIndex: tc.commit}
		for _, size := range tc.sizes {
			args.Entries = append(args.Entries, &raft.Log{Data: make([]byte, size)})
		}
		var resp raft.AppendEntriesResponse
		if err := w.AppendEntries("p", "addr", &args, &resp); err != nil || !resp.Success {
			t.Fatal(err)
		}
		if len(args.Entries) != tc.wantEntries || args.LeaderCommitIndex != tc.wantCommit || w.Peer("p").Match != tc.wantPeersMatch {
			t.Fatalf("%+v: %d entries, commit %d, match %d", tc, len(args.Entries), args.LeaderCommitIndex, w.Peer("p").Match)
		}
	}
	if f.target != "other:p" {
		t.Fatalf("the message went to %s", f.target)
	}
	w.Mute()
	if err := w.AppendEntries("p", "addr", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err != ErrMuted {
		t.Fatalf("a muted transport: %v", err)
	}
}

// Claim: a leader that was deposed sends nothing of a later term in the name of
// its own.
func TestDeposedLeaderSendsNothingNewer(t *testing.T) {
	sent := 0
	f := &fakeTransport{handler: func(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		sent++
		resp.Term, resp.Success = args.Term, true
		return nil
	}}
	w := wrap(t, f, Options{})
	for _, tc := range []struct {
		prevTerm uint64
		terms    []uint64
		want     error
	}{
		{prevTerm: 3, terms: []uint64{3, 3}},
		{prevTerm: 4, want: ErrDeposed},
		{prevTerm: 3, terms: []uint64{3, 4}, want: ErrDeposed},
		// The log was cut while it was read for the message.
		{prevTerm: 2, terms: []uint64{4, 3, 3}, want: ErrDeposed},
	} {
		sent = 0
		args := raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, PrevLogTerm: tc.prevTerm}
		for _, term := range tc.terms {
			args.Entries = append(args.Entries, &raft.Log{Term: term})
		}
		if err := w.AppendEntries("p", "addr", &args, &raft.AppendEntriesResponse{}); err != tc.want || (sent == 1) != (tc.want == nil) {
			t.Fatalf("%+v: %v, %d sent", tc, err, sent)
		}
	}
	standIn := raft.AppendEntriesRequest{Term: 3, Entries: []*raft.Log{{Term: 3, Type: StandIn}}}
	if err := w.AppendEntries("p", "addr", &standIn, &raft.AppendEntriesResponse{}); err != ErrDeposed {
		t.Fatalf("an entry that the leader does not have: %v", err)
	}
	args := raft.InstallSnapshotRequest{Term: 3, LastLogIndex: 9, LastLogTerm: 4}
	if err := w.InstallSnapshot("p", "addr", &args, &raft.InstallSnapshotResponse{}, nil); err != ErrDeposed {
		t.Fatalf("a snapshot of a later term: %v", err)
	}
}

// Claim: a peer whose answer shows that its log ends before what it acknowledged in
// the same term is refused, and counts for nothing; an answer that was given before
// the acknowledgement is no such sign, nor one of another term.
func TestForgetfulPeer(t *testing.T) {
	f := &fakeTransport{}
	w := wrap(t, f, Options{})
	send := func(term, prev, answerTerm, last uint64) error {
		f.handler = func(_ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
			resp.Term, resp.LastLog, resp.Success = answerTerm, last, last >= prev
			return nil
		}
		return w.AppendEntries("p", "addr", &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev}, &raft.AppendEntriesResponse{})
	}
	if err := send(3, 9, 3, 9); err != nil || w.Peer("p").Match != 9 {
		t.Fatal(err)
	}
	round := w.BeginRound()
	if err := send(3, 0, 3, 8); err != ErrForgotten || w.Acknowledged("p", 3, round) {
		t.Fatalf("a heartbeat that is answered from an older log: %v", err)
	}
	if err := send(3, 8, 3, 8); err != ErrForgotten || w.Acknowledged("p", 3, round) {
		t.Fatalf("an older log that fits: %v", err)
	}
	if err := send(3, 9, 4, 2); err != nil {
		t.Fatalf("a peer of a later term: %v", err)
	}
	if err := send(4, 2, 4, 2); err != nil || w.Peer("p").Match != 2 {
		t.Fatalf("a leader of a later term: %v", err)
	}
	// An answer that is overtaken by a later one.
	f.handler = func(_ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		if err := send(4, 5, 4, 5); err != nil {
			t.Fatal(err)
		}
		resp.Term, resp.LastLog = 4, 2
		return nil
	}
	if err := w.AppendEntries("p", "addr", &raft.AppendEntriesRequest{Term: 4}, &raft.AppendEntriesResponse{}); err != nil {
		t.Fatalf("an answer that was overtaken: %v", err)
	}
}

// Claim: pre-vote can't be lost silently, and there are neither pipelines nor a
// heartbeat fast path.
func TestWhatRaftMustNotFind(t *testing.T) {
	type plain struct{ raft.Transport }
	if _, err := Wrap(plain{}, Options{}); err != ErrNoPreVote {
		t.Fatalf("a transport without pre-vote: %v", err)
	}
	w := wrap(t, &fakeTransport{}, Options{})
	if _, err := w.AppendEntriesPipeline("p", "addr"); err != raft.ErrPipelineReplicationNotSupported {
		t.Fatalf("a pipeline: %v", err)
	}
	w.SetHeartbeatHandler(func(raft.RPC) { t.Fatal("the fast path was taken") }) // the fake would panic
}

type loopback struct{ net.Listener }

func (loopback) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

// Claim: Shut closes the connections that were accepted, too.
func TestShutClosesConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w, err := Wrap(Network(loopback{l}, time.Second, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A request proves that the connection was accepted; its answer that it was
	// read.
	go func() {
		rpc := <-w.Consumer()
		rpc.Respond(&raft.TimeoutNowResponse{}, nil)
	}()
	peer, err := Wrap(Network(loopback{listen(t)}, time.Second, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = peer.TimeoutNow("p", raft.ServerAddress(l.Addr().String()), &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Shut(); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) || isTimeout(err) {
		t.Fatalf("the connection is open: %v", err)
	}
	peer.Shut()
}

// Claim: a peer that hangs up is no error, even where it resets the stream, as it
// does while an answer is on its way to it.
func TestHangUpIsQuiet(t *testing.T) {
	var log strings.Builder
	l := closings{listen(t), make(chan struct{}, 1)}
	w, err := Wrap(Network(loopback{l}, time.Minute, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Error})), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Shut()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).SetLinger(0) // close by a reset
	conn.Close()
	select {
	case <-l.closed: // whatever is said of it has been said
		if log.Len() > 0 {
			t.Error(log.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("the stream is still open")
	}
}

// closings tells of the connections that it accepted and that were closed.
type closings struct {
	net.Listener
	closed chan struct{}
}

func (l closings) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return closing{c, l.closed}, err
}

type closing struct {
	net.Conn
	closed chan struct{}
}

func (c closing) Close() error {
	select {
	case c.closed <- struct{}{}:
	default:
	}
	return c.Conn.Close()
}

// Claim: a peer that falls silent in the middle of a message is cut off, since
// Raft's main loop reads the stream of a snapshot and could not even vote
// meanwhile; one that is silent between messages is not.
func TestSilentPeer(t *testing.T) {
	const timeout = 50 * time.Millisecond
	l := listen(t)
	w, err := Wrap(Network(loopback{l}, timeout, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Shut()
	peer, err := Wrap(Network(loopback{listen(t)}, time.Minute, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Shut()
	address := raft.ServerAddress(l.Addr().String())
	for range 2 {
		go func() {
			rpc := <-w.Consumer()
			rpc.Respond(&raft.TimeoutNowResponse{}, nil)
		}()
		if err := peer.TimeoutNow("p", address, &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
			t.Fatalf("a message after a silence: %v", err)
		}
		time.Sleep(4 * timeout) // load: the silence between two messages
	}
	silence, sent := io.Pipe()
	defer sent.Close()
	go peer.InstallSnapshot("p", address, &raft.InstallSnapshotRequest{Size: 1000}, &raft.InstallSnapshotResponse{}, silence)
	rpc := <-w.Consumer()
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(rpc.Reader)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !isTimeout(err) {
			t.Fatalf("the stream ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream of a silent peer does not end")
	}
	rpc.Respond(&raft.InstallSnapshotResponse{}, nil)
}

// Claim: after Suspend no message leaves and a snapshot on its way ends, until
// Resume.
func TestSuspend(t *testing.T) {
	l := listen(t)
	receiver, err := Wrap(Network(loopback{l}, time.Minute, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Shut()
	w, err := Wrap(Network(loopback{listen(t)}, time.Minute, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Shut()
	address := raft.ServerAddress(l.Addr().String())
	data, feed := io.Pipe()
	defer feed.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- w.InstallSnapshot("p", address, &raft.InstallSnapshotRequest{Size: 1 << 40}, &raft.InstallSnapshotResponse{}, data)
	}()
	if _, err := feed.Write([]byte("beginning")); err != nil {
		t.Fatal(err)
	}
	w.Suspend()
	go feed.Write([]byte("more")) // whoever reads it reads no further
	select {
	case err := <-ended:
		if !errors.Is(err, ErrSuspended) {
			t.Errorf("the snapshot ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the snapshot goes on")
	}
	vote := func() error {
		return w.RequestVote("p", address, &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
	}
	if err := vote(); !errors.Is(err, ErrSuspended) {
		t.Errorf("a message while suspended: %v", err)
	}
	w.Resume()
	go func() {
		for rpc := range receiver.Consumer() {
			rpc.Respond(&raft.RequestVoteResponse{}, nil)
			if _, asked := rpc.Command.(*raft.RequestVoteRequest); asked {
				return
			}
		}
	}()
	if err := vote(); err != nil {
		t.Errorf("a message after that: %v", err)
	}
}

// Claim: what Raft records as the candidate of a vote names the disk, not its
// address alone, and the address is found in it again.
func TestCandidatesAreDisks(t *testing.T) {
	w, err := Wrap(Network(loopback{listen(t)}, time.Second, hclog.NewNullLogger()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Shut()
	old, young := w.EncodePeer("r1.aa", "host:1"), w.EncodePeer("r1.bb", "host:1")
	if bytes.Equal(old, young) {
		t.Fatalf("two disks at one address are both %q", old)
	}
	for _, peer := range [][]byte{old, young, []byte("host:1")} {
		if got := w.DecodePeer(peer); got != "host:1" {
			t.Errorf("%q decodes to %q", peer, got)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// A retired replica asks nobody for a vote, until it is let stand again.
func TestRetire(t *testing.T) {
	_, inner := raft.NewInmemTransport("a")
	tr, err := Wrap(inner, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, retired := range []bool{true, false} {
		tr.Retire(retired)
		vote := tr.RequestVote("b", "b", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
		preVote := tr.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
		if errors.Is(vote, ErrRetired) != retired || errors.Is(preVote, ErrRetired) != retired {
			t.Errorf("retired %v: %v, %v", retired, vote, preVote)
		}
	}
}
