package transport

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// pipes is a StreamLayer whose connections are in memory, so that their deadlines
// are of virtual time. serve gets the other end of each.
type pipes struct {
	serve  func(c net.Conn)
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) { <-p.closed; return nil, net.ErrClosed }
func (p pipes) Close() error              { close(p.closed); return nil }
func (p pipes) Addr() net.Addr            { return &net.TCPAddr{} }

func (p pipes) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		p.serve(theirs)
	}()
	return ours, nil
}

// take reads n bytes, a piece at a time, with a pause before each.
func take(c net.Conn, n int, pause time.Duration) {
	r := bufio.NewReaderSize(c, pieceBytes)
	for left := n; left > 0; {
		time.Sleep(pause) // virtual
		took, err := io.CopyN(io.Discard, r, int64(min(left, pieceBytes)))
		if left -= int(took); err != nil {
			return
		}
	}
}

// Claim: the transfer of a snapshot ends soon after its receiver stopped to take
// it, or to work on it, however large it is; and goes on for hours while the
// receiver takes it slowly. So do messages.
func TestTransferIsBoundedByProgress(t *testing.T) {
	const (
		timeout = 2 * time.Second
		large   = 10 << 30 // announced: Raft's own bound is 22 h
		sent    = 4 << 20
	)
	for _, tc := range []struct {
		name     string
		snapshot bool
		serve    func(c net.Conn, answer []byte)
		succeeds bool
		within   time.Duration
	}{
		{"a receiver that takes nothing any more", true, func(c net.Conn, _ []byte) {
			take(c, 1<<20, 0)
			time.Sleep(time.Hour)
		}, false, time.Minute},
		{"a receiver that takes all and never answers", true, func(c net.Conn, _ []byte) {
			take(c, 5<<20, 0)
		}, false, 12 * time.Minute},
		{"a receiver that is slow all the way", true, func(c net.Conn, answer []byte) {
			take(c, sent, 20*time.Second)
			go take(c, 1<<20, 0)
			time.Sleep(9 * time.Minute)
			c.Write(answer)
		}, true, 2 * time.Hour},
		{"a message through a slow link", false, func(c net.Conn, answer []byte) {
			take(c, sent, time.Second)
			go take(c, 1<<20, 0)
			time.Sleep(time.Second)
			c.Write(answer)
		}, true, 10 * time.Minute},
		{"a message that is never answered", false, func(c net.Conn, _ []byte) {
			take(c, 5<<20, 0)
		}, false, 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer := []byte{0xa0, 0x80} // no error, an empty message
				streams := pipes{closed: make(chan struct{}), serve: func(c net.Conn) { tc.serve(c, answer) }}
				n := Network(streams, timeout, hclog.NewNullLogger())
				begin := time.Now()
				var err error
				if tc.snapshot {
					err = n.InstallSnapshot("p", "p", &raft.InstallSnapshotRequest{Size: large}, &raft.InstallSnapshotResponse{},
						bytes.NewReader(make([]byte, sent)))
				} else {
					args := &raft.AppendEntriesRequest{Entries: []*raft.Log{{Data: make([]byte, sent)}}}
					err = n.AppendEntries("p", "p", args, &raft.AppendEntriesResponse{})
				}
				if took := time.Since(begin); (err == nil) != tc.succeeds || took > tc.within {
					t.Errorf("after %v: %v", took, err)
				}
				n.(*raft.NetworkTransport).Close()
				time.Sleep(2 * time.Hour) // virtual: the receivers end
			})
		})
	}
}

// Claim: the bounds of a message do not depend on its size, those of a snapshot do.
func TestBounds(t *testing.T) {
	const timeout = 2 * time.Second
	for _, tc := range []struct {
		budget, piece, answer time.Duration
	}{
		{timeout, timeout, timeout},
		{timeout - time.Millisecond, timeout, timeout},
		{3*timeout - time.Millisecond, 30 * time.Second, time.Minute},
		{(1 << 20) * timeout, 30 * time.Second, time.Minute + 64*time.Second},      // 1 GiB
		{(1 << 30) * timeout, 30 * time.Second, time.Minute + 1024*64*time.Second}, // 1 TiB
	} {
		piece, answer := bounds(timeout, tc.budget)
		if piece != tc.piece || (answer-tc.answer).Abs() > time.Second {
			t.Errorf("of a budget of %v: %v and %v, want %v and %v", tc.budget, piece, answer, tc.piece, tc.answer)
		}
	}
}
