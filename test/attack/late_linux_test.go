package attack

import (
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/program"
)

// TestLateStart reports what attackers get from calls in which one phone begins to send
// long after the answer. No rule can tell an unknown address that sends from a phone
// that has moved there, so this is a figure, not a failure; but the phone must be heard
// at once when it begins, and hear.
func TestLateStart(t *testing.T) { eachWay(t, userSpace, testLateStart) }

func testLateStart(t *testing.T, way string) {
	w := newWorld(t, program.Build(t), program.Settings{"fast_path": way})
	start := time.Now()
	length := typical()
	length.ring = 300 * time.Millisecond
	for _, late := range []time.Duration{700 * time.Millisecond, 3 * time.Second} {
		var plans []plan
		for i := range 36 {
			p := plan{number: int(late/time.Millisecond)*100 + i, places: [2]*place{w.callers[i%3], w.callees[i/3%3]}, len: length}
			p.late[i/9%2] = late
			plans = append(plans, p)
		}
		before := w.metered()
		r := w.runCalls(plans, (*call).run)
		heard, hearing := w.metered()-before, 0
		judged := append(r.good, r.wrong...)
		for _, c := range judged {
			if c.missed || c.failed {
				t.Errorf("%s: %v", c, c.wrong)
			}
			if c.strays() > 0 {
				hearing++
			}
		}
		t.Logf("%d calls with a phone %v late, %d not judged: attackers heard %d packets of %d calls; in %d calls a phone heard an attacker",
			len(plans), late, len(r.slow), heard, tapped(judged), hearing)
		if len(judged) < len(plans)/2 {
			t.Errorf("this machine is too busy for this test: only %d calls could be judged", len(judged))
		}
	}
	w.checkAttack(start)
}
