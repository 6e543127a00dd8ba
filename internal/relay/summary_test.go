package relay

import (
	"testing"
	"time"
)

func TestOwnPackets(t *testing.T) {
	var o ownPackets
	now := time.Unix(1700000000, 0)
	for i, step := range []struct {
		after   time.Duration
		packets uint64
		want    float64
	}{
		{0, 5000, 0}, // the former process moved them
		{100 * time.Millisecond, 5100, 0},
		{1900 * time.Millisecond, 7000, 1000},
		{500 * time.Millisecond, 9000, 1000}, // too soon to say
		{9500 * time.Millisecond, 7000, 0},
	} {
		now = now.Add(step.after)
		if got := o.rate(now, step.packets); got != step.want {
			t.Errorf("step %d: %v packets/s, want %v", i, got, step.want)
		}
	}
}
