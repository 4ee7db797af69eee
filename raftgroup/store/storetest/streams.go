package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// positionsMax bounds how many damaged streams one test tries: on a disk each
// costs some syncs.
const positionsMax = 250

// testCheckpointFrozen: later batches do not change a checkpoint, neither its
// Reader nor its stream.
func testCheckpointFrozen(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2")
	c, err := s.Checkpoint()
	check(t, err)
	b := begin(t, s)
	check(t, b.DeleteRange([]byte("a"), []byte("z")))
	check(t, b.Set([]byte("x"), []byte("9")))
	check(t, b.Commit())
	check(t, s.Sync())
	wantAll(t, c.Reader(), "a=1 b=2")
	wantGet(t, c.Reader(), "a", "1")
	wantGet(t, c.Reader(), "x", "")
	var stream bytes.Buffer
	_, err = c.WriteTo(&stream)
	check(t, err)
	check(t, c.Close())
	check(t, c.Close())
	_, _, err = c.Reader().Get([]byte("a"))
	wantErr(t, "Get", err, store.ErrClosed)
	_, err = c.WriteTo(&stream)
	wantErr(t, "WriteTo", err, store.ErrClosed)
	wantAll(t, s, "x=9")
	in, err := s.Receive(&stream)
	check(t, err)
	wantAll(t, in.Reader(), "a=1 b=2")
	check(t, in.Discard())
}

// testCheckpointSize: Size is exact, at every call, and a failing writer's
// error and count come back.
func testCheckpointSize(t *testing.T, s store.Store) {
	for i := range 3 {
		c, err := s.Checkpoint()
		check(t, err)
		for range 2 {
			n, err := c.WriteTo(io.Discard)
			if check(t, err); n != c.Size() {
				t.Fatalf("wrote %d bytes, Size says %d", n, c.Size())
			}
		}
		for _, room := range []int64{0, 1, c.Size() / 2, c.Size() - 1} {
			n, err := c.WriteTo(&shortWriter{room: room})
			if !errors.Is(err, errNoRoom) || n > room {
				t.Fatalf("room for %d of %d bytes: wrote %d, error %v", room, c.Size(), n, err)
			}
		}
		check(t, c.Close())
		put(t, s, fmt.Sprintf("k%d=%s", i, bytes.Repeat([]byte("v"), 1000)))
	}
}

var errNoRoom = errors.New("no room")

// shortWriter takes room bytes.
type shortWriter struct{ room int64 }

func (w *shortWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.room {
		n := w.room
		w.room = 0
		return int(n), errNoRoom
	}
	w.room -= int64(len(p))
	return len(p), nil
}

// testReceiveAside: receiving touches nothing, and reads the stream exactly to
// its end.
func testReceiveAside(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	stream := checkpointOf(t, s)
	put(t, s, "a=2", "b=2")
	r := bytes.NewReader(append(bytes.Clone(stream), "what follows"...))
	in, err := s.Receive(r)
	check(t, err)
	left, err := io.ReadAll(r)
	check(t, err)
	want(t, "behind the stream", string(left), "what follows")
	wantAll(t, s, "a=2 b=2")
	wantAll(t, in.Reader(), "a=1")
	put(t, s, "c=3")
	wantAll(t, in.Reader(), "a=1")
	check(t, in.Discard())
	check(t, in.Discard())
	wantErr(t, "Adopt", in.Adopt(), store.ErrClosed)
	wantAll(t, s, "a=2 b=2 c=3")
}

// testAdoptReplaces: Adopt replaces everything; the store then works as before.
func testAdoptReplaces(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=1")
	stream := checkpointOf(t, s)
	for range 3 {
		put(t, s, "a=2", "c=2")
		in, err := s.Receive(bytes.NewReader(stream))
		check(t, err)
		check(t, in.Adopt())
		wantAll(t, s, "a=1 b=1")
		snap, err := s.NewSnapshot()
		check(t, err)
		put(t, s, "d=4")
		check(t, s.Sync())
		wantAll(t, snap, "a=1 b=1")
		check(t, snap.Close())
		wantAll(t, s, "a=1 b=1 d=4")
		stream2 := checkpointOf(t, s)
		in, err = s.Receive(bytes.NewReader(stream2))
		check(t, err)
		wantAll(t, in.Reader(), "a=1 b=1 d=4")
		check(t, in.Discard())
	}
}

// testAdoptWaits: Adopt returns only after the old state's snapshots and
// iterators are closed, and they stay readable until then.
func testAdoptWaits(t *testing.T, s store.Store) {
	put(t, s, "a=old")
	stream := checkpointOf(t, s)
	put(t, s, "a=now")
	snap, err := s.NewSnapshot()
	check(t, err)
	it, err := s.Iterate(nil, nil)
	check(t, err)
	in, err := s.Receive(bytes.NewReader(stream))
	check(t, err)
	done := make(chan error, 1)
	go func() { done <- in.Adopt() }()
	// The new state shows before Adopt returns, or the readers would have to be
	// closed on trust.
	for all(t, s) != "a=old" {
		select {
		case err := <-done:
			t.Fatalf("Adopt returned (%v) with readers open", err)
		default:
		}
	}
	wantAll(t, snap, "a=now")
	check(t, snap.Close())
	want(t, "old iterator", rest(it), "a=now")
	select {
	case err := <-done:
		t.Fatalf("Adopt returned (%v) with an iterator open", err)
	default:
	}
	check(t, it.Close())
	check(t, <-done)
	put(t, s, "b=2")
	wantAll(t, s, "a=old b=2")
}

// testIncomingUsedUp: Adopt works once; Discard after it does nothing.
func testIncomingUsedUp(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	in, err := s.Receive(bytes.NewReader(checkpointOf(t, s)))
	check(t, err)
	other, err := s.Receive(bytes.NewReader(checkpointOf(t, s)))
	check(t, err)
	check(t, in.Adopt())
	check(t, in.Discard())
	wantErr(t, "second Adopt", in.Adopt(), store.ErrClosed)
	_, _, err = in.Reader().Get([]byte("a"))
	wantErr(t, "Reader after Adopt", err, store.ErrClosed)
	wantAll(t, s, "a=1")
	check(t, other.Adopt()) // an Adopt of one leaves the others
	wantAll(t, s, "a=1")
}

// victim fills s and returns its stream, with several records and, for a store
// that has files, several files.
func victim(t *testing.T, s store.Store) []byte {
	t.Helper()
	for i := range 20 {
		put(t, s, fmt.Sprintf("key%02d=%s", i, bytes.Repeat([]byte{byte(i)}, i*7)))
	}
	return checkpointOf(t, s)
}

// wantRejected wants Receive to refuse a stream, and to leave no trace.
func wantRejected(t *testing.T, s store.Store, what string, stream []byte) {
	t.Helper()
	in, err := s.Receive(bytes.NewReader(stream))
	if err == nil {
		t.Fatalf("%s was accepted: %v", what, in.Discard())
	}
	wantErr(t, what, err, store.ErrBadStream)
}

// testStreamDamaged: a flipped bit anywhere makes Receive refuse the stream.
func testStreamDamaged(t *testing.T, s store.Store) {
	stream := victim(t, s)
	before := all(t, s)
	stride := max(1, len(stream)/positionsMax)
	for at := 0; at < len(stream); at += stride {
		stream[at] ^= 1 << (at % 8)
		wantRejected(t, s, fmt.Sprintf("damage at byte %d of %d", at, len(stream)), stream)
		stream[at] ^= 1 << (at % 8)
	}
	in, err := s.Receive(bytes.NewReader(stream))
	check(t, err)
	check(t, in.Discard())
	wantAll(t, s, before)
}

// testStreamTruncated: a stream that ends early is refused, wherever it ends.
func testStreamTruncated(t *testing.T, s store.Store) {
	stream := victim(t, s)
	stride := max(1, len(stream)/positionsMax)
	for at := 0; at < len(stream); at += stride {
		wantRejected(t, s, fmt.Sprintf("%d of %d bytes", at, len(stream)), stream[:at])
	}
	wantRejected(t, s, "all but one byte", stream[:len(stream)-1])
}

// testStreamForeign: what is no stream at all is refused.
func testStreamForeign(t *testing.T, s store.Store) {
	for _, stream := range []string{
		"", "\x00", "hello", string(make([]byte, 1<<16)), string(bytes.Repeat([]byte{0xFF}, 1<<16)),
	} {
		wantRejected(t, s, fmt.Sprintf("%.8q...", stream), []byte(stream))
	}
}

// testStreamReaderFails: an error of the reader comes back as it is, and is
// not taken for a bad stream.
func testStreamReaderFails(t *testing.T, s store.Store) {
	stream := victim(t, s)
	broken := errors.New("connection lost")
	for _, at := range []int{0, 10, len(stream) / 2, len(stream) - 1} {
		_, err := s.Receive(io.MultiReader(bytes.NewReader(stream[:at]), &failingReader{broken}))
		wantErr(t, "Receive", err, broken)
		if errors.Is(err, store.ErrBadStream) {
			t.Fatalf("a failed read is reported as a bad stream: %v", err)
		}
	}
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }
