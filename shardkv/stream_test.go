package shardkv

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
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

// Claim: what was sent of a request takes no memory while the rest of it waits for a
// frozen shard: however many wait so, the values of other shards are read.
func TestSentPartsHoldNothing(t *testing.T) {
	const value, requests = 64 << 10, 8
	s, f := newFake(t, Limits{Bytes: 3 * value})
	executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(keyIn(1), string(make([]byte, value)))}})
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(2, 1, fakeShards, 0)})
	f.freeze(t, 0)
	stream := newFakeStream(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Stream(stream) }()
	next := func() *kvpb.StreamResponse {
		for {
			if r := <-stream.out; r.GetId() != 0 {
				return r
			}
		}
	}
	for id := range uint64(requests) {
		stream.in <- &kvpb.StreamRequest{Id: id + 1, Parts: true, Request: &kvpb.ExecuteRequest{TimeoutMs: 60_000,
			Operations: []*kvpb.Operation{getOp(keyIn(0)), getOp(keyIn(1))}}}
		r := next()
		if o := r.GetResponse().GetOutcomes()[0]; !r.GetMore() || o.GetCode() != kvpb.Code_OK || o.GetVersion() == 0 || len(o.GetValue()) != value {
			t.Fatalf("the part of request %d: %v, %d bytes, more: %v", id+1, o.GetCode(), len(o.GetValue()), r.GetMore())
		}
		for s.parking.count() <= int(id) {
			time.Sleep(time.Millisecond) // poll
		}
	}
	if _, bytes := s.total.inFlight(); bytes > value {
		t.Errorf("%d bytes are held for requests that wait", bytes)
	}
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	for range requests {
		if r := next(); r.GetMore() || r.GetResponse().GetOutcomes()[0].GetCode() != kvpb.Code_WRONG_GROUP {
			t.Errorf("the rest of request %d: %v", r.GetId(), r.GetResponse().GetOutcomes())
		}
	}
	close(stream.in)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n, bytes := s.total.inFlight(); n != 0 || bytes != 0 {
		t.Errorf("%d requests and %d bytes are left in flight", n, bytes)
	}
}
