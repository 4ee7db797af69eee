package clerk

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// A stream is one bidirectional call to one address. The lane's goroutine
// sends; receive runs in its own, and ends when the stream does. What is
// unanswered then is lost, and may have been executed.
type stream struct {
	lane   *lane
	call   grpc.BidiStreamingClient[kvpb.StreamRequest, kvpb.StreamResponse]
	cancel context.CancelFunc
	ended  chan struct{} // closed when everything is answered or lost

	mu struct {
		sync.Mutex
		lastID   uint64
		inFlight map[uint64]*message // without probes, whose answers need no one
		watching bool
		vigil    vigil // while watching
		dead     bool
		why      string // the stream was stopped; empty: it was not
	}
}

// A message is one request that is not wholly answered.
type message struct {
	batch []*attempt // an answered attempt is nil
	bytes int
	hold  time.Duration // how long the server may take
	quiet time.Duration // that the vigil had counted when it was sent
}

// openStream opens a stream. An error means that nothing was sent.
func openStream(l *lane) (*stream, error) {
	ctx, cancel := l.streamContext()
	// A new call waits for the connection; a server that swallows packets must
	// not make it wait for long.
	slow := time.AfterFunc(connectMax, cancel)
	call, err := kvpb.NewKVClient(l.conn).Stream(ctx)
	if !slow.Stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		if l.conn.GetState() != connectivity.Ready {
			return nil, l.c.pool.unconnected(l.addr)
		}
		return nil, errors.New(status.Convert(err).Message())
	}
	s := &stream{lane: l, call: call, cancel: cancel, ended: make(chan struct{})}
	s.mu.inFlight = map[uint64]*message{}
	l.c.wait.Go(s.receive)
	return s, nil
}

// send sends one message. If that fails it returns why: the stream is at its
// end, and everything in flight was reported lost.
func (s *stream) send(batch []*attempt) (why string) {
	r, bytes := s.lane.message(batch)
	m := &message{batch: batch, bytes: bytes, hold: time.Duration(r.GetTimeoutMs()) * time.Millisecond}
	s.mu.Lock()
	if s.mu.dead {
		why := s.mu.why
		s.mu.Unlock()
		for _, a := range batch {
			a.done <- ending{lost: why}
		}
		return why
	}
	s.mu.lastID++
	id := s.mu.lastID
	if len(batch) > 0 {
		s.mu.inFlight[id] = m
		if !s.mu.watching {
			s.mu.watching, s.mu.vigil = true, newVigil(s.lane.m.alone)
			time.AfterFunc(watchEvery, s.watch)
		}
		m.quiet = s.mu.vigil.quiet
	}
	s.mu.Unlock()
	if err := s.call.Send(&kvpb.StreamRequest{Id: id, Request: r, Parts: true}); err != nil {
		s.cancel()
		<-s.ended
		return s.end()
	}
	return ""
}

// end is why the stream ended.
func (s *stream) end() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.why
}

// receive delivers answers until the stream ends.
func (s *stream) receive() {
	defer close(s.ended)
	defer s.cancel()
	for {
		r, err := s.call.Recv()
		if err != nil {
			s.fail(status.Convert(err).Message())
			return
		}
		s.lane.learn(r.GetResponse())
		s.deliver(r)
	}
}

// deliver hands one response, or a part of one, to its attempts.
func (s *stream) deliver(r *kvpb.StreamResponse) {
	s.mu.Lock()
	m := s.mu.inFlight[r.GetId()] // none of a sign of life
	if m == nil {
		s.mu.Unlock()
		return
	}
	if !r.GetMore() {
		delete(s.mu.inFlight, r.GetId())
	}
	s.mu.Unlock()
	// Only this goroutine touches m.batch from here on: fail runs after it.
	indexes := r.GetIndexes()
	if len(indexes) == 0 && !r.GetMore() && len(r.GetResponse().GetOutcomes()) == len(m.batch) {
		for i := range m.batch {
			m.answer(i, answerOf(r.GetResponse(), i))
		}
		return
	}
	for i, index := range indexes {
		m.answer(int(index), answerOf(r.GetResponse(), i))
	}
	if !r.GetMore() {
		m.lose("the answer lacks an outcome")
	}
}

// answer ends one attempt, unless it has ended.
func (m *message) answer(i int, e ending) {
	if i < len(m.batch) && m.batch[i] != nil {
		m.batch[i].done <- e
		m.batch[i] = nil
	}
}

// lose ends the attempts that have not ended: they may have been executed.
func (m *message) lose(why string) {
	for i := range m.batch {
		m.answer(i, ending{lost: why, sent: true})
	}
}

// fail marks the stream dead and reports everything in flight lost. Whoever waits
// less patiently than the stream has gone by then: the address is suspect all the
// same.
func (s *stream) fail(why string) {
	s.lane.c.table.change(func(t *route.Table) { t.Suspect(s.lane.addr) })
	s.mu.Lock()
	s.mu.dead = true
	if s.mu.why == "" {
		s.mu.why = why
	}
	why = s.mu.why
	lost := s.mu.inFlight
	s.mu.inFlight = nil
	s.mu.Unlock()
	for _, m := range lost {
		m.lose(why)
	}
}

// stop ends the stream; its receiver does the rest.
func (s *stream) stop(why string) {
	s.mu.Lock()
	if s.mu.why == "" {
		s.mu.why = why
	}
	s.mu.Unlock()
	s.cancel()
}

// watch stops a stream that owes answers and is silent, or has let one be overdue.
// It runs as a timer, while anything is in flight.
func (s *stream) watch() {
	s.mu.Lock()
	if s.mu.dead || len(s.mu.inFlight) == 0 {
		s.mu.watching = false
		s.mu.Unlock()
		return
	}
	v := &s.mu.vigil
	v.look()
	bytes, overdue := 0, false
	for _, m := range s.mu.inFlight {
		bytes += m.bytes
		overdue = overdue || v.quiet-m.quiet > m.hold+answerGrace
	}
	silent, dead := v.silent, v.dead(s.lane.m, bytes)
	s.mu.Unlock()
	switch {
	case dead:
		s.lane.m.hangUp(silent)
		s.stop(errSilent.Error())
		return
	case overdue:
		s.stop(errOverdue.Error())
		return
	}
	time.AfterFunc(watchEvery, s.watch)
}
