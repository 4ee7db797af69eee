package raftgroup

import (
	"time"

	"github.com/hashicorp/raft"
)

// When a leader hands over because it limps.
const (
	// timeBucket is how finely time is divided. The evidence on the leader itself is
	// that of ownBuckets: ten seconds; of a follower, that of peerBuckets.
	timeBucket  = 2 * time.Second
	ownBuckets  = 5
	peerBuckets = 15
	// ownBucketsMin is in how many of its buckets the leader must have appended, and
	// limped in all of them; peerAnswersMin how often the follower must have answered.
	ownBucketsMin  = 3
	peerAnswersMin = 3
	// limpFactor is how many times faster than the leader the follower must be;
	// limpMin is what nobody hands over for.
	limpFactor = 3
	limpMin    = 20 * time.Millisecond
)

// An appendTimes compares, for one leadership, how fast the leader appends to its own log
// with how fast its followers answer messages with entries: an answer takes the
// way there and back and an append. So whoever answers fast appends fast. Only if
// the leader limps and a follower does not is there anything to gain: where all
// disks are slow, or the network is, leadership stays. Times are given to it; not
// safe for concurrent use.
type appendTimes struct {
	began time.Time
	own   *timeWindow
	peers map[raft.ServerID]*timeWindow
}

func newAppendTimes(began time.Time) *appendTimes {
	return &appendTimes{began: began, own: newTimeWindow(ownBuckets), peers: make(map[raft.ServerID]*timeWindow)}
}

// appended notes an append of the leader that ended, or one that has not ended yet,
// with its age.
func (p *appendTimes) appended(now time.Time, took time.Duration) { p.own.add(p.bucket(now), took) }

// answered notes the answer of a follower that had entries to append.
func (p *appendTimes) answered(now time.Time, id raft.ServerID, took time.Duration) {
	w := p.peers[id]
	if w == nil {
		w = newTimeWindow(peerBuckets)
		p.peers[id] = w
	}
	w.add(p.bucket(now), took)
}

func (p *appendTimes) bucket(now time.Time) int64 { return int64(now.Sub(p.began) / timeBucket) }

// A limp is the evidence for handing over.
type limp struct {
	to   raft.ServerID
	own  time.Duration // what an append takes, in the best bucket
	peer time.Duration // what an answer of to takes, on average
}

// better returns the fastest of the candidates, if the leader should hand over to
// it.
func (p *appendTimes) better(now time.Time, candidates []raft.ServerID) (best limp, ok bool) {
	bucket := p.bucket(now)
	if bucket < ownBuckets {
		return limp{}, false
	}
	best.own, ok = p.own.best(bucket)
	if !ok || best.own < limpMin {
		return limp{}, false
	}
	for _, id := range candidates {
		w := p.peers[id]
		if w == nil {
			continue
		}
		mean, answers := w.mean(bucket)
		if answers >= peerAnswersMin && mean*limpFactor <= best.own && (best.to == "" || mean < best.peer) {
			best.to, best.peer = id, mean
		}
	}
	return best, best.to != ""
}

// A timeWindow keeps the counts and the sums of the newest buckets.
type timeWindow struct {
	newest int64
	count  []int64         // by bucket modulo their number
	sum    []time.Duration // likewise
}

func newTimeWindow(buckets int) *timeWindow {
	return &timeWindow{count: make([]int64, buckets), sum: make([]time.Duration, buckets)}
}

// advance empties the buckets that have passed out of the window.
func (w *timeWindow) advance(bucket int64) {
	n := int64(len(w.count))
	for w.newest = max(w.newest, bucket-n); w.newest < bucket; {
		w.newest++
		w.count[w.newest%n], w.sum[w.newest%n] = 0, 0
	}
}

func (w *timeWindow) add(bucket int64, took time.Duration) {
	w.advance(bucket)
	i := bucket % int64(len(w.count))
	w.count[i]++
	w.sum[i] += took
}

// best returns the lowest mean of a bucket, if enough of them have one.
func (w *timeWindow) best(bucket int64) (lowest time.Duration, ok bool) {
	w.advance(bucket)
	filled := 0
	for i, count := range w.count {
		if count == 0 {
			continue
		}
		if mean := w.sum[i] / time.Duration(count); filled == 0 || mean < lowest {
			lowest = mean
		}
		filled++
	}
	return lowest, filled >= ownBucketsMin
}

// mean returns the mean of the whole window.
func (w *timeWindow) mean(bucket int64) (mean time.Duration, count int64) {
	w.advance(bucket)
	var sum time.Duration
	for i := range w.count {
		count += w.count[i]
		sum += w.sum[i]
	}
	if count > 0 {
		mean = sum / time.Duration(count)
	}
	return mean, count
}
