package bench

import (
	"math/bits"
	"time"
)

const (
	// subBits is how many bits below the highest one a bucket tells apart: a
	// value is known to within 1/2^subBits of itself, that is 0.8 %.
	subBits     = 7
	subCount    = 1 << subBits
	bucketCount = (64 - subBits) * subCount
)

// A Histogram counts durations in buckets whose width grows with the value, as
// HdrHistogram does: every quantile is exact to within 0.8 %, whatever the
// range, in a fixed 58 KiB. The zero Histogram is empty and ready. It is not safe for
// concurrent use: each client has its own, and they are merged at the end.
type Histogram struct {
	counts [bucketCount]uint64
	total  uint64
	max    time.Duration
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

// Merge adds what o counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Total is how many durations were recorded.
func (h *Histogram) Total() uint64 { return h.total }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns a duration that the fraction q of the recorded ones does not
// exceed: at least the true quantile and at most 0.8 % above it. q is clamped
// to 0 and 1; an empty histogram has 0.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	q = min(max(q, 0), 1)
	// The rank is rounded up, so that the quantile 1 is the last one.
	rank := uint64(q * float64(h.total))
	if float64(rank) < q*float64(h.total) || rank == 0 {
		rank++
	}
	seen := uint64(0)
	for i, n := range h.counts {
		seen += n
		if seen >= rank {
			return min(time.Duration(upperBound(i)), h.max)
		}
	}
	return h.max
}

// bucketOf returns the bucket of a value: values below 2*subCount have one each;
// above, each power of two is split into subCount buckets.
func bucketOf(v uint64) int {
	if v < 2*subCount {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subCount + int(v>>shift)
}

// upperBound is the greatest value of bucket i.
func upperBound(i int) uint64 {
	if i < 2*subCount {
		return uint64(i)
	}
	shift := i/subCount - 1
	return (uint64(i-shift*subCount)+1)<<shift - 1
}
