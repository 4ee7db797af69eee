package shardkv

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A fakeStream is the server's end of a Stream call.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
	in  chan *kvpb.StreamRequest // closed: the client is done
	out chan *kvpb.StreamResponse
}

func newFakeStream(ctx context.Context) *fakeStream {
	return &fakeStream{ctx: ctx, in: make(chan *kvpb.StreamRequest, 16), out: make(chan *kvpb.StreamResponse, 1024)}
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Recv() (*kvpb.StreamRequest, error) {
	select {
	case r, ok := <-s.in:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *fakeStream) Send(r *kvpb.StreamResponse) error {
	select {
	case s.out <- r:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// Claim: while a request is unanswered its stream is never silent for more than
// 250 ms, and the signs of life say how long writes take; an idle stream says
// nothing.
func TestStreamShowsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newFake(t, Limits{})
		f.commit = 3 * time.Second
		stream := newFakeStream(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Stream(stream) }()
		time.Sleep(time.Minute) // virtual
		if n := len(stream.out); n > 0 {
			t.Errorf("%d responses on an idle stream", n)
		}
		begun := time.Now()
		stream.in <- &kvpb.StreamRequest{Id: 7, Request: &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp("a", "v")}}}
		var signs int
		for last := begun; ; last = time.Now() {
			r := <-stream.out
			if silence := time.Since(last); silence > 250*time.Millisecond {
				t.Errorf("silence of %v", silence)
			}
			if r.GetId() == 7 {
				if code := r.GetResponse().GetOutcomes()[0].GetCode(); code != kvpb.Code_OK || time.Since(begun) != 3*time.Second {
					t.Errorf("answered %v after %v", code, time.Since(begun))
				}
				break
			}
			if signs++; r.GetId() != 0 || len(r.GetResponse().GetOutcomes()) != 0 || r.GetMore() {
				t.Errorf("not a sign of life: %v", r)
			}
			if got, want := r.GetResponse().GetPatienceMs(), milliseconds(time.Since(begun)); got != want {
				t.Errorf("patience %d ms, want %d", got, want)
			}
		}
		if signs < 12 {
			t.Errorf("%d signs of life in 3 s", signs)
		}
		time.Sleep(time.Minute) // virtual
		if n := len(stream.out); n > 0 {
			t.Errorf("%d responses on a stream that is idle again", n)
		}
		close(stream.in)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
