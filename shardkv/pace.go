package shardkv

import (
	"sync"
	"time"
)

// A pace measures how long writes take, from their proposal to their result, so
// that clients can be told how patient to be. Safe for concurrent use.
type pace struct {
	mu struct {
		sync.Mutex
		// slowest is that of late: the largest duration, which fades by a sixteenth
		// with every faster write.
		slowest time.Duration
		// begun are the starts of the writes under way, in their order; those before
		// head have ended, as have the zero ones.
		begun []time.Time
		head  int
		first uint64 // the number of begun[0]
	}
}

// begin notes the start of a write. The function that it returns notes its end.
func (p *pace) begin(now time.Time) (end func(now time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	number := p.mu.first + uint64(len(p.mu.begun))
	p.mu.begun = append(p.mu.begun, now)
	return func(ended time.Time) { p.end(number, ended.Sub(now)) }
}

func (p *pace) end(number uint64, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.begun[number-p.mu.first] = time.Time{}
	for p.mu.head < len(p.mu.begun) && p.mu.begun[p.mu.head].IsZero() {
		p.mu.head++
	}
	if p.mu.head > len(p.mu.begun)/2 {
		p.mu.first += uint64(p.mu.head)
		p.mu.begun = append(p.mu.begun[:0], p.mu.begun[p.mu.head:]...)
		p.mu.head = 0
	}
	p.mu.slowest = max(took, p.mu.slowest-p.mu.slowest/16)
}

// patience is how long a write may take that comes now: as long as the slowest
// of late, or as the oldest that is under way has taken already.
func (p *pace) patience(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := p.mu.slowest
	if p.mu.head < len(p.mu.begun) {
		longest = max(longest, now.Sub(p.mu.begun[p.mu.head]))
	}
	return longest
}

// milliseconds is a duration in ms, rounded up.
func milliseconds(d time.Duration) uint32 {
	return uint32(min((max(d, 0)+time.Millisecond-1)/time.Millisecond, 1<<31))
}
