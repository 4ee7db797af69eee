package shardkv

import (
	"sync/atomic"
	"time"

	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// pulseEvery is how often a stream that owes answers is looked at: its longest
// silence is two of them.
const pulseEvery = 125 * time.Millisecond

// A pulse sends signs of life on a stream while requests of it are unanswered
// and nothing else is sent. A commit may take seconds on a slow disk; without the
// signs a client could not tell that from a server that is gone, and would ask
// again and again for what is being done.
//
// One goroutine runs run; it sleeps while nothing is unanswered.
type pulse struct {
	unanswered atomic.Int64
	sent       atomic.Bool   // something was sent since the last look
	wake       chan struct{} // buffered, one
}

// start begins to watch a conversation. The function that it returns ends that.
func (p *pulse) start(c *conversation) (end func()) {
	p.wake = make(chan struct{}, 1)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		p.run(c, stop)
	}()
	return func() {
		close(stop)
		<-ended
	}
}

// began counts a request that is not answered yet, and over one that is.
func (p *pulse) began() {
	if p.unanswered.Add(1) == 1 {
		poke(p.wake)
	}
}

func (p *pulse) over() { p.unanswered.Add(-1) }

// beat notes that something was sent.
func (p *pulse) beat() {
	if !p.sent.Load() {
		p.sent.Store(true)
	}
}

func (p *pulse) run(c *conversation, stop <-chan struct{}) {
	timer := time.NewTimer(pulseEvery)
	defer timer.Stop()
	for {
		if p.unanswered.Load() == 0 {
			select {
			case <-p.wake:
			case <-stop:
				return
			}
		}
		p.sent.Store(false)
		timer.Reset(pulseEvery)
		select {
		case <-timer.C:
		case <-stop:
			return
		}
		if p.unanswered.Load() > 0 && !p.sent.Load() {
			c.send(&kvpb.StreamResponse{Response: c.s.respond(nil, 0)})
		}
	}
}
