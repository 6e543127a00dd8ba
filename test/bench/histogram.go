package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts times in buckets whose width grows with the time: 32 for
// each power of two, so that a quantile is right within 3 %. Any thread may add.
type histogram struct {
	buckets [64 * subBuckets]atomic.Uint64
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func (h *histogram) add(nanoseconds int64) {
	h.buckets[bucketOf(uint64(max(nanoseconds, 0)))].Add(1)
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

func (h *histogram) total() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

func (h *histogram) quantile(q float64) time.Duration {
	left := uint64(q * float64(h.total()))
	for i := range h.buckets {
		n := h.buckets[i].Load()
		if left < n {
			return time.Duration(floorOf(i))
		}
		left -= n
	}
	return 0
}
