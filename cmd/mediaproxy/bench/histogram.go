package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts times in buckets whose width grows with the time: 32 for each power
// of two, so that a quantile is right within 3 %. Any goroutine may add.
type histogram struct {
	buckets [64 * subBuckets]atomic.Uint64
	longest atomic.Int64
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func (h *histogram) add(d time.Duration) {
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

func (h *histogram) count() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// quantile is the end of the bucket below which the share q lies: never less than it was.
func (h *histogram) quantile(q float64) time.Duration {
	left := uint64(q * float64(h.count()))
	for i := range h.buckets {
		n := h.buckets[i].Load()
		if left < n {
			return min(time.Duration(floorOf(i+1)), h.max())
		}
		left -= n
	}
	return h.max()
}

func (h *histogram) max() time.Duration { return time.Duration(h.longest.Load()) }

// merge adds what others have counted.
func (h *histogram) merge(others ...*histogram) {
	for _, o := range others {
		for i := range o.buckets {
			h.buckets[i].Add(o.buckets[i].Load())
		}
		h.longest.Store(max(h.longest.Load(), o.longest.Load()))
	}
}
