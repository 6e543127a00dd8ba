package bench

import (
	"fmt"
	"math"
	"time"
)

const (
	// carried is the p99 under which a rate counts as carried: a tenth of the
	// module's patience.
	carried = 50 * time.Millisecond
	// near is how close the highest rate that was carried and the lowest that was not
	// have to be: what differs less differs from run to run too.
	near = 1.1
	// attempts of a rate: a rented host takes its processors away now and then.
	attempts = 2
)

// Step is one rate that was tried.
type Step struct {
	UpdatesPerSecond float64 `json:"updates_per_second"`
	Carried          bool    `json:"carried"`
	Why              string  `json:"why,omitempty"` // not
}

// search doubles the rate until it is not carried any more, or halves it until it is,
// and then halves the distance between the two. Each rate has a dispatcher of its own,
// so that none suffers from what the one before has left. The result is that of the
// highest rate that was carried.
func search(s settings, say func(string, ...any), measure func(settings) (*Result, error)) (*Result, error) {
	var best *Result
	var steps []Step
	low, high := 0.0, math.Inf(1)
	for next := s.rate; ; {
		s.rate = math.Round(next)
		r, why, err := try(s, measure)
		if err != nil {
			return nil, err
		}
		steps = append(steps, Step{s.rate, why == "", why})
		if why == "" {
			low, best = s.rate, r
			say("%.0f updates/s: carried, p99 %.1f ms", s.rate, r.Latency[0].P99)
		} else {
			high = s.rate
			say("%.0f updates/s: not carried: %s", s.rate, why)
		}
		switch {
		case low == 0 && high <= 1:
			return nil, fmt.Errorf("not even one update a second is carried: %s", why)
		case low == 0:
			next = max(1, high/2)
		case math.IsInf(high, 1):
			next = low * 2
		case high/low <= near || high-low <= 1:
			best.Steps = steps
			return best, nil
		default:
			next = math.Sqrt(low * high)
		}
	}
}

// try measures one rate, again if it was not carried the first time.
func try(s settings, measure func(settings) (*Result, error)) (r *Result, why string, err error) {
	for range attempts {
		if r, err = measure(s); err != nil {
			return nil, "", err
		}
		if why = r.sound(); why == "" {
			return r, "", nil
		}
	}
	return r, why, nil
}
