package attack

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/phone"
	"example.org/mediaproxy/test/internal/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	calls  = 200
	atOnce = 50
)

// soak tells whether there is time for calls of natural length.
func soak() bool { return os.Getenv("MEDIAPROXY_TEST") == "soak" }

// kernel and userSpace are the two ways of fast_path that refuse packets in different
// places.
const (
	kernel    = "tc"
	userSpace = "off"
)

// eachWay makes a test in a way of moving packets, in the soak in both.
func eachWay(t *testing.T, gate string, test func(t *testing.T, way string)) {
	netlab.Needs(t)
	for _, way := range []string{kernel, userSpace} {
		if way == gate || soak() {
			t.Run(way, func(t *testing.T) { test(t, way) })
		}
	}
}

// typical is how long the phases of most calls are. Hold is longer than the 2 s after
// which a silent phone may be replaced.
func typical() lengths {
	if soak() {
		return lengths{ring: 4 * time.Second, talk: 8 * time.Second, hold: 15 * time.Second, resumed: 8 * time.Second}
	}
	return lengths{ring: 1500 * time.Millisecond, talk: 2500 * time.Millisecond, hold: 2600 * time.Millisecond, resumed: 2 * time.Second}
}

// reports are the ways phones treat RTCP: never, at once, late.
var reports = []phone.RTCP{{}, {Every: time.Second}, {First: 3 * time.Second, Every: time.Second}}

// planFor spreads the kinds of phones, calls and RTCP over all calls.
func (w *world) planFor(i int) plan {
	shape := i / 9
	p := plan{
		number: i, places: [2]*place{w.callers[i%3], w.callees[i/3%3]}, len: typical(),
		early: shape%2 == 1, hold: shape/2%2 == 1, holder: i / 2 % 2, newPort: i%4 == 0,
		rtcp: [2]phone.RTCP{reports[i/5%3], reports[i/7%3]},
	}
	if i%10 == 3 {
		p.len.ring = 10 * time.Second
	}
	if i%10 == 6 {
		p.len.talk = 7 * time.Second // long enough for the relay to treat the media as steady
	}
	return p
}

// result is what came of many calls.
type result struct {
	good []*call
	// wrong are calls that went wrong although every phone sent in time and every
	// packet was moved in time; slow are those that went wrong when that was not so.
	wrong, slow []*call
}

// runCalls makes calls, at most atOnce at the same time.
func (w *world) runCalls(plans []plan, run func(*call, context.Context) error) result {
	var mu sync.Mutex // guards r
	var r result
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, p := range plans {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			c := w.oneCall(w.t.Context(), p, run)
			mu.Lock()
			defer mu.Unlock()
			r.add(c)
		})
	}
	all.Wait()
	return r
}

func (r *result) add(c *call) {
	switch {
	case len(c.wrong) == 0:
		r.good = append(r.good, c)
	case len(c.slow) > 0:
		r.slow = append(r.slow, c)
	default:
		r.wrong = append(r.wrong, c)
	}
}

func (w *world) oneCall(ctx context.Context, p plan, run func(*call, context.Context) error) *call {
	c, err := w.newCall(p)
	if err == nil {
		err = run(c, ctx)
	}
	c.close()
	c.judge()
	if err != nil {
		c.failed = true
		c.wrong = append(c.wrong, err)
	}
	return c
}

// leaked counts packets that attackers heard from these calls.
func leaked(calls []*call) (n int) {
	for _, c := range calls {
		c.mu.Lock()
		n += c.leaks
		c.mu.Unlock()
	}
	return n
}

// expectSafe fails the test for every call that went wrong, and unless everything that
// attackers heard belongs to a call that this machine was too busy for.
func (w *world) expectSafe(r result, meteredBefore uint64) {
	w.t.Helper()
	for i, c := range r.wrong {
		if i == 10 {
			w.t.Errorf("%d more calls went wrong", len(r.wrong)-i)
			break
		}
		for _, err := range c.wrong {
			w.t.Errorf("%s: %v", c, err)
		}
	}
	heard := w.metered() - meteredBefore
	known := func() uint64 { return uint64(leaked(r.slow) + leaked(r.wrong)) }
	if until(w.t.Context(), 5*time.Second, func() bool { return known() >= heard }) != nil {
		w.t.Errorf("attackers heard %d packets, of which %d belong to calls known to have gone wrong", heard, known())
	}
	for i, c := range r.slow {
		if i < 5 {
			w.t.Logf("made on a busy machine, not judged: %s: %v; wrong: %v", c, c.slow, c.wrong)
		}
	}
}

// again are plans for other calls of the same kinds.
func again(calls []*call, shift int) (plans []plan) {
	for _, c := range calls {
		p := c.plan
		p.number += shift
		plans = append(plans, p)
	}
	return plans
}

// tries is how often calls are made for which the machine was too busy.
const tries = 6

// runJudged makes calls and returns them. Those that went wrong while the machine did
// not keep up prove nothing: others are made in their place.
func (w *world) runJudged(plans []plan, run func(*call, context.Context) error) (judged []*call) {
	w.t.Helper()
	start := time.Now()
	for try := range tries {
		before := w.metered()
		r := w.runCalls(plans, run)
		w.expectSafe(r, before)
		judged = append(append(judged, r.good...), r.wrong...)
		w.t.Logf("try %d: %d calls in %.0f s, %d wrong, %d not judged", try+1, len(plans), time.Since(start).Seconds(), len(r.wrong), len(r.slow))
		if len(r.slow) == 0 {
			return judged
		}
		plans = again(r.slow, 1000)
	}
	w.t.Errorf("this machine is too busy for this test: only %d calls could be judged after %d tries", len(judged), tries)
	return judged
}

// TestCalls makes 200 calls under attack: zero packets to any attacker, zero of an
// attacker's packets to a phone, every call two-way in every phase.
func TestCalls(t *testing.T) { eachWay(t, kernel, testCalls) }

func testCalls(t *testing.T, way string) {
	w := newWorld(t, program.Build(t), program.Settings{"fast_path": way})
	start := time.Now()
	var plans []plan
	for i := range calls {
		plans = append(plans, w.planFor(i))
	}
	w.runJudged(plans, (*call).run)
	w.checkAttack(start)
	w.checkMover(way)
	for _, s := range w.onHold {
		if s.sent.Load() == 0 {
			t.Errorf("attacker %s never had a call on hold to attack", s.name)
		}
	}
	t.Logf("attackers sent %d packets, the phones' clock was late by %v at worst", w.attackPackets(), w.studio.Late())
}

func (w *world) attackPackets() (n uint64) {
	for _, s := range slices.Concat(w.everyPort, w.onHold) {
		n += s.sent.Load()
	}
	return n
}
