package main

import (
	"testing"
	"time"
)

func TestBucketsKeepTheirOrder(t *testing.T) {
	for v := uint64(0); v < 1<<40; v += 1 + v/50 {
		b := bucketOf(v)
		low, high := floorOf(b), floorOf(b+1)
		if v < low || v >= high {
			t.Fatalf("value %d is in bucket %d of [%d, %d)", v, b, low, high)
		}
		if v >= subBuckets && float64(high-low) > 0.04*float64(v) {
			t.Fatalf("bucket of %d is %d wide, more than 4 %%", v, high-low)
		}
	}
}

func TestQuantile(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(int64(i+1) * int64(time.Microsecond))
	}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Microsecond}, {0.99, 990 * time.Microsecond}} {
		got := h.quantile(c.q)
		if diff := (got - c.want).Abs(); diff > c.want/25 {
			t.Errorf("quantile %v: got %v, want %v within 4 %%", c.q, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.values, got, c.want)
		}
	}
}
