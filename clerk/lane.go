package clerk

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/clerk/route"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Limits of one packed message.
const (
	operationsPerMessageMax = 512
	bytesPerMessageMax      = 1 << 20
	// aloneBytes is the size from which an operation travels alone.
	aloneBytes = 256 << 10
	// answerBytesMax bounds what the gets of a message are expected to bring.
	// Servers answer the gets that do not fit into a response with BUSY.
	answerBytesMax = 4 << 20
)

const (
	// holdMin is how long a server may hold a request that it can't answer yet,
	// before the routing machine thinks again. Where writes take longer, as the
	// server says, it is twice as long as they take, at most holdMax.
	holdMin = 800 * time.Millisecond
	holdMax = 10 * time.Second
	// answerGrace is how long an answer may be overdue, beyond what the server may
	// hold it, while no bytes arrive that could be it.
	answerGrace = 3 * time.Second
)

// A lane sends operations to one address. Whatever queued while the previous
// message was being sent makes the next message: no timer holds anything back.
// One goroutine, run, packs and sends; while a stream is up, another receives.
type lane struct {
	c    *Clerk
	addr string
	conn *grpc.ClientConn
	m    *meter
	wake chan struct{} // of one; carries no data
	// due: a probe shall be sent.
	due  atomic.Bool
	stop chan struct{} // closed to end it

	mu struct {
		sync.Mutex
		queue  []*attempt
		closed bool
	}
	stream *stream // run's own; nil: none is up
	// getBytes is what a get is expected to bring, from those that were answered.
	getBytes atomic.Int64
	// patienceMS is how long a write takes at present, as the server says; 0: it
	// has not said.
	patienceMS atomic.Uint32
}

// An attempt is one operation on its way to one address.
type attempt struct {
	op       *kvpb.Operation
	session  *route.Session // nil: a read
	bytes    int
	deadline time.Time
	// done receives the end of the attempt, once; buffered.
	done chan ending
	// queued is guarded by the lane's mutex: the attempt can still be withdrawn.
	queued bool
}

// An ending is how an attempt ended: with a reply, or lost.
type ending struct {
	reply   route.Reply
	outcome *kvpb.Outcome // of a reply
	clock   uint64        // of a reply: the server's, in ms since 1970; 0: not told
	lost    string        // why there is no reply; empty: there is one
	sent    bool          // of a lost one: it may have left
	// abandoned, of a lost one: the call was over, which says nothing of the server.
	abandoned bool
}

func newLane(c *Clerk, addr string, conn *grpc.ClientConn, m *meter) *lane {
	return &lane{c: c, addr: addr, conn: conn, m: m, wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

// end ends the lane, which nobody uses any more.
func (l *lane) end() { close(l.stop) }

// probe makes the server say something soon, if it is there: an empty request is
// answered at once. While a stream owes answers the server does so by itself.
func (l *lane) probe() {
	l.due.Store(true)
	poke(l.wake)
}

// unused is why an attempt is not sent that comes as its lane ends; who was asked
// first by a Clerk that was closed hears of that.
const unused = "its connection was being closed, because nobody had used it for long"

// enqueue starts an attempt.
func (l *lane) enqueue(a *attempt) {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		a.done <- ending{lost: unused}
		return
	}
	a.queued = true
	l.mu.queue = append(l.mu.queue, a)
	l.mu.Unlock()
	poke(l.wake)
}

// withdraw gives an attempt up, whose call is over. It returns the attempt's
// ending if it has ended, else a lost one, sent unless the attempt was still
// queued.
func (l *lane) withdraw(a *attempt) ending {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case e := <-a.done:
		return e
	default:
	}
	if !a.queued {
		return ending{lost: "no answer yet", sent: true, abandoned: true}
	}
	for i, other := range l.mu.queue {
		if other == a {
			l.mu.queue = append(l.mu.queue[:i], l.mu.queue[i+1:]...)
			break
		}
	}
	return ending{lost: "waiting to be sent", abandoned: true}
}

// run packs and sends until the lane is ended, or the Clerk's life.
func (l *lane) run() {
	defer l.close()
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			return
		case <-l.c.life.Done():
			return
		}
		for l.c.life.Err() == nil {
			// Let the callers that are about to queue do so: the message gets fuller.
			runtime.Gosched()
			if l.due.Swap(false) {
				l.send(nil)
			}
			batch := l.take()
			if len(batch) == 0 {
				break
			}
			l.send(batch)
		}
	}
}

// close fails what is queued and waits for the stream's end.
func (l *lane) close() {
	l.mu.Lock()
	queue := l.mu.queue
	l.mu.queue, l.mu.closed = nil, true
	for _, a := range queue {
		a.queued = false
	}
	l.mu.Unlock()
	for _, a := range queue {
		a.done <- ending{lost: unused}
	}
	if l.stream != nil {
		l.stream.stop(unused)
		<-l.stream.ended
	}
}

// take removes the next message's attempts from the queue: of one session, with
// reads of anyone; a large one alone.
func (l *lane) take() []*attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	var batch, rest []*attempt
	var session *route.Session
	bytes, room := 0, int64(answerBytesMax)
	for _, a := range l.mu.queue {
		read := a.session == nil
		full := len(batch) > 0 && (a.bytes >= aloneBytes || batch[0].bytes >= aloneBytes ||
			bytes+a.bytes > bytesPerMessageMax || len(batch) >= operationsPerMessageMax)
		if full || read && len(batch) > 0 && room <= 0 || !read && session != nil && a.session != session {
			rest = append(rest, a)
			continue
		}
		if read {
			room -= l.getBytes.Load()
		} else {
			session = a.session
		}
		bytes += a.bytes
		a.queued = false
		batch = append(batch, a)
	}
	l.mu.queue = rest
	return batch
}

// send sends one message, on a new stream if none is up.
func (l *lane) send(batch []*attempt) {
	if l.stream != nil {
		select {
		case <-l.stream.ended:
			l.stream = nil
		default:
		}
	}
	if l.stream == nil {
		s, err := openStream(l)
		if err != nil {
			l.failUnsent(batch, err.Error())
			return
		}
		l.stream = s
	}
	if why := l.stream.send(batch); why != "" {
		// What queued meanwhile would only be the next to find out.
		l.failUnsent(nil, why)
	}
}

// failUnsent fails a batch, and what else is queued: it would fare no better.
func (l *lane) failUnsent(batch []*attempt, why string) {
	l.mu.Lock()
	queue := l.mu.queue
	l.mu.queue = nil
	for _, a := range queue {
		a.queued = false
	}
	l.mu.Unlock()
	for _, a := range slices.Concat(batch, queue) {
		a.done <- ending{lost: why}
	}
}

// message makes the request of a batch; of an empty one, a probe.
func (l *lane) message(batch []*attempt) (r *kvpb.ExecuteRequest, bytes int) {
	r = &kvpb.ExecuteRequest{Operations: make([]*kvpb.Operation, len(batch))}
	var session *route.Session
	var last time.Time
	for i, a := range batch {
		r.Operations[i] = a.op
		bytes += a.bytes
		if a.session != nil {
			session = a.session
		}
		if a.deadline.After(last) {
			last = a.deadline
		}
	}
	if id := l.c.table.clusterID(); !id.IsZero() {
		r.Cluster = id[:]
	}
	if session != nil {
		r.Session = l.c.sessions.message(session)
	}
	hold := holdMin
	if session != nil {
		hold = min(max(holdMin, 2*time.Duration(l.patienceMS.Load())*time.Millisecond), holdMax)
	}
	hold = min(hold, max(time.Until(last), time.Millisecond))
	r.TimeoutMs = uint32(hold.Milliseconds()) + 1
	return r, bytes
}

// learn takes what a response says beyond its outcomes.
func (l *lane) learn(r *kvpb.ExecuteResponse) {
	l.c.sessions.observe(r.GetClockMs())
	l.patienceMS.Store(r.GetPatienceMs())
	if len(r.GetOutcomes()) == 0 {
		return // a sign of life
	}
	bytes, old := int64(0), l.getBytes.Load()
	for _, out := range r.GetOutcomes() {
		bytes = max(bytes, int64(len(out.GetValue())))
	}
	if expected := max(bytes, old-old/16); expected != old {
		l.getBytes.Store(expected)
	}
}

// answerOf is what a response says to its i-th outcome's operation.
func answerOf(r *kvpb.ExecuteResponse, i int) ending {
	if i >= len(r.GetOutcomes()) {
		return answer(nil, "", 0)
	}
	e := answer(r.GetOutcomes()[i], r.GetLeader(), r.GetConfig())
	e.clock = r.GetClockMs()
	return e
}

// answer is the ending of an attempt with an outcome. A missing one is as good
// as no answer.
func answer(out *kvpb.Outcome, leader string, config uint64) ending {
	if out == nil {
		return ending{lost: "the answer lacks an outcome", sent: true}
	}
	return ending{outcome: out, reply: route.Reply{
		Code: codeOf(out.GetCode()), Text: out.GetMessage(), Redirect: redirectOf(out.GetRedirect()),
		Leader: leader, Config: shardcfg.ConfigNum(config), WaitMS: out.GetWaitMs(),
	}}
}

// codeOf is a code as the routing machine numbers it: alike. One that is out of
// its range is of a newer server, and leaves the outcome unknown.
func codeOf(c kvpb.Code) route.Code {
	if c < 0 || c > 255 {
		return route.OutcomeUnknown
	}
	return route.Code(c)
}

// redirectOf is what a redirect says; nil: nothing that could be used.
func redirectOf(r *kvpb.Redirect) *route.Hint {
	inc, ok := shardcfg.To128[shardcfg.Incarnation](r.GetIncarnation())
	if r == nil || !ok || r.GetShard() >= shardcfg.ShardCountMax {
		return nil
	}
	return &route.Hint{
		Shard: shardcfg.ShardID(r.GetShard()), Epoch: epochOf(r.GetEpoch()),
		GID: shardcfg.GroupID(r.GetGid()), Incarnation: inc, Replicas: r.GetReplicas(),
	}
}

// poke sends a wake-up that carries no data to a channel of one.
func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// streamContext is the context of a stream: of the Clerk's life, and its own.
func (l *lane) streamContext() (context.Context, context.CancelFunc) {
	return context.WithCancel(l.c.life)
}
