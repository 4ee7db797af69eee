package shardkv

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Execute answers one request on its own.
func (s *Server) Execute(ctx context.Context, r *kvpb.ExecuteRequest) (*kvpb.ExecuteResponse, error) {
	size, f := checkRequest(r)
	if f.bad() {
		return s.refuse(r, f), nil
	}
	if !s.total.take(size) {
		return s.refuse(r, busyServer), nil
	}
	defer s.total.give(size)
	m := newMessage(r, size, s.total)
	defer m.release()
	s.execute(ctx, m, nil)
	return s.respond(m.outcomes, m.clock), nil
}

// Stream answers many requests over one stream, one goroutine for each, each
// as soon as it is complete.
func (s *Server) Stream(stream kvpb.KV_StreamServer) error {
	c := &conversation{s: s, stream: stream, own: newBudget(s.limits.StreamRequests, s.limits.StreamBytes),
		ended: make(chan error, 1)}
	end := c.pulse.start(c)
	defer end()
	go func() { c.ended <- c.receive() }()
	select {
	case err := <-c.ended:
		c.running.Wait()
		return err
	case <-s.draining:
		c.stop()
		c.running.Wait()
		// Returning ends the stream, and with it the goroutine in receive.
		return status.Error(codes.Unavailable, "the server is stopping")
	}
}

// A conversation is one Stream call. receive runs in its own goroutine, which
// ends with the stream; requests run in one goroutine each.
type conversation struct {
	s      *Server
	stream kvpb.KV_StreamServer
	own    *budget
	ended  chan error

	running sync.WaitGroup
	pulse   pulse
	// gate orders the start of a request against the stop of the conversation.
	gate struct {
		sync.Mutex
		stopped bool
	}
	// out serialises responses; a send waits for a slow client, and while it
	// does, the budget of the stream refuses what comes in.
	out sync.Mutex
}

func (c *conversation) receive() error {
	for {
		r, err := c.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case r.GetId() == 0:
			return status.Error(codes.InvalidArgument, "a request has the id 0, which is that of signs of life")
		case r.GetRequest() == nil:
			r.Request = &kvpb.ExecuteRequest{}
		}
		if !c.start(r) {
			return nil
		}
	}
}

// start begins one request; false: the conversation was stopped.
func (c *conversation) start(r *kvpb.StreamRequest) bool {
	if !c.enter() {
		return false
	}
	size, f := checkRequest(r.GetRequest())
	switch {
	case f.bad():
		c.refuse(r, f)
	case !c.own.take(size):
		c.refuse(r, busyStream)
	case !c.s.total.take(size):
		c.own.give(size)
		c.refuse(r, busyServer)
	default:
		go c.run(r, size)
	}
	return true
}

// enter counts one request as running, unless the conversation was stopped.
func (c *conversation) enter() bool {
	c.gate.Lock()
	defer c.gate.Unlock()
	if !c.gate.stopped {
		c.running.Add(1)
		c.pulse.began()
	}
	return !c.gate.stopped
}

func (c *conversation) stop() {
	c.gate.Lock()
	defer c.gate.Unlock()
	c.gate.stopped = true
}

func (c *conversation) run(r *kvpb.StreamRequest, size int64) {
	defer c.running.Done()
	defer c.pulse.over()
	defer c.own.give(size)
	defer c.s.total.give(size)
	m := newMessage(r.GetRequest(), size, c.own, c.s.total)
	defer m.release()
	if !r.GetParts() {
		c.s.execute(c.stream.Context(), m, nil)
		c.send(&kvpb.StreamResponse{Id: r.GetId(), Response: c.s.respond(m.outcomes, m.clock)})
		return
	}
	parts := false
	c.s.execute(c.stream.Context(), m, func(indexes []uint32) {
		parts = true
		c.send(&kvpb.StreamResponse{Id: r.GetId(), Response: c.s.respond(m.hand(indexes), m.clock), Indexes: indexes, More: true})
		m.release()
	})
	last := &kvpb.StreamResponse{Id: r.GetId()}
	if parts {
		last.Indexes = m.unsent()
		last.Response = c.s.respond(m.pick(last.Indexes), m.clock)
	} else {
		last.Response = c.s.respond(m.outcomes, m.clock)
	}
	c.send(last)
}

// refuse answers a request that is not begun. It is sent from the receiving
// goroutine: a client that floods the stream and does not read its answers
// stops itself.
func (c *conversation) refuse(r *kvpb.StreamRequest, f fault) {
	defer c.running.Done()
	defer c.pulse.over()
	c.send(&kvpb.StreamResponse{Id: r.GetId(), Response: c.s.refuse(r.GetRequest(), f)})
}

// send sends one response. A failed send means that the stream has ended, which
// receive reports.
func (c *conversation) send(r *kvpb.StreamResponse) {
	c.out.Lock()
	defer c.out.Unlock()
	_ = c.stream.Send(r)
	c.pulse.beat()
}
