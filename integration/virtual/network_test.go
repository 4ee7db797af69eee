package virtual

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A network is the directed links between replicas, by address. Faults overlap:
// each counts up what it does to a link, and down again when it ends.
type network struct {
	mu struct {
		sync.Mutex
		links   map[linkKey]*link
		changed chan struct{} // closed and replaced when any link changes
		jitter  *rand.Rand
		closed  bool
	}
}

type linkKey struct{ from, to string }

// A link is one direction between two replicas.
type link struct {
	cut  int // messages are lost; streams hang, as under retransmission
	held int // messages wait until it ends
	slow int // messages take slowBy longer each
}

const (
	pace   = time.Millisecond
	slowBy = 150 * time.Millisecond
)

var (
	errLost        = errors.New("virtual: the message or its answer was lost")
	errUnreachable = errors.New("virtual: connection refused")
)

func newNetwork(seed uint64) *network {
	n := new(network)
	n.mu.links = map[linkKey]*link{}
	n.mu.changed = make(chan struct{})
	n.mu.jitter = rand.New(rand.NewPCG(seed, 2))
	return n
}

func (n *network) linkLocked(from, to string) *link {
	k := linkKey{from, to}
	l := n.mu.links[k]
	if l == nil {
		l = new(link)
		n.mu.links[k] = l
	}
	return l
}

func (n *network) announceLocked() {
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// change applies f to the links.
func (n *network) change(keys []linkKey, f func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range keys {
		f(n.linkLocked(k.from, k.to))
	}
	n.announceLocked()
}

// look returns the present state of a link, how long a message takes now, and
// a channel that is closed when any link changes.
func (n *network) look(from, to string) (l link, takes time.Duration, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l = *n.linkLocked(from, to)
	takes = pace/10 + time.Duration(n.mu.jitter.Int64N(int64(pace)))
	if l.slow > 0 {
		takes += time.Duration(l.slow) * (slowBy/2 + time.Duration(n.mu.jitter.Int64N(int64(slowBy))))
	}
	if n.mu.closed {
		l = link{cut: 1}
	}
	return l, takes, n.mu.changed
}

// carry takes one message over a link. It returns false if the message is lost.
func (n *network) carry(from, to string) bool {
	_, takes, _ := n.look(from, to)
	time.Sleep(takes) // virtual
	for {
		l, _, changed := n.look(from, to)
		switch {
		case l.cut > 0:
			return false
		case l.held == 0:
			return true
		}
		<-changed
	}
}

// close loses every message from now on.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.closed = true
	n.announceLocked()
}
