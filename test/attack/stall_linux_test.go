package attack

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/program"
)

// TestStall keeps the relay from work for a moment after the answer, as a busy or
// migrating host does. What attackers sent in that time lies in front of what the
// phones sent, and the waits are over when the relay looks at it.
func TestStall(t *testing.T) { eachWay(t, userSpace, testStall) }

func testStall(t *testing.T, way string) {
	w := newWorld(t, program.Build(t), program.Settings{"fast_path": way})
	before := w.metered()
	var r result
	for i := range 36 {
		p := w.planFor(i)
		p.early, p.hold = false, false
		c, err := w.newCall(p)
		t.Cleanup(c.close)
		if err == nil {
			err = c.say(control.KindRequest, 0, 1, "sendrecv", false)
		}
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		r.good = append(r.good, c)
	}
	for _, c := range r.good {
		if err := c.say(control.KindReply, 1, 1, "sendrecv", true); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
	syscall.Kill(w.pair.RelayPID(), syscall.SIGSTOP)
	pass(t.Context(), 200*time.Millisecond)
	for _, c := range r.good {
		for side, p := range c.phones {
			p.Speak(c.to[side])
		}
	}
	pass(t.Context(), 1500*time.Millisecond)
	syscall.Kill(w.pair.RelayPID(), syscall.SIGCONT)
	good := r.good
	r.good = nil
	var all sync.WaitGroup
	for _, c := range good {
		all.Go(func() {
			if err := c.talk(t.Context(), phaseTalk, time.Second); err != nil {
				c.wrong = append(c.wrong, fmt.Errorf("after the stall: %w", err))
			}
			if err := c.hangUp(); err != nil {
				c.wrong = append(c.wrong, err)
			}
		})
	}
	all.Wait()
	for _, c := range good {
		c.judge()
		c.slow = nil // the stall is meant
		r.add(c)
	}
	w.expectSafe(r, before)
}
