package shardkv

import "sync"

// A budget bounds the requests in flight, by number and by bytes. It never
// queues: what does not fit is refused, so that an overloaded server says so
// while it still can.
type budget struct {
	mu struct {
		sync.Mutex
		requests int
		bytes    int64
	}
	requestsMax int
	bytesMax    int64
}

func newBudget(requestsMax int, bytesMax int64) *budget {
	return &budget{requestsMax: requestsMax, bytesMax: bytesMax}
}

// take admits one request of n bytes, or reports false. A request larger than
// the whole budget is admitted when it is alone.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.requests >= b.requestsMax || b.mu.requests > 0 && b.mu.bytes+n > b.bytesMax {
		return false
	}
	b.mu.requests++
	b.mu.bytes += n
	return true
}

// grow adds n bytes to what requests in flight hold, for their answers, or
// reports false. A request that is alone may grow as it must.
func (b *budget) grow(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.requests > 1 && b.mu.bytes+n > b.bytesMax {
		return false
	}
	b.mu.bytes += n
	return true
}

// shrink returns what grow added.
func (b *budget) shrink(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.bytes -= n
}

// give returns what take admitted.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.requests--
	b.mu.bytes -= n
}

// inFlight returns the admitted requests and their bytes.
func (b *budget) inFlight() (requests int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.requests, b.mu.bytes
}
