package transport

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Withhold keeps the answers of one peer to messages with entries from Raft until
// release is called. Heartbeats pass, and what the answers show is recorded at once.
// It is called again for the same peer only after the release.
//
// Raft v1.7.3 reads a peer's id after each such answer without the lock under which
// it changes the peer's address (updateLastAppended, startStopReplication), and it
// sends the entry that changes the address before it does so itself. Waiting until
// nothing is under way to the peer is therefore not enough.
func (t *Transport) Withhold(id raft.ServerID) (release func()) {
	released := make(chan struct{})
	t.mu.Lock()
	t.mu.withheld[id] = released
	t.mu.Unlock()
	return sync.OnceFunc(func() {
		t.mu.Lock()
		delete(t.mu.withheld, id)
		t.mu.Unlock()
		close(released)
	})
}

// awaitRelease waits as long as the peer's answers are withheld.
func (t *Transport) awaitRelease(id raft.ServerID) {
	t.mu.Lock()
	released := t.mu.withheld[id]
	t.mu.Unlock()
	if released != nil {
		<-released
	}
}
