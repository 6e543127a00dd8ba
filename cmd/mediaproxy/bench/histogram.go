package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts times in buckets whose width grows with the time: 32 for each power
// of two, so that a quantile is right within 3 %. Any goroutine may add.
type Histogram struct {
	buckets [64 * subBuckets]atomic.Uint64
	longest atomic.Int64
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

// Add counts a time; a negative one as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(uint64(d))].Add(1)
	for {
		had := h.longest.Load()
		if int64(d) <= had || h.longest.CompareAndSwap(had, int64(d)) {
			return
		}
	}
}

func bucketOf(v uint64) int {
	shift := bits.Len64(v) - subBits - 1
	if shift < 0 {
		return int(v)
	}
	return shift<<subBits + int(v>>shift)
}

// floorOf is the smallest value of a bucket.
func floorOf(bucket int) uint64 {
	shift := bucket>>subBits - 1
	if shift < 0 {
		return uint64(bucket)
	}
	return uint64(bucket&(subBuckets-1)|subBuckets) << shift
}

// Count is how many times were added.
func (h *Histogram) Count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// Quantile is the end of the bucket below which the share q lies: never less than it was.
func (h *Histogram) Quantile(q float64) time.Duration {
	left := uint64(q * float64(h.Count()))
	for i := range h.buckets {
		n := h.buckets[i].Load()
		if left < n {
			return min(time.Duration(floorOf(i+1)), h.Max())
		}
		left -= n
	}
	return h.Max()
}

// Max is the longest time.
func (h *Histogram) Max() time.Duration { return time.Duration(h.longest.Load()) }

// Merge adds what others have counted.
func (h *Histogram) Merge(others ...*Histogram) {
	for _, o := range others {
		for i := range o.buckets {
			h.buckets[i].Add(o.buckets[i].Load())
		}
		h.longest.Store(max(h.longest.Load(), o.longest.Load()))
	}
}
